"""Blocks that an extension asked for: sent without a request, proved like all others."""

from __future__ import annotations

import math
import random

import pytest

from hypercore.errors import InvalidProof
from hypercore.replication.expected import MAX_ALLOWED, PATIENCE_SECONDS
from hypercore.replication.hotswap import CHECK_SECONDS
from hypercore.replication.messages import Data, MessageType
from hypercore.replication.pushes import MAX_ASKED_BYTES, MAX_WAITING_PUSHES
from hypercore.replication.settings import PushMode, ReplicationSettings
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import (
    KEY_PAIR,
    Recorder,
    block,
    of_type,
    reader,
    sparse_writer,
    writer,
)
from tests.support.replicator_pair import Channel, Message, Node, settle


def connect(log: MemoryLog) -> tuple[Node, Node, Channel]:
    """A node with that log, and a reader that has its head and nothing else."""
    holder, asker = Node(log), Node(reader())
    channel = Channel(holder, asker)
    settle(channel)
    return holder, asker, channel


def ask(channel: Channel, indices: list[int], allowed: int = 100) -> list[int]:
    """What an extension does at both ends; which blocks will be sent."""
    holder, asker = channel.ends
    asker.peer.expected.allow(allowed)
    queued, outputs = holder.node.replicator.push_asked(holder.peer, indices)
    holder.node.carry_out(outputs)
    return queued


def test_they_come_without_a_request_in_the_order_asked_for() -> None:
    _, asker, channel = connect(writer(1000))
    requests, data = Recorder(channel, 0), Recorder(channel, 1)
    wanted = [700, 3, 999, 4]
    assert ask(channel, wanted) == wanted
    settle(channel)
    assert asker.log.blocks == {index: block(index) for index in wanted}
    assert not requests.of(MessageType.REQUEST)
    proofs = [Data.decode(payload).proof for payload in data.of(MessageType.DATA)]
    assert [proof.block.index for proof in proofs if proof.block] == wanted
    counters = channel.ends[1].peer.counters
    assert (counters.pushes_received, counters.answers_ignored) == (4, 0)


def test_no_tree_node_is_sent_twice() -> None:
    _, asker, channel = connect(writer(4096))
    data = Recorder(channel, 1)
    wanted = random.Random(5).sample(range(4096), 1000)
    ask(channel, wanted[:500], 500)
    settle(channel)
    asker.want(wanted[500:600])  # requested ones bring nodes as well
    settle(channel)
    ask(channel, wanted[600:], 400)
    settle(channel)
    assert asker.log.blocks == {index: block(index) for index in wanted}
    nodes = [
        node.index
        for payload in data.of(MessageType.DATA)
        if (part := Data.decode(payload).proof.block)
        for node in part.nodes
    ]
    assert len(nodes) == len(set(nodes))


def test_what_cannot_be_proven_takes_no_others_along() -> None:
    """Blocks whose proofs would go on from one that is not sent bring those nodes themselves."""
    log = writer(4096)
    _, asker, channel = connect(log)
    data = Recorder(channel, 1)
    del log.nodes[10]  # beside block 4
    ask(channel, [8, 4, 6, 3000])
    settle(channel)
    sent = [
        part.index
        for payload in data.of(MessageType.DATA)
        if (part := Data.decode(payload).proof.block)
    ]
    assert sent == [8, 6, 3000]
    assert asker.log.blocks == {index: block(index) for index in sent}


def test_the_first_brings_the_head_along() -> None:
    holder, asker = Node(writer(100)), Node(reader())
    channel = Channel(holder, asker)
    holder.replicator.receive(  # its sync alone, before it knows of any head
        channel.ends[0].peer, channel.ends[1].sent, 0.0
    )
    channel.ends[1].sent = []
    ask(channel, [50, 51])
    settle(channel)
    assert asker.log.head == holder.log.head
    assert asker.log.blocks == {50: block(50), 51: block(51)}


def test_what_the_peer_has_or_was_sent_is_left_out() -> None:
    holder, asker, channel = connect(writer(100))
    asker.want([7])
    settle(channel)
    assert ask(channel, [7, 8]) == [8]
    assert ask(channel, [8, 9]) == [9]  # not even while it waits
    settle(channel)
    assert ask(channel, [7, 8, 9]) == []
    asker.log.clear(8, 9)
    asker.carry_out(asker.replicator.blocks_dropped(8, 9))
    settle(channel)
    assert ask(channel, [7, 8, 9]) == [8]
    settle(channel)
    assert asker.log.blocks.keys() == {7, 8, 9}
    assert not holder.errors + asker.errors


def test_what_is_not_here_or_not_durable_is_left_out() -> None:
    log = sparse_writer(100, [range(50, 60)])
    _, _, channel = connect(log)
    assert ask(channel, [1, 50, 3, 100, -1, 2**60]) == [1, 3]


