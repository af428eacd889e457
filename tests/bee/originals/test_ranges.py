"""What hyperbee 2.27.3's test/ranges.js, test/sub.js, test/cache.js and test/extension.js cover.

Subs share all with their bee, so making many of them costs nothing ("create many subs"). The
cache is one budget for a bee: it is not handed in ("node and key caches are subbed from a
passed-in rache"), and keys in it are strings of bytes of their own ("entries are not cached
using buffers from default slab").
"""

from __future__ import annotations

from bee import UTF8, Bee
from hypercore import Core, Corestore
from tests.bee.originals.filling import collect, put_range
from tests.support.replicating_cores import replicating


async def test_peek(bee: Bee[str, str]) -> None:
    """basic peak."""
    await put_range(bee, 0, 50)
    assert await bee.peek(gte="14") == await bee.get("14") == (15, "14", None)
    assert await bee.peek(lt="27", reverse=True) == await bee.get("26") == (27, "26", None)
    assert await bee.peek(lt="0", reverse=True) is None


async def test_all_of_it(bee: Bee[str, str]) -> None:
    """read all."""
    await put_range(bee, 0, 100)
    assert [int(entry.key) async for entry in bee.range()] == list(range(100))


async def test_many_subs(core: Core, bee: Bee[str, str]) -> None:
    """create many subs."""
    await bee.sub("things").put("a", "1")
    subs = [bee.sub("things") for _ in range(1_000)]
    assert all([await sub.get("a") == (1, "a", "1") for sub in subs])
    assert len(await collect(core.audit())) > 0


async def test_the_cache_has_a_bound(core: Core) -> None:
    bee = Bee(core, cache_bytes=10_000)
    for number in range(2_000):
        await bee.put(b"%d" % number, b"v")
    statistics = bee.cache_statistics()
    assert 0 < statistics.size_bytes <= statistics.limit_bytes == 10_000


async def test_the_extension_answers(
    core: Core, bee: Bee[str, str], other_store: Corestore
) -> None:
    """extension set by boolean."""
    await bee.put("a", "a")
    await bee.put("b", "b")
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        for extension in (True, False):
            await copy.wait_length(3)
            clone = Bee(copy, key_encoding=UTF8, value_encoding=UTF8, extension=extension)
            assert await clone.get("a") == (1, "a", "a")
            assert await clone.get("b") == (2, "b", "b")
