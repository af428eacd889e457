"""The bee on real logs: in memory, on the disk, with others waiting for their turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from bee import Batch, Bee, Entry, HistoryReplaced
from hypercore import Durability, open_corestore
from hypercore.errors import NotWritable, UsageError
from tests.support.bee_log import BeeLog
from tests.support.replicating_cores import replicating
from tests.support.turns import counting_turns


async def fill(bee: Bee, count: int) -> None:
    async with bee.batch() as batch:
        for number in range(count):
            await batch.put(b"%05d" % (number * 7919 % count), b"v%d" % number)


@pytest.mark.parametrize("durability", ["commit", "os"])
async def test_a_reopened_store_has_all_of_it(tmp_path: Path, durability: str) -> None:
    async with open_corestore(tmp_path, durability=Durability.parse(durability)) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        await fill(bee, 500)
        await bee.put(b"single", b"1")
        async with bee.batch() as batch:
            await batch.delete(b"00007")
            await batch.flush(local={b"merged": b"\x01", b"gone": None})
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        assert core.get_local_value(b"merged") == b"\x01"
        assert await bee.get(b"single") == Entry(501, b"single", b"1")
        assert await bee.get(b"00007") is None
        assert len([entry async for entry in bee.range()]) == 500
        await bee.put(b"more", b"2")
        assert (await bee.peek(gte=b"m")) == Entry(503, b"more", b"2")


async def test_many_writers_share_the_wait_for_the_disk(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.parse("commit")) as store:
        bee = Bee(await store.get(name="bee"))

        async def write(number: int) -> None:
            for turn in range(5):
                await bee.put(b"%d-%d" % (number, turn), b"v")

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(write, number)
        assert len([entry async for entry in bee.range()]) == 50


async def test_only_the_owner_writes() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        key = (await store.get(name="bee")).key
        bee = Bee(await other.get(key=key))
        assert not bee.is_writable
        with pytest.raises(NotWritable):
            await bee.put(b"a", b"1")


async def test_a_truncated_core() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        await fill(bee, 50)
        snapshot = bee.snapshot()
        await bee.put(b"later", b"1")
        await core.truncate(51)
        assert await bee.get(b"later") is None
        assert len([entry async for entry in bee.range()]) == 50
        with pytest.raises(HistoryReplaced):
            await snapshot.get(b"00001")


async def read_one(bee: Bee) -> object:
    return await bee.get(b"00100")


async def read_all(bee: Bee) -> object:
    return [entry async for entry in bee.range()]


async def read_history(bee: Bee) -> object:
    return [change async for change in bee.history()]


async def read_snapshot(bee: Bee) -> object:
    return await bee.snapshot().get(b"00100")


@pytest.mark.parametrize("read", [read_one, read_all, read_history, read_snapshot])
async def test_who_waits_for_what_is_cut_off_is_told_that_the_history_is_another(
    read: Callable[[Bee], Awaitable[object]],
) -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        await fill(Bee(core), 500)
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(core.length)

        async def wait_in_vain() -> None:
            with pytest.raises(HistoryReplaced):
                await read(Bee(copy))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_in_vain)
            await trio.testing.wait_all_tasks_blocked()
            await core.truncate(101)
            async with replicating(core, copy):
                await trio.testing.wait_all_tasks_blocked()


async def test_a_watch_of_one_key_goes_on_in_a_history_that_is_as_long() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        bee = Bee(core)
        await fill(bee, 300)
        length = core.length
        async with bee.batch() as batch:
            await batch.put_many([(b"later %d" % number, b"v") for number in range(200)])
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(core.length)
        told: list[Entry[bytes, bytes] | None] = []

        async def watch() -> None:
            with Bee(copy).watch_key(b"00100") as entries:
                told.append(await anext(entries))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            await core.truncate(length)
            async with bee.batch() as batch:
                await batch.put_many([(b"later %d" % number, b"new") for number in range(200)])
            async with replicating(core, copy):
                await trio.testing.wait_all_tasks_blocked()
        assert told == [await bee.get(b"00100")]


async def do_gets(bee: Bee) -> None:
    for _ in range(2_000):
        await bee.get(b"00100")


async def do_puts(bee: Bee) -> None:
    for number in range(500):
        await bee.put(b"%05d" % number, b"new")


async def do_batch(bee: Bee) -> None:
    async with bee.batch() as batch:
        for number in range(1_000):
            await batch.put(b"%05d" % number, b"new")


async def do_scan(bee: Bee) -> None:
    async for _ in bee.range():
        pass


async def do_history(bee: Bee) -> None:
    async for _ in bee.history():
        pass


async def do_diff(bee: Bee) -> None:
    async for _ in bee.diff(1):
        pass


@pytest.mark.parametrize("work", [do_gets, do_puts, do_batch, do_scan, do_history, do_diff])
async def test_long_local_work_lets_others_run(work: Callable[[Bee], Awaitable[None]]) -> None:
    async with open_corestore(None) as store:
        bee = Bee(await store.get(name="bee"))
        await fill(bee, 2_000)
        async with counting_turns() as turns:
            before = turns.count
            await work(bee)
            assert turns.count - before >= 5


async def test_a_long_batch_is_whole_or_nothing_and_lets_others_run() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        twin = BeeLog()
        await fill(Bee(twin), 1_500)
        turns: list[int] = []

        async def watch_length() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                turns.append(core.length)

        async def write() -> None:
            async with bee.batch() as batch:
                for number in range(1_500):
                    await batch.put(b"%05d" % (number * 7919 % 1_500), b"v%d" % number)
                turns.clear()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_length)
            with trio.CancelScope() as scope:
                async with bee.batch() as batch:
                    for number in range(1_500):
                        await batch.put(b"%05d" % number, b"given up")
                    scope.cancel()
            assert scope.cancelled_caught
            assert core.length == 0
            await write()
            assert turns.count(0) >= 10
            nursery.cancel_scope.cancel()
        assert set(turns) <= {0, 1_501}
        assert await core.get_many(range(core.length)) == twin.blocks
        assert len([entry async for entry in bee.range()]) == 1_500


@pytest.mark.parametrize("count", [1, 1_500])
async def test_another_task_cannot_flush_a_batch(count: int) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)

        async def flush(batch: Batch[bytes, bytes]) -> None:
            with trio.fail_after(1), pytest.raises(UsageError):
                await batch.flush()

        async with bee.batch() as batch, trio.open_nursery() as nursery:
            for number in range(count):
                await batch.put(b"%05d" % number, b"v")
            nursery.start_soon(flush, batch)
            await trio.testing.wait_all_tasks_blocked()
            assert core.length == 0
            assert await batch.get(b"00000") == Entry(1, b"00000", b"v")
        assert core.length == count + 1
        await bee.put(b"next", b"v")


@pytest.mark.parametrize("count", [1, 1_500])
async def test_a_batch_that_another_task_leaves_is_discarded_and_others_write(count: int) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        opened = AsyncExitStack()
        batch = await opened.enter_async_context(bee.batch())
        for number in range(count):
            await batch.put(b"%05d" % number, b"v")

        async def leave() -> None:
            with pytest.raises(UsageError):
                await opened.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave)
        assert core.length == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bee.put, b"next", b"v")
            await trio.testing.wait_all_tasks_blocked()
            assert core.length == 2
            nursery.cancel_scope.cancel()


async def test_a_batch_of_very_many_bytes_waits_on_the_disk(tmp_path: Path) -> None:
    values = {b"%04d" % number: b"%d " % number * 3_000 for number in range(1_600)}
    waiting = 0

    async def watch() -> None:
        nonlocal waiting
        while True:
            sizes = [file.stat().st_size for file in (tmp_path / "db").glob("ahead-*")]
            waiting = max(waiting, sum(sizes))
            await trio.lowlevel.checkpoint()

    async with open_corestore(tmp_path) as store, trio.open_nursery() as nursery:
        core = await store.get(name="bee")
        bee = Bee(core)
        nursery.start_soon(watch)
        async with bee.batch() as batch:
            await batch.put_many(values.items())
        nursery.cancel_scope.cancel()
        assert waiting > 15_000_000
    async with open_corestore(tmp_path) as store:
        bee = Bee(await store.get(name="bee"))
        assert {entry.key: entry.value async for entry in bee.range()} == values
        assert not [*(tmp_path / "db").glob("ahead-*")]
