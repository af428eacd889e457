"""A log that was cut, before the disk has it: a power cut would bring the old one back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing

from hypercore import Core, open_corestore
from hypercore.corestore import corestore_on
from hypercore.replication.messages import PROTOCOL, MessageType, Sync
from hypercore.storage import WriteBatch
from hypercore.storage.memory import MemoryStorage
from tests.support.memory_mux import Message, memory_mux_pair
from tests.support.replicated_logs import reader, writer
from tests.support.replicating_cores import replicating
from tests.support.replicator_pair import Channel, Node, settle


class SlowDisk(MemoryStorage):
    """What was committed is durable when `sync` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.synced = self.written = 0
        self.has_synced = trio.lowlevel.ParkingLot()

    def commit(self, batch: WriteBatch) -> int:
        self.written = super().commit(batch)
        return self.written

    @property
    def durable_sequence(self) -> int:
        return self.synced

    async def wait_durable(self, sequence: int) -> None:
        while self.synced < sequence:
            await self.has_synced.park()

    def sync(self) -> None:
        self.synced = self.written
        self.has_synced.unpark_all()


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
async def core(disk: SlowDisk) -> AsyncIterator[Core]:
    """With 100 blocks on the disk."""
    with corestore_on(disk, primary_key=bytes(32)) as store:
        core = await store.get(name="log")
        core.append_nowait([b"%d" % index for index in range(100)])
        disk.sync()
        yield core


async def test_nothing_of_a_new_history_is_durable_before_the_cut_is(
    core: Core, disk: SlowDisk
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.truncate, 50)
        await trio.testing.wait_all_tasks_blocked()
        assert (core.length, core.durable_length) == (50, 0)
        core.append_nowait([b"new"] * 60)
        assert (core.length, core.durable_length) == (110, 0)
        disk.sync()
    assert core.durable_length == 110


async def test_an_append_beside_a_cut_waits_for_the_disk_too(core: Core, disk: SlowDisk) -> None:
    acknowledged = []

    async def append() -> None:
        acknowledged.append(await core.append(b"new"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.truncate, 50)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(append)
        await trio.testing.wait_all_tasks_blocked()
        assert not acknowledged
        disk.sync()
    assert acknowledged == [50]


@pytest.mark.parametrize("appended", [0, 20, 50, 60])
async def test_peers_hear_of_a_cut_when_the_disk_has_it(
    core: Core, disk: SlowDisk, appended: int
) -> None:
    async with open_corestore(None) as store:
        copy = await store.get(key=core.key)
        async with replicating(core, copy), trio.open_nursery() as nursery:
            await copy.wait_length(100)
            await copy.get(99)
            nursery.start_soon(core.truncate, 50)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(core.append, [b"new"] * appended)
            await trio.testing.wait_all_tasks_blocked()
            assert (copy.length, copy.fork) == (100, 0)
            disk.sync()
            await copy.wait_change(100, 0)
            while copy.length != 50 + appended:
                await copy.wait_change(copy.length, copy.fork)
            assert copy.fork == 1
            if appended:
                assert await copy.get(50) == b"new"


async def test_peers_hear_of_a_cut_to_nothing_when_the_disk_has_it(
    core: Core, disk: SlowDisk
) -> None:
    """A power cut would bring the old fork back, and the next one be told of twice."""
    told: list[tuple[int, int]] = []

    def note(messages: Sequence[Message]) -> None:
        for kind, payload in messages:
            if kind == MessageType.SYNC:
                sync = Sync.decode(payload)
                told.append((sync.fork, sync.length))

    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        copy = await store.get(key=core.key)
        near, far = memory_mux_pair()
        far.note = note
        for mux, end in ((near, core), (far, copy)):
            mux.expected.add((PROTOCOL, core.discovery_key))
            nursery.start_soon(end.serve, mux)
        await copy.wait_length(100)
        nursery.start_soon(core.truncate, 0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(core.append, b"new")
        await trio.testing.wait_all_tasks_blocked()
        assert {fork for fork, _ in told} == {0}
        assert (core.durable_length, core.info().durable_length) == (0, 0)
        disk.sync()
        await copy.wait_change(100, 0)
        assert (copy.fork, copy.length) == (1, 1)
        nursery.cancel_scope.cancel()


def test_who_asked_of_the_old_history_meanwhile_is_not_blamed() -> None:
    log = writer(200, is_lazy=True)
    log.make_durable()
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    leecher.want(range(150))
    channel.step(0.0, max_bytes=1)
    log.truncate(149)
    seeder.changed()
    settle(channel)
    assert leecher.log.head.fork == 0
    log.make_durable()
    seeder.changed()
    settle(channel)
    assert not leecher.errors
    assert not seeder.errors
    assert seeder.replicator.peers[0].counters.invalid_requests == 0
    assert leecher.log.head == log.head
    assert leecher.log.contiguous_length == 149
