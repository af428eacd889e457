"""The data bee gets its room back by itself, while others read, write and follow."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from bee import Bee
from hypercore import Core, open_corestore
from hypercore.corestore import corestore_on
from hypercore.errors import StorageFailed
from hypercore.storage import WriteBatch
from hypercore.storage.memory import MemoryStorage
from node.compacting import LOOK_SECONDS, RETRY_SECONDS, Compacting, CompactionOptions
from node.config import load_config
from node.covalue.bee_store import BeeStore
from node.covalue.content import Transaction
from node.daemon import open_node
from node.errors import CorruptStore
from node.web.status import CompactionStatus
from node.web.summary import status_rows
from tests.support.authors import Author, edits, group_header, map_header, role
from tests.support.data_log import DataLog
from tests.support.replicating_cores import replicating
from tests.support.storage_rows import lose_blocks
from tests.support.stores import Appender

ANN = Author("ann")


@dataclass
class Home:
    """A bee with its compaction; the files that let go of deleted rows are counted calls."""

    core: Core
    options: CompactionOptions
    reclaimed: int = 0
    bee: Bee = field(init=False)
    compacting: Compacting = field(init=False)

    def __post_init__(self) -> None:
        self.bee = Bee(self.core)
        self.compacting = Compacting(self.bee, self.core, self._reclaim, self.options)

    async def _reclaim(self) -> None:
        self.reclaimed += 1

    async def fill(self, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            await self.bee.put(b"%05d" % number, b"value of %d" % number)

    async def entries(self) -> list[bytes]:
        return [entry.key async for entry in self.bee.range()]


@asynccontextmanager
async def open_home(share: float | None = 0.5, min_bytes: int = 1) -> AsyncIterator[Home]:
    async with open_corestore(None) as store:
        yield Home(await store.get(name="data"), CompactionOptions(share, min_bytes))


async def test_below_its_bounds_a_bee_is_left_alone() -> None:
    for options, is_due in (((0.9, 1), False), ((0.3, 10**6), False), ((0.3, 500), True)):
        async with open_home(*options) as home:
            for _ in range(2):
                await home.fill(100)
            held = home.core.info().blocks_held
            assert await home.compacting.compact_if_worth() is is_due
            assert (home.core.info().blocks_held < held) is is_due
            status = home.compacting.status()
            assert status.compactions == is_due
            if is_due:
                assert status.blocks == held - home.core.info().blocks_held
                assert status.bytes > 500
                assert status.dead_bytes == 0
            else:
                assert 0.3 < status.dead_share < 0.9
                assert status.dead_bytes > 500
            assert home.reclaimed == is_due


async def test_it_looks_when_the_bee_has_grown_and_when_something_was_erased(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_home() as home, trio.open_nursery() as nursery:
        await home.fill(300)
        nursery.start_soon(home.compacting.run)
        await trio.sleep(LOOK_SECONDS * 2)
        assert home.compacting.status().dead_share < 0.5
        await home.fill(200)
        await trio.sleep(LOOK_SECONDS * 2)
        assert home.compacting.status().compactions == 0, "200 blocks are no reason to look"
        await home.fill(300)
        await trio.sleep(LOOK_SECONDS * 2)
        assert home.compacting.status().compactions == 1
        async with home.bee.batch() as batch:
            for number in range(10, 300):
                await batch.delete(b"%05d" % number)
        await home.compacting.reclaim()
        await trio.sleep(LOOK_SECONDS * 2)
        assert home.compacting.status().compactions == 2
        assert len(await home.entries()) == 10
        nursery.cancel_scope.cancel()


async def test_a_log_that_is_being_fetched_back_is_not_looked_at() -> None:
    async with open_home(0.3) as home, trio.open_nursery() as nursery:
        for _ in range(2):
            await home.fill(100)
        async with home.core.exclusive():
            nursery.start_soon(home.compacting.compact_if_worth)
            await trio.testing.wait_all_tasks_blocked()
            assert home.compacting.status() == CompactionStatus()
        with trio.fail_after(5):
            while not home.compacting.status().compactions:
                await trio.lowlevel.checkpoint()


async def test_off_is_never(autojump_clock: trio.testing.MockClock) -> None:
    async with open_home(None) as home, trio.open_nursery() as nursery:
        for _ in range(4):
            await home.fill(200)
        nursery.start_soon(home.compacting.run)
        await home.compacting.reclaim()
        await trio.sleep(LOOK_SECONDS * 5)
        assert home.compacting.status() == CompactionStatus()
        assert home.core.info().blocks_held == home.core.length
        nursery.cancel_scope.cancel()


async def test_a_stop_in_between_loses_nothing_and_the_next_run_does_the_rest() -> None:
    async with open_home() as home:
        for _ in range(5):
            await home.fill(600)
        expected = await home.entries()
        stops = 0
        for tick in range(0, 4_000, 40):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def stop(after: int, scope: trio.CancelScope = scope) -> None:
                        for _ in range(after):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(stop, tick)
                    if await home.compacting.compact_if_worth():
                        scope.cancel()
            stops += 1
            assert not home.compacting.status().is_running
            assert await home.entries() == expected
            if home.compacting.status().compactions:
                break
        assert stops > 1
        assert home.core.info().blocks_held < 1_000


async def test_a_damaged_bee_is_told_of_and_goes_on() -> None:
    async with open_home() as home:
        for _ in range(2):
            await home.fill(100)
        await home.core.append(b"\xff\xff")
        assert not await home.compacting.compact_if_worth()
        assert home.compacting.status().compactions == 0


async def test_a_block_that_the_disk_lost_ends_the_compaction_and_nothing_else() -> None:
    storage = MemoryStorage()
    with corestore_on(storage) as store:
        home = Home(await store.get(name="data"), CompactionOptions(0.1, 1))
        await home.fill(100)
        lost = range(10, home.core.length - 1)
        discovery_key = home.core.discovery_key
    lose_blocks(storage, discovery_key, lost)
    with corestore_on(storage) as store:
        home = Home(await store.get(name="data"), CompactionOptions(0.1, 1))
        assert not await home.compacting.compact_if_worth()
        assert home.compacting.status().compactions == 0


class FullDisk(MemoryStorage):
    """Takes nothing while it is full."""

    is_full = False

    def commit(self, batch: WriteBatch) -> int:
        if self.is_full:
            raise StorageFailed("no room")
        return super().commit(batch)


async def test_a_full_disk_interrupts_it(autojump_clock: trio.testing.MockClock) -> None:
    storage = FullDisk()
    with corestore_on(storage) as store:
        home = Home(await store.get(name="data"), CompactionOptions(0.5, 1))
        for _ in range(4):
            await home.fill(300)
        async with trio.open_nursery() as tasks:
            storage.is_full = True
            tasks.start_soon(home.compacting.run)
            await trio.sleep(3 * LOOK_SECONDS)
            assert home.compacting.status().compactions == 0
            assert home.compacting.status().dead_share > 0.5
            assert not home.compacting.status().is_running
            storage.is_full = False
            await store.recover()
            await trio.sleep(RETRY_SECONDS + 2 * LOOK_SECONDS)
            assert home.compacting.status().compactions == 1
            assert len(await home.entries()) == 300
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("looks", [1.5, 0.1])
async def test_who_was_away_can_follow_after_it(
    looks: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Found by seed 303787, with less than one look: who had come and gone was not thought of."""
    async with open_home() as home, open_corestore(None) as theirs, trio.open_nursery() as tasks:
        tasks.start_soon(home.compacting.run)
        await home.fill(101)
        copy = await theirs.get(key=home.core.key)
        async with replicating(home.core, copy):
            await copy.wait_length(101)
            await trio.sleep(looks * LOOK_SECONDS)
            # It leaves between two looks, a little further on.
            await home.fill(6)
            await copy.wait_length(107)
        await trio.sleep(1.5 * LOOK_SECONDS)
        for _ in range(6):
            await home.fill(101)
        await trio.sleep(1.5 * LOOK_SECONDS)
        assert home.compacting.status().compactions == 1
        gone = [index for index in range(2 * 600) if home.core.read_node(index) is None]
        assert gone, "the tree was pruned"
        async with replicating(home.core, copy):
            await copy.wait_length(home.core.length)
            found = [entry.key async for entry in Bee(copy).range()]
        assert found == await home.entries()
        tasks.cancel_scope.cancel()


