"""A compaction keeps what is held of a bee's past, and nothing for those who are gone."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterable, Mapping

import pytest
import trio

from bee import Bee, Snapshot
from bee.held import Living
from hypercore.errors import BlockNotAvailable
from tests.bee.test_compaction import entries_of, thinned
from tests.support.bee_log import BeeLog

KEYS = [b"%03d" % number for number in range(300)]


async def put_all(bee: Bee, value: bytes) -> None:
    async with bee.batch() as batch:
        for key in KEYS:
            await batch.put(key, value)


async def test_what_a_snapshot_shows_stays_for_as_long_as_it_is_there() -> None:
    """Found in review: it ended with BlockNotAvailable."""
    bee = Bee(BeeLog())
    await bee.put(KEYS[0], b"first")
    await put_all(bee, b"old")
    snapshot = bee.snapshot()
    scan = bee.snapshot().range()
    differences = bee.snapshot().diff(bee.checkout(2))
    inner = bee.snapshot().sub("").range()
    assert (await scan.__anext__()).key == KEYS[0]
    await put_all(bee, b"new")
    await put_all(bee, b"newest")
    assert (await bee.compact()).blocks == len(KEYS)
    assert [entry.value async for entry in snapshot.range()] == [b"old"] * len(KEYS)
    assert [entry.key async for entry in scan] == KEYS[1:]
    assert len([each async for each in differences]) == len(KEYS)
    assert [entry async for entry in inner] == []
    del snapshot, scan, differences, inner
    gc.collect()
    assert (await bee.compact()).blocks == len(KEYS) + 1


async def test_what_a_live_history_has_still_to_tell_stays() -> None:
    bee = Bee(BeeLog())
    await put_all(bee, b"old")
    history = bee.live_history(gte=101)
    await put_all(bee, b"new")
    assert (await history.__anext__()).seq == 101
    assert (await bee.compact()).blocks == 101  # also what it has told just now
    told = [(await history.__anext__()).seq for _ in range(102, bee.version)]
    assert told == list(range(102, bee.version))
    assert (await bee.compact()).blocks == len(KEYS) - 101


class ToldLog(BeeLog):
    """Calls somebody whenever blocks were given up."""

    on_clear: Callable[[], object] = int

    async def clear_many(
        self, indices: Iterable[int], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        await super().clear_many(indices, local=local)
        self.on_clear()


class YieldingLog(BeeLog):
    """Lets others run whenever they might."""

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        await trio.lowlevel.checkpoint()


async def test_snapshots_that_were_taken_since_it_began() -> None:
    thin, entries = await thinned()
    log = ToldLog(thin.blocks)
    bee = Bee(log, cache_bytes=0)
    snapshots: list[Snapshot] = []
    log.on_clear = lambda: snapshots.append(bee.snapshot())
    await bee.compact()
    assert snapshots
    for snapshot in snapshots:
        assert {entry.key: entry.value async for entry in snapshot.range()} == entries
    log.on_clear = int
    snapshots.clear()
    for _ in range(5):
        await bee.compact()
    assert await entries_of(bee) == entries


async def test_short_reads_do_not_keep_nodes_from_being_brought_together() -> None:
    thin, entries = await thinned()
    bee = Bee(YieldingLog(thin.blocks), cache_bytes=0)

    async def read_on() -> None:
        while True:
            assert {entry.key: entry.value async for entry in bee.snapshot().range()} == entries

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        done = await bee.compact()
        nursery.cancel_scope.cancel()
    assert done.appended == 1
    assert done.kept <= len(entries) + 10


class InterruptedLog(BeeLog):
    """Does something the next time that others might run."""

    between: Callable[[], Awaitable[object]] | None = None

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        between, self.between = self.between, None
        if between is not None:
            await between()


@pytest.mark.parametrize("many", [False, True])
async def test_a_key_is_found_whatever_is_compacted_while_others_run(many: bool) -> None:
    """Found in review: a get let others run before it read the version that it had chosen."""
    thin, entries = await thinned()
    for key, value in entries.items():
        log = InterruptedLog(thin.blocks)
        bee = Bee(log, cache_bytes=0)
        log.between = bee.compact
        for _ in range(8):
            (entry,) = await bee.get_many([key]) if many else [await bee.get(key)]
            assert entry is not None
            assert entry.value == value
        assert log.between is None


async def test_a_version_that_cannot_be_read_any_more_is_not_kept() -> None:
    bee = Bee(BeeLog(), cache_bytes=0)
    await put_all(bee, b"old")
    snapshot = bee.snapshot()
    with bee.watch():
        await bee.erase(gte=KEYS[10], lt=KEYS[290])
        assert (await bee.compact()).blocks >= 0
    with pytest.raises(BlockNotAvailable):
        await snapshot.get(KEYS[20])


def test_the_dead_are_forgotten() -> None:
    class Thing:
        pass

    things: Living[Thing] = Living()
    kept = [Thing() for _ in range(100)]
    for thing in kept:
        things.add(thing)
        for _ in range(10):
            things.add(Thing())
    assert list(things) == kept
