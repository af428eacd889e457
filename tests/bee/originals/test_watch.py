"""What hyperbee 2.27.3's test/watch.js covers.

A watch is a `with` block; it ends with the block, and the loop over it with `break` or a cancel
scope. So these have no counterpart: that closing the bee or the watcher ends what waits ("watch
multiple next() on parallel - done", "watch next() after is destroyed", "destroy watch ...",
"closing bee should destroy watcher", "destroy should not trigger stream error", "throws if bee
closing while calling getAndWatch", "slow differ that gets destroyed should not throw"), and
`ready()`. One task iterates over one watch ("watch multiple next() on parallel - value"). An
update is the difference: a differ of one's own is a filter over it ("can specify own differ").
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from bee import BINARY, JSON, UTF8, Bee, Entry, KeyWatch, Watch
from hypercore import Core, Corestore
from tests.bee.originals.filling import collect, put_range

Text = Bee[str, str]
Told = list[Entry[Any, Any] | None]


@asynccontextmanager
async def following(watch: KeyWatch[Any, Any]) -> AsyncIterator[Told]:
    """What the watch tells while the block runs."""
    told: Told = []

    async def follow() -> None:
        with watch as entries:
            async for entry in entries:
                told.append(entry)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        yield told
        nursery.cancel_scope.cancel()


async def after(told: Told, change: Awaitable[object]) -> object:
    """The value that the watch has told last, once it has heard of a change."""
    await change
    await wait_all_tasks_blocked()
    return None if told[-1] is None else told[-1].value


async def versions_of(watch: Watch[Any, Any]) -> tuple[int, int]:
    with trio.fail_after(20):
        update = await anext(watch)
    return update.after.version, update.before.version


async def test_a_key(bee: Text) -> None:
    """basic getAndWatch append flow."""
    async with following(bee.watch_key("aKey")) as told:
        assert told == [None]
        assert await after(told, bee.put("other", "key")) is None
        assert await after(told, bee.put("aKey", "here")) == "here"
        assert await after(told, bee.put("aKey?", "not here")) == "here"
        assert await after(told, bee.put("aKey", "now here")) == "now here"
        assert len(told) == 3


async def test_a_key_that_is_there(bee: Text) -> None:
    """current value loaded when getAndWatch resolves."""
    await bee.put("aKey", "here")
    async with following(bee.watch_key("aKey")) as told:
        assert told == [(1, "aKey", "here")]


async def test_a_key_of_a_log_that_is_cut(core: Core, bee: Text) -> None:
    """getAndWatch truncate flow; emits update."""
    async with following(bee.watch_key("aKey")) as told:
        await bee.put("aKey", "here")
        await bee.put("otherKey", "other1Val")
        await bee.put("otherKey2", "otherVal2")
        assert core.length == 4
        assert await after(told, core.truncate(2)) == "here"
        assert await after(told, core.truncate(1)) is None
        assert await after(told, bee.put("something", "irrelevant")) is None
        assert await after(told, bee.put("aKey", "is back")) == "is back"
        assert [entry and entry.value for entry in told] == [None, "here", None, "is back"]


async def test_a_deleted_key_of_a_log_that_is_cut(core: Core, bee: Text) -> None:
    """getAndWatch truncate flow with deletes."""
    async with following(bee.watch_key("aKey")) as told:
        await bee.put("aKey", "here")
        await bee.put("otherKey", "other1Val")
        await bee.put("otherKey2", "otherVal2")
        assert await after(told, bee.delete("aKey")) is None
        assert await after(told, core.truncate(2)) == "here"
        assert await after(told, core.truncate(1)) is None


async def test_a_key_of_a_sub(core: Core) -> None:
    """getAndWatch with passed key/value encodings."""
    bee = Bee(core)
    sub = bee.sub("mySub", key_encoding=UTF8, value_encoding=UTF8)
    async with following(sub.watch_key("entry")) as told:
        assert await after(told, bee.put(b"entry", b"not in sub")) is None
        assert await after(told, sub.put("entry", "in sub")) == "in sub"
        assert told[-1] is not None
        assert told[-1].key == "entry"


async def test_a_key_by_the_codecs_of_the_bee(core: Core) -> None:
    """getAndWatch uses the default encodings of the bee."""
    bee = Bee(core, key_encoding=UTF8, value_encoding=JSON)
    async with following(bee.watch_key("entry")) as told:
        assert await after(told, bee.put("entry", {"here": "json"})) == {"here": "json"}


async def test_a_watch(bee: Text) -> None:
    """basic watch; basic watch next."""
    with bee.watch() as watch:
        await bee.put("/a.txt", None)
        assert await versions_of(watch) == (2, 1)


async def test_one_update_after_the_other(bee: Text) -> None:
    """watch multiple next() on parallel - value; watch waits for new change."""
    await bee.put("/before", None)
    with bee.watch() as watch:
        for version, key in enumerate("abc", 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_later, bee.put, key)
                assert await versions_of(watch) == (version + 1, version)


async def _later(put: Callable[[str, None], Awaitable[bool]], key: str) -> None:
    await wait_all_tasks_blocked()
    await put(key, None)


async def test_no_change_is_lost(bee: Text) -> None:
    """watch does not lose changes if next() was not called yet."""
    await bee.put("/a", None)
    with bee.watch() as watch:
        await bee.put("/b", None)
        await bee.put("/c", None)
        assert await versions_of(watch) == (4, 2)


async def test_a_range(bee: Text) -> None:
    """basic watch on range."""
    await put_range(bee, 0, 50)
    with bee.watch(gte="14") as watch:
        await bee.put("13", None)
        with trio.move_on_after(0.05) as waiting:
            await anext(watch)
        assert waiting.cancelled_caught
        await bee.put("14", None)
        assert await versions_of(watch) == (53, 52)


async def test_a_batch_is_one_update(bee: Text) -> None:
    """batch multiple changes."""
    with bee.watch() as watch:
        async with bee.batch() as batch:
            for key in ("/a", "/b", "/c"):
                await batch.put(key, None)
        assert await versions_of(watch) == (4, 1)


async def test_a_bee_that_is_there_already(store: Corestore) -> None:
    """watch ready step should not trigger changes; without bee.ready() the correct versions."""
    first = Bee(await store.get(name="bee"), key_encoding=UTF8, value_encoding=UTF8)
    await first.put("/a", None)
    await first.put("/b", None)
    again = Bee(await store.get(name="bee"), key_encoding=UTF8, value_encoding=UTF8)
    assert again.version == 3
    with again.watch() as watch:
        with trio.move_on_after(0.05) as waiting:
            await anext(watch)
        assert waiting.cancelled_caught
        await again.put("/c", None)
        assert await versions_of(watch) == (4, 3)


async def test_lots_of_watches(bee: Text) -> None:
    """create lots of watchers."""
    seen: list[tuple[int, int]] = []

    async def follow(watch: Watch[str, str]) -> None:
        with watch:
            seen.append(await versions_of(watch))

    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(follow, bee.watch())
        await wait_all_tasks_blocked()
        await bee.put("/a", None)
    assert seen == [(2, 1)] * 1_000


async def test_a_difference_that_is_of_no_interest(bee: Text) -> None:
    """can specify own differ."""
    with bee.watch() as watch:
        await bee.put("e2", "entry2")
        changes = [row async for row in await anext(watch)]
    assert [row for row in changes if row.left is None] == []
    assert len(changes) == 1


async def test_a_sub(core: Core) -> None:
    """watch with passed key/value encodings."""
    bee = Bee(core, key_encoding=UTF8, value_encoding=BINARY)
    sub = bee.sub("mySub", key_encoding=UTF8, value_encoding=JSON)
    with sub.watch() as watch:
        await bee.put("not in sub", b"ignored")
        await sub.put("in sub 1", {"this is": "yielded"})
        await sub.put("in sub 2", {"this is": "yielded"})
        rows = await collect(await anext(watch))
    assert [(row.left.key, row.left.value) for row in rows if row.left is not None] == [
        ("in sub 1", {"this is": "yielded"}),
        ("in sub 2", {"this is": "yielded"}),
    ]


async def test_codecs_of_the_bee(core: Core) -> None:
    """watch uses the bee`s encodings by default."""
    bee = Bee(core, key_encoding=UTF8, value_encoding=JSON)
    with bee.watch() as watch:
        await bee.put("entry1", {"this is": "entry1"})
        await bee.put("entry2", {"this is": "entry2"})
        rows = await collect(await anext(watch))
    assert [row.left and row.left.value for row in rows] == [
        {"this is": "entry1"},
        {"this is": "entry2"},
    ]