class InterruptedLog(DataLog):
    """When a reader lets others run, `between` does, once."""

    def __init__(self) -> None:
        super().__init__()
        self.between: Callable[[], Awaitable[object]] | None = None

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        await super().write_local(rows)
        if not rows and self.between is not None:
            between, self.between = self.between, None
            await between()


async def test_a_load_goes_on_when_a_compaction_takes_its_version_away() -> None:
    log = InterruptedLog()
    bee = Bee(log, cache_bytes=0)
    store, appender = BeeStore(bee, log, keeps_texts=False), Appender()
    header = map_header("many sessions")

    async def edit(after: int) -> None:
        for number in range(30):
            content = ANN.content(
                header,
                edits(after + 1),
                after=after,
                session=f"s{number}",
                as_agent=True,
                with_header=not after and not number,
            )
            await appender.put(store, content)

    async def edit_and_compact() -> None:
        await edit(1)
        assert (await bee.compact()).blocks >= 30

    await edit(0)
    before = log.length
    log.between = edit_and_compact
    value = await store.load_value(header.id)
    assert log.length > before, "it was interrupted"
    assert value is not None
    assert {session.count for session in value.sessions.values()} == {2}
    log.cleared.add(log.length - 1)
    with pytest.raises(CorruptStore):
        await store.load(header.id)


