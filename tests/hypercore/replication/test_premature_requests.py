"""Requests of a peer that has not come to our history yet, for blocks of that history."""

from __future__ import annotations

import pytest

from hypercore.proof_request import BlockRequest, HashRequest, ProofRequest
from hypercore.replication.messages import (
    Cancel,
    Data,
    MessageType,
    NoData,
    NoDataReason,
    Request,
    Sync,
)
from hypercore.replication.uploads import MAX_PREMATURE
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import copy_of, of_type, writer
from tests.support.replicator_pair import Channel, Endpoint, Message, Node, settle


def forked() -> MemoryLog:
    log = writer(100)
    log.truncate(60)
    log.append([b"another"] * 40)
    return log


def sync(fork: int, length: int = 100) -> Message:
    return MessageType.SYNC, Sync(fork, length, 0, False, True, True, True, False).encode()


def request(id: int, fork: int = 1, priority: int = 0) -> Message:
    wanted = ProofRequest(fork, block=BlockRequest(id, 0))
    return MessageType.REQUEST, Request(id, wanted, priority=priority).encode()


def peer_of(node: Node, fork: int = 0) -> Endpoint:
    end = Endpoint(node)
    end.receive([sync(fork)], 0.0)
    end.sent.clear()
    return end


def answers(end: Endpoint) -> list[Data]:
    end.take(1 << 16)
    return [Data.decode(payload) for payload in of_type(end.sent, MessageType.DATA)]


def answered(end: Endpoint) -> list[int]:
    """The requests that are answered with data now."""
    return [data.request for data in answers(end)]


def refused(end: Endpoint) -> list[NoData]:
    end.take(1 << 16)
    return [NoData.decode(payload) for payload in of_type(end.sent, MessageType.NO_DATA)]


@pytest.mark.parametrize("priority", [0, 1])
def test_a_block_is_not_sent_before_the_peer_has_come_to_its_history(priority: int) -> None:
    end = peer_of(Node(forked()))
    end.receive([request(7, priority=priority)], 0.0)
    assert not answered(end)
    assert not refused(end)
    end.receive([sync(1)], 0.0)
    (data,) = answers(end)
    assert data.request == 7
    assert data.proof.block is not None
    assert len(data.proof.block.nodes) == 6, "to the root: it counted the path in its old history"


def test_the_path_leads_to_a_root_that_the_peer_has() -> None:
    """It has come over to a head that is older than ours."""
    end = peer_of(Node(forked()))
    end.receive([request(33), sync(1, length=40)], 0.0)
    (data,) = answers(end)
    assert data.proof.block is not None
    assert len(data.proof.block.nodes) == 3


def test_what_leads_the_peer_to_our_history_is_sent_at_once() -> None:
    end = peer_of(Node(forked()))
    end.receive([request(id) for id in range(1, MAX_PREMATURE + 1)], 0.0)
    wanted = ProofRequest(1, hash=HashRequest(2 * 59, 3))
    end.receive([(MessageType.REQUEST, Request(99, wanted).encode())], 0.0)
    assert answered(end) == [99]


def test_a_peer_that_asks_for_more_of_them_gets_those_at_once() -> None:
    """They would take up all that it may ask for, and it would not get to our history."""
    end = peer_of(Node(forked()))
    end.receive([request(id) for id in range(1, MAX_PREMATURE + 3)], 0.0)
    assert answered(end) == [MAX_PREMATURE + 1, MAX_PREMATURE + 2]


def test_what_is_cancelled_or_asked_anew_is_answered_once() -> None:
    end = peer_of(Node(forked()))
    end.receive([request(1), request(2), request(2)], 0.0)
    end.receive([(MessageType.CANCEL, Cancel(1).encode()), sync(1)], 0.0)
    assert answered(end) == [2]


def test_when_our_history_changes_again_they_are_answered() -> None:
    log = forked()
    node = Node(log)
    end = peer_of(node)
    end.receive([request(1)], 0.0)
    log.truncate(50)
    node.changed()
    assert refused(end) == [NoData(1, NoDataReason.NONE)]


def test_when_we_follow_a_writer_to_another_history_they_are_answered() -> None:
    """The peer that asked has said nothing meanwhile."""
    log = forked()
    source, node = Node(log), Node(copy_of(log))
    channel = Channel(source, node)
    settle(channel)
    end = peer_of(node)
    end.receive([request(1)], 0.0)
    log.truncate(50)
    source.changed()
    settle(channel)
    assert node.log.head == log.head
    node.carry_out(node.replicator.advance(0.0))
    assert refused(end) == [NoData(1, NoDataReason.NONE)]


def test_a_peer_of_our_history_or_of_a_later_one_does_not_wait() -> None:
    for fork in (1, 2):
        end = peer_of(Node(forked()), fork)
        end.receive([request(1)], 0.0)
        assert answered(end) == [1]


def test_a_reader_whose_disk_is_slow_gets_them_when_it_has_the_new_history() -> None:
    """It asks as soon as its memory has it, and says so when its disk does."""
    log = MemoryLog(key=writer(0).key, is_lazy=True)
    reader, old = Node(log), Node(writer(100))
    settle(Channel(old, reader))
    log.make_durable()
    reader.changed()
    channel = Channel(Node(forked()), reader)
    settle(channel)
    assert log.head.fork == 1
    reader.want([5, 70, 99])
    settle(channel)
    log.make_durable()
    reader.changed()
    settle(channel)
    assert all(log.bitfield.get(index) for index in (5, 70, 99))
