from __future__ import annotations

from math import inf

import pytest
import trio
import trio.testing

from hypercore import open_corestore
from hypercore.downloading import LIVE
from hypercore.errors import UsageError
from hypercore.replication.messages import MessageType
from hypercore.replication.settings import ReplicationSettings
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import of_type, reader, writer
from tests.support.replicating_cores import replicating
from tests.support.replicator_pair import Channel, Message, Node, settle

DELAY_SECONDS = 10.0


def following() -> tuple[MemoryLog, Node, Node, Channel]:
    """A writer of 4 blocks, and who has its head and is not in a hurry to see the next one."""
    log = writer(4)
    source, follower = Node(log), Node(reader())
    delayed = ReplicationSettings(head_delay_seconds=DELAY_SECONDS)
    follower.carry_out(follower.replicator.configure(delayed, 0.0))
    channel = Channel(source, follower)
    settle(channel)
    assert follower.log.head.length == 4, "the first head of a channel does not wait"
    return log, source, follower, channel


def append(source: Node, log: MemoryLog, count: int) -> None:
    log.append([b"more"] * count)
    source.changed()


def test_a_later_head_waits_for_others_and_all_of_them_are_proven_together() -> None:
    log, source, follower, channel = following()
    asked: list[bytes] = []

    def watch(end: int, messages: list[Message]) -> list[Message]:
        asked.extend(of_type(messages, MessageType.REQUEST) if end == 0 else [])
        return messages

    channel.change = watch
    for _ in range(3):
        append(source, log, 1)
        settle(channel)
    assert not asked
    assert follower.log.head.length == 4
    deadline = follower.replicator.deadline
    assert 0 < deadline <= DELAY_SECONDS + 1
    follower.carry_out(follower.replicator.advance(deadline))
    settle(channel)
    assert len(asked) == 1
    assert follower.log.head.length == 7
    assert follower.replicator.deadline == inf


def test_who_waits_for_a_head_has_it_asked_for() -> None:
    log, source, follower, channel = following()
    append(source, log, 1)
    settle(channel)
    follower.carry_out(follower.replicator.expect_head(1, 0.0, keeps_channels=False))
    settle(channel)
    assert follower.log.head.length == 5
    append(source, log, 1)
    settle(channel)
    assert follower.log.head.length == 6
    follower.carry_out(follower.replicator.expect_head(-1, 0.0, keeps_channels=False))
    append(source, log, 1)
    settle(channel)
    assert follower.log.head.length == 6


def test_a_block_beyond_the_head_brings_the_head_along() -> None:
    log, source, follower, channel = following()
    append(source, log, 2)
    settle(channel)
    follower.want([5])
    settle(channel)
    assert follower.log.head.length == 6
    assert 5 in follower.log.blocks


def test_a_peer_that_went_meanwhile_is_not_waited_for_again_and_again() -> None:
    log, source, follower, channel = following()
    other = Channel(Node(writer(4)), follower)
    settle(other)
    append(source, log, 1)
    settle(channel, other)
    channel.ends[1].close(0.0)
    follower.carry_out(follower.replicator.advance(follower.replicator.deadline))
    assert follower.replicator.deadline == inf
    settle(other)
    assert follower.log.head.length == 4


def test_times_are_not_negative() -> None:
    with pytest.raises(UsageError, match="-1"):
        ReplicationSettings(head_delay_seconds=-1.0)


async def test_waiting_for_a_length_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core = await store.get(name="log")
        await core.append([b"one"])
        copy = await other_store.get(key=core.key)
        copy.replication.configure(ReplicationSettings(head_delay_seconds=DELAY_SECONDS))
        async with replicating(core, copy):
            await copy.wait_length(1)
            await core.append([b"two"])
            await trio.testing.wait_all_tasks_blocked()
            assert copy.length == 1
            started = trio.current_time()
            await copy.wait_length(2)
            assert trio.current_time() == started
            await core.append([b"three"])
            await trio.testing.wait_all_tasks_blocked()
            assert await copy.update()
            assert trio.current_time() == started
            assert copy.length == 3


async def test_what_a_writer_with_gaps_appends_is_downloaded_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_corestore(None) as store, open_corestore(None) as other_store:
        core = await store.get(name="log")
        await core.append([b"one", b"two", b"three"])
        copy = await other_store.get(key=core.key)
        copy.replication.configure(ReplicationSettings(head_delay_seconds=DELAY_SECONDS))
        async with replicating(core, copy), copy.downloading(0, LIVE):
            await trio.testing.wait_all_tasks_blocked()
            assert copy.has_range(0, 3)
            await core.clear(1, 2)
            started = trio.current_time()
            for length in (4, 5):
                await core.append([b"more"])
                with trio.fail_after(DELAY_SECONDS / 2):
                    while not copy.has(length - 1):
                        await copy.replication.activity.park()
            assert trio.current_time() == started
