"""What of hypercore 11.37.1's test/batch.js makes sense here.

There a batch is a named session: a draft that is kept in the store and committed later. Here
what belongs together is appended in one call, and `exclusive` keeps others out while it is put
together. So there is nothing for: batch truncate, close, flush, info, partial and conflicting
flushes, checkout and catching up of batches, persistent batches, and compacting them.
"""

from __future__ import annotations

import trio
import trio.testing

from hypercore import Appended, Core, Corestore
from tests.support.cancel_everywhere import cancel_everywhere


async def test_blocks_of_one_call_come_together(core: Core) -> None:
    await core.append([b"a", b"b", b"c"])
    events = core.events()
    assert await core.append([b"de", b"fg"]) == 3
    assert (core.length, core.byte_length) == (5, 7)
    assert await core.get_many(range(5)) == [b"a", b"b", b"c", b"de", b"fg"]
    assert core.has_range(0, 5)
    assert await anext(events) == Appended(3, 5)


async def test_all_or_nothing_of_a_cancelled_call(core: Core) -> None:
    for _ in range(40):
        await cancel_everywhere(lambda: core.append([b"a", b"b", b"c"]))
        assert core.length % 3 == 0
    assert core.length >= 120


async def test_appending_to_the_core_while_a_batch_is_put_together(core: Core) -> None:
    """JavaScript refuses to commit the batch then; here the others wait."""
    await core.append([b"a", b"b", b"c"])
    async with core.session() as session, trio.open_nursery() as nursery, core.exclusive():
        nursery.start_soon(session.append, b"e")
        await trio.testing.wait_all_tasks_blocked()
        start = core.length
        core.append_nowait([b"%d" % start, b"%d" % (start + 1)])
        await trio.testing.wait_all_tasks_blocked()
        assert core.length == 5
    assert await core.get_many(range(3, 6)) == [b"3", b"4", b"e"]


async def test_batches_at_the_same_time_do_not_mix(core: Core) -> None:
    async def append(name: bytes) -> None:
        async with core.exclusive_session() as session:
            for _ in range(5):
                await session.append([name, name])

    async with trio.open_nursery() as nursery:
        for name in (b"1", b"2", b"3"):
            nursery.start_soon(append, name)
    runs = [block async for block in core.blocks()]
    assert len(runs) == 30
    assert all(len(set(runs[start : start + 10])) == 1 for start in (0, 10, 20))


async def test_encrypted_batches(store: Corestore) -> None:
    core = await store.get(name="secret", encryption_key=bytes(32))
    await core.append([b"a", b"b"])
    await core.append([b"c", b"d", b"e"])
    await core.append([b"f", b"g"])
    assert core.byte_length == core.length == 7
    assert await core.get_many(range(7)) == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]
    assert None not in core.read_blocks(range(7))
    assert all(block not in b"abcdefg" for block in core.read_blocks(range(7)) if block)


async def test_a_huge_batch(core: Core) -> None:
    assert await core.append([b"o"] * 70_000) == 0
    assert core.contiguous_length == 70_000
    assert await core.get(69_999) == b"o"