def test_how_many_may_wait_is_bounded() -> None:
    _, _, channel = connect(writer(3000))
    assert len(ask(channel, list(range(3000)))) == MAX_WAITING_PUSHES
    assert ask(channel, [2999]) == []


def test_a_peer_that_reads_nothing_lets_few_large_blocks_wait() -> None:
    log = MemoryLog(KEY_PAIR)
    log.append([bytes(MAX_ASKED_BYTES // 16)] * 40)
    holder, _, channel = connect(log)
    everything = list(range(40))
    assert 8 <= len(ask(channel, everything)) <= 17
    assert ask(channel, everything) == []
    # Of these only as much is read from the disk as the connection can carry.
    sent = holder.replicator.take(channel.ends[0].peer, 1)
    assert [number for number, _ in sent] == [MessageType.DATA]


def test_pushes_without_end_are_dropped_unread() -> None:
    _, asker, channel = connect(writer(100))
    ask(channel, [1, 2], allowed=2)
    settle(channel)
    proof = next(
        payload for number, payload in pushed_by(writer(100), [3]) if number == MessageType.DATA
    )
    for _ in range(1000):
        asker.carry_out(
            asker.replicator.receive(channel.ends[1].peer, [(MessageType.DATA, proof)], 0.0)
        )
    assert asker.log.blocks.keys() == {1, 2}
    counters = channel.ends[1].peer.counters
    assert (counters.pushes_received, counters.answers_ignored) == (2, 1000)


def pushed_by(log: MemoryLog, indices: list[int]) -> list[Message]:
    """What somebody who has that log would push."""
    _, _, channel = connect(log)
    data = Recorder(channel, 1)
    ask(channel, indices)
    settle(channel)
    return data.messages


def test_nobody_else_may_send_unasked() -> None:
    _, asker, channel = connect(writer(100))
    ask(channel, [1, 2, 3], allowed=2)
    settle(channel)
    assert asker.log.blocks.keys() == {1, 2}
    channel.ends[1].peer.expected.allow(2 * MAX_ALLOWED)
    admitted = 0
    while channel.ends[1].peer.expected.admit():
        admitted += 1
    assert admitted == MAX_ALLOWED


@pytest.mark.parametrize("position", [5, 40, -1])
def test_a_wrong_proof_ends_the_channel_and_nothing_is_kept(position: int) -> None:
    _, asker, channel = connect(writer(100))

    def spoil(end: int, messages: list[Message]) -> list[Message]:
        if end == 0:
            return messages
        changed = []
        for number, payload in messages:
            if number == MessageType.DATA:
                spoiled = bytearray(payload)
                spoiled[position] ^= 1
                payload = bytes(spoiled)
            changed.append((number, payload))
        return changed

    channel.change = spoil
    ask(channel, [10])
    settle(channel)
    assert not asker.log.blocks
    if position == -1:
        assert isinstance(asker.errors[0], InvalidProof)


def test_what_was_announced_is_requested_only_when_it_is_late() -> None:
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    peer.expected.allow(10)
    asker.replicator.expect(peer, [1, 2], 0.0)
    asker.want([1, 3])
    assert len(of_type(channel.ends[1].sent, MessageType.REQUEST)) == 1
    settle(channel)
    assert asker.log.blocks.keys() == {3}
    assert asker.replicator.deadline == PATIENCE_SECONDS
    asker.carry_out(asker.replicator.advance(PATIENCE_SECONDS))
    settle(channel)
    # Nobody wants block 2.
    assert asker.log.blocks.keys() == {1, 3}
    assert peer.expected.missed == 2
    assert asker.replicator.deadline == math.inf


def test_what_a_peer_that_went_had_announced_is_requested_of_another() -> None:
    log = writer(100)
    _, asker, channel = connect(log)
    other = Channel(Node(log), asker)
    settle(channel, other)
    asker.replicator.expect(channel.ends[1].peer, [1], 0.0)
    asker.want([1])
    settle(channel, other)
    assert not asker.log.blocks
    channel.ends[1].close(1.0)
    settle(other)
    assert asker.log.blocks.keys() == {1}


def test_as_long_as_something_comes_the_rest_is_waited_for() -> None:
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [1, 2], 0.0)
    ask(channel, [1])
    channel.step(PATIENCE_SECONDS / 2)
    assert asker.log.blocks.keys() == {1}
    assert asker.replicator.deadline > PATIENCE_SECONDS


def test_what_is_left_out_of_the_announced_order_is_requested_at_once() -> None:
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [5, 1, 6, 2], 0.0)
    asker.want([1, 5, 6])
    ask(channel, [6, 2])
    settle(channel)
    assert asker.log.blocks.keys() == {1, 2, 5, 6}
    assert peer.expected.missed == 0
    assert asker.replicator.deadline == math.inf


def test_a_push_that_builds_on_what_never_came_is_requested_at_once() -> None:
    _, asker, channel = connect(writer(4096))
    peer = channel.ends[1].peer
    asker.want([700])
    channel.step(0.0)
    asker.unwant([700])  # its answer is on its way, and will not be looked at
    asker.replicator.expect(peer, [701, 2000], 0.0)
    ask(channel, [701, 2000])
    asker.want([701, 2000])
    settle(channel)
    assert asker.log.blocks.keys() == {701, 2000}
    assert peer.expected.missed == 0
    assert not asker.errors


def test_what_came_and_did_not_fit_before_it_was_announced_is_not_waited_for() -> None:
    _, asker, channel = connect(writer(4096))
    peer = channel.ends[1].peer
    asker.want([700])
    channel.step(0.0)
    asker.unwant([700])  # its answer is on its way, and will not be looked at
    ask(channel, [701])
    settle(channel)
    asker.replicator.expect(peer, [701], 0.0)  # the announcement is looked at last
    asker.want([701])
    settle(channel)
    assert asker.log.blocks.keys() == {701}
    assert asker.replicator.deadline == math.inf


def test_what_was_left_out_before_the_announcement_was_looked_at_is_requested_at_once() -> None:
    """Found by the simulation: on a slow link a read waited for seconds, and failed."""
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [8], 0.0)
    ask(channel, [6])
    settle(channel)
    # Of 5 another answer was on its way when it was its turn; 7 is to come yet.
    asker.replicator.expect(peer, [5, 6, 7], 0.0)
    asker.want([5, 7, 8])
    settle(channel)
    assert asker.log.blocks.keys() == {5, 6}, "8 is expected because of another announcement"
    ask(channel, [8, 7])
    settle(channel)
    assert asker.log.blocks.keys() == {5, 6, 7, 8}
    assert peer.expected.missed == 0
    assert asker.replicator.deadline == math.inf