def holders(directory: Path, text: bytes) -> list[str]:
    """The files in which this text stands; the store removes files while they are looked for."""
    found = []
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and text in path.read_bytes():
                found.append(path.name)
    return found


@pytest.mark.parametrize("store", ["bee", "hybrid"])
async def test_a_node_gives_back_what_was_deleted(
    tmp_path: Path, mock_clock: trio.testing.MockClock, store: str
) -> None:
    mock_clock.rate = 20
    quiet = {"ws": "127.0.0.1:0", "mesh": "127.0.0.1:0", "admin": "127.0.0.1:0"}
    given = {"data": tmp_path, "discovery": "off", "store": store, "durability": "os", **quiet}
    given |= {"compact_dead_share": "10%", "compact_min_bytes": "4KiB"}
    given["quota_account_bytes"] = "10MB"
    group = group_header(ANN.account_id)
    secrets = [map_header(f"secret {number}", group.id) for number in range(30)]
    kept = map_header("kept", group.id)
    words = [Transaction(2000 + i, f'["the-secret-{i}"]') for i in range(40)]
    async with open_node(load_config({**given, "erase_deleted": "false"}, {})) as node:
        take = partial(node.host.receive_content, "test")
        await take([ANN.account(), ANN.content(group, [role(ANN.account_id, "admin")])])
        for after in range(60):
            await take([ANN.content(kept, edits(after + 1), after=after, with_header=not after)])
        before = node.access.gate.usage.of(ANN.account_id)
        await take([ANN.content(each, words) for each in secrets])
        receipt = await take([ANN.deletion(each) for each in secrets])
        assert receipt.accepted == {each.id for each in secrets}
        used = node.access.gate.usage.of(ANN.account_id)
        assert holders(tmp_path, b"the-secret-")
    async with open_node(load_config(given, {})) as node:
        core = next(core for core in node.store.open_cores() if core.key == node.key)
        held = core.info().blocks_held
        with trio.fail_after(600):
            while holders(tmp_path, b"the-secret-"):  # noqa: ASYNC110 - files are polled
                await trio.sleep(LOOK_SECONDS)
            while node.status().sync.erased < len(secrets):  # noqa: ASYNC110 - no event for it
                await trio.sleep(LOOK_SECONDS)
            while not node.status().compaction.compactions:  # noqa: ASYNC110 - no event for it
                await trio.sleep(LOOK_SECONDS)
        assert holders(tmp_path, kept.id.encode())
        status = node.status()
        assert status.sync.erased == len(secrets)
        assert status.compaction.compactions >= 1
        assert f"{status.compaction.blocks} blocks (" in dict(status_rows(status))["compaction"]
        assert core.info().blocks_held < held
        after_all = node.access.gate.usage.of(ANN.account_id)
        assert before.bytes < after_all.bytes < before.bytes + (used.bytes - before.bytes) / 5
        assert after_all.values == used.values, "tombstones stay"
