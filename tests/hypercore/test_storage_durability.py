"""One sync for everybody who waits; what a cancelled leader and a failed sync leave."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore.errors import StorageFailed
from hypercore.storage.durability import Durability, GroupCommit
from tests.support.cancel_everywhere import cancel_everywhere


class Disk:
    """Counts syncs; `failure` makes them fail."""

    def __init__(self) -> None:
        self.syncs = 0
        self.failure: Exception | None = None

    def sync(self) -> None:
        self.syncs += 1
        if self.failure is not None:
            raise self.failure


async def test_waiters_share_syncs() -> None:
    disk = Disk()
    group = GroupCommit(Durability.COMMIT, disk.sync)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(group.wait, group.wrote())
    assert group.durable_sequence == 100
    assert disk.syncs <= 2


async def test_what_is_durable_is_not_waited_for() -> None:
    disk = Disk()
    group = GroupCommit(Durability.COMMIT, disk.sync)
    await group.wait(group.wrote())
    with trio.CancelScope() as scope:
        scope.cancel()
        await group.wait(1)
    assert not scope.cancelled_caught
    assert disk.syncs == 1


async def test_without_waiting_for_the_disk_nothing_is_synced() -> None:
    disk = Disk()
    group = GroupCommit(Durability.OS, disk.sync)
    await group.wait(group.wrote())
    assert group.durable_sequence == 1
    assert disk.syncs == 0


async def test_a_group_gathers_for_its_delay(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    group = GroupCommit(Durability.group(5), disk.sync)
    start = trio.current_time()

    async def write_later(seconds: float) -> None:
        await trio.sleep(seconds)
        await group.wait(group.wrote())

    async with trio.open_nursery() as nursery:
        for milliseconds in range(5):
            nursery.start_soon(write_later, milliseconds / 1000)
    assert disk.syncs == 1
    assert trio.current_time() - start == pytest.approx(0.005)


async def test_a_cancelled_leader_hands_over(autojump_clock: trio.testing.MockClock) -> None:
    disk = Disk()
    group = GroupCommit(Durability.group(5), disk.sync)
    done = trio.Event()

    async def follow() -> None:
        await group.wait(group.wrote())
        done.set()

    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.001):
            nursery.start_soon(follow)
            await group.wait(group.wrote())
        assert not done.is_set()
    assert done.is_set()
    assert group.durable_sequence == 2


async def test_cancelling_anywhere_loses_nothing() -> None:
    disk = Disk()
    group = GroupCommit(Durability.group(0.01), disk.sync)
    assert await cancel_everywhere(lambda: group.wait(group.wrote())) > 0
    await group.wait(group.wrote())


async def test_a_failed_sync_fails_everybody_and_for_good() -> None:
    disk = Disk()
    disk.failure = OSError("no space left")
    group = GroupCommit(Durability.COMMIT, disk.sync)
    failures = 0

    async def wait() -> None:
        nonlocal failures
        with pytest.raises(StorageFailed, match="no space left"):
            await group.wait(group.wrote())
        failures += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(wait)
    assert failures == 5
    disk.failure = None
    with pytest.raises(StorageFailed):
        await group.wait(group.wrote())
    with pytest.raises(StorageFailed):
        group.check()
    assert disk.syncs == 1