@pytest.mark.parametrize("is_first_known", [True, False])
def test_what_was_left_out_of_an_earlier_announcement_is_requested_at_once(
    is_first_known: bool,
) -> None:
    """What the later one names has come before it was looked at: nothing else is to come."""
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [50], 0.0)
    ask(channel, [1])
    settle(channel)
    if is_first_known:
        asker.replicator.expect(peer, [1, 2, 3], 0.0, is_announced=True)
    ask(channel, [4, 5])
    settle(channel)
    if not is_first_known:
        asker.replicator.expect(peer, [1, 2, 3], 0.0, is_announced=True)
    asker.want([2, 3, 50])
    settle(channel)
    assert asker.log.blocks.keys() == {1, 4, 5}
    asker.carry_out(asker.replicator.expect(peer, [4, 5], 0.0, is_announced=True))
    settle(channel)
    assert asker.log.blocks.keys() == {1, 2, 3, 4, 5}, "50 was announced by nobody"
    assert peer.expected.missed == 0


def test_what_is_hoped_for_is_in_order_once_it_is_announced() -> None:
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [2], 0.0)
    asker.replicator.expect(peer, [1, 2], 0.0, is_announced=True)
    ask(channel, [1, 4])
    settle(channel)
    asker.want([2])
    asker.carry_out(asker.replicator.expect(peer, [3, 4], 0.0, is_announced=True))
    settle(channel)
    assert asker.log.blocks.keys() == {1, 2, 4}
    assert asker.replicator.deadline == math.inf


def test_what_is_not_expected_any_more_is_requested_soon() -> None:
    """Another read waits for it, too, and nothing else happens after which it would be."""
    _, asker, channel = connect(writer(100))
    peer = channel.ends[1].peer
    asker.replicator.expect(peer, [8], 0.0)
    asker.want([8])
    settle(channel)
    assert not asker.log.blocks
    asker.carry_out(asker.replicator.expect(peer, [], 0.0, instead_of=[8]))
    assert asker.replicator.deadline <= CHECK_SECONDS
    asker.carry_out(asker.replicator.advance(CHECK_SECONDS))
    settle(channel)
    assert asker.log.blocks.keys() == {8}


def test_a_head_that_a_push_has_brought_meanwhile_is_not_the_last_one_asked_for() -> None:
    """Found by the simulation: the answer was only the block, and its turn was never over."""
    holder, asker = Node(writer(100)), Node(reader())
    asker.replicator.configure(ReplicationSettings(push=PushMode.ALLOWED), 0.0)
    asker.replicator.set_active(True, 0.0)
    channel = Channel(holder, asker)
    settle(channel)
    holder.log.append([block(100), block(101)])
    asker.want([101])
    holder.changed()
    ask(channel, [100])
    end, other = channel.ends
    end.take(1 << 16)
    pushed = [message for message in end.sent if message[0] == MessageType.DATA]
    other.receive([message for message in end.sent if message not in pushed], 0.0)
    assert of_type(other.sent, MessageType.REQUEST)
    end.sent = pushed
    settle(channel)
    assert asker.log.blocks.keys() == {100, 101}
    holder.log.append([block(102)])
    holder.changed()
    settle(channel)
    assert asker.log.head == holder.log.head
