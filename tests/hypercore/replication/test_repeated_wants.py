"""Wants that a peer repeats at every answer, as JavaScript readers do that are stuck at a fork."""

from __future__ import annotations

from math import inf

import pytest

from hypercore.log import Head
from hypercore.replication.messages import HaveBits, MessageType, Sync, Want
from hypercore.replication.paced_wants import MAX_PAUSE_SECONDS, PacedWants
from hypercore.replication.wants import MAX_WINDOWS, WINDOW_BLOCKS
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import of_type, sparse_writer
from tests.support.replicator_pair import Endpoint, Message, Node

ROUND_TRIP_SECONDS = 0.001
WINDOW = Want(0, WINDOW_BLOCKS)
REPEATED: list[Message] = [
    (MessageType.UNWANT, WINDOW.encode()),
    (MessageType.WANT, WINDOW.encode()),
]


def gapped() -> MemoryLog:
    return sparse_writer(100, [range(20, 30)])


def asker(node: Node) -> Endpoint:
    end = Endpoint(node)
    end.receive([(MessageType.SYNC, Sync(0, 0, 0, True, True, True, True, False).encode())], 0.0)
    end.sent.clear()
    return end


def answers(end: Endpoint) -> list[bytes]:
    """What the peer is told of its windows now."""
    end.take(1 << 16)
    told = of_type(end.sent, MessageType.BITFIELD)
    end.sent.clear()
    return told


def repeat(node: Node, end: Endpoint, seconds: float) -> list[float]:
    """Repeat the want at each answer, the last time without one; returns when answers came."""
    now, times = 0.0, list[float]()
    end.receive(REPEATED, now)
    while now < seconds:
        if answers(end):
            times.append(now)
            now += ROUND_TRIP_SECONDS
            end.receive(REPEATED, now)
        else:
            now = node.replicator.deadline
            node.carry_out(node.replicator.advance(now))
    assert len(answers(end)) == 1
    end.receive(REPEATED, now)
    assert not answers(end)
    return times


def test_what_is_wanted_at_every_answer_is_told_once_a_second_in_the_end() -> None:
    node = Node(gapped())
    times = repeat(node, asker(node), 10.0)
    assert times[0] == 0.0
    assert times[1] < 0.1, "who repeats it once has hardly to wait"
    assert len(times) < 18
    assert times[-1] - times[-2] >= MAX_PAUSE_SECONDS


def test_who_repeats_it_after_a_second_never_waits() -> None:
    node = Node(gapped())
    end = asker(node)
    repeat(node, end, 5.0)
    node.carry_out(node.replicator.advance(node.replicator.deadline))
    answers(end)
    for now in range(8, 20):
        end.receive(REPEATED, now)
        assert len(answers(end)) == 1


def test_who_waits_for_an_answer_gets_one_however_often_it_asks() -> None:
    node = Node(gapped())
    end = asker(node)
    end.receive(REPEATED, 0.0)
    answers(end)
    for _ in range(100):
        end.receive(REPEATED, 0.001)
        assert not answers(end)
    node.carry_out(node.replicator.advance(node.replicator.deadline))
    assert len(answers(end)) == 1
    assert node.replicator.deadline == inf


def test_another_window_or_another_peer_does_not_wait() -> None:
    node = Node(gapped())
    end, other = asker(node), asker(node)
    repeat(node, end, 5.0)
    other.receive(REPEATED, 5.0)
    assert len(answers(other)) == 1
    end.receive([(MessageType.WANT, Want(0, 64).encode())], 5.0)
    assert len(answers(end)) == 1


def test_what_has_waited_is_told_as_soon_as_the_log_has_changed() -> None:
    log = gapped()
    node = Node(log)
    end = asker(node)
    repeat(node, end, 5.0)
    log.truncate(50)
    node.carry_out(node.replicator.log_changed(6.0))
    (told,) = answers(end)
    assert int.from_bytes(HaveBits.decode(told).words, "little") < 1 << 50
    end.receive(REPEATED, 6.0)
    log.append([b"more"])
    node.carry_out(node.replicator.log_changed(6.0))
    end.receive([(MessageType.WANT, Want(0, 64).encode())], 6.0)
    assert len(answers(end)) == 2


def test_what_has_waited_is_told_as_soon_as_the_peer_has_come_to_another_history() -> None:
    node = Node(gapped())
    end = asker(node)
    repeat(node, end, 5.0)
    sync = Sync(1, 0, 0, True, True, True, True, False)
    end.receive([(MessageType.SYNC, sync.encode())], 5.001)
    assert len(answers(end)) == 1


@pytest.mark.parametrize("count", [MAX_WINDOWS, 3 * MAX_WINDOWS])
def test_what_is_remembered_of_wants_is_bounded(count: int) -> None:
    wants = PacedWants()
    for start in range(count):
        wants.add(Want(start * 64, 64), Head(0, 100, 100, ()), 0.0)
    assert [wants.pop().start for _ in range(count)] == list(range(0, count * 64, 64))
    wants.add(Want(0, 64), Head(0, 100, 100, ()), 0.0)
    assert len(wants) == (count > MAX_WINDOWS)
