"""Follows hypercore 11.37.1 test/push.js with ours on both sides: the machine alone, and limits.

All tests of the original have their counterpart here; with JavaScript on one side they are in
`tests/interop/originals/test_push.py`.
"""

from __future__ import annotations

import pytest

from hypercore.errors import InvalidProof
from hypercore.proof import BlockProof, Proof
from hypercore.replication.messages import Data, MessageType
from hypercore.replication.pushes import MAX_WAITING_PUSHES
from hypercore.replication.settings import PushMode, ReplicationSettings
from hypercore.replication.uploads import levels_below_root
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, block, reader, writer
from tests.support.replicator_pair import Channel, Node, settle


def receiver(mode: PushMode) -> Node:
    node = Node(reader())
    node.carry_out(node.replicator.configure(ReplicationSettings(push=mode), 0.0))
    return node


def push(node: Node, *indices: int) -> int:
    outputs = node.replicator.push(indices)
    node.carry_out(outputs)
    return len(outputs)


def append(node: Node, count: int) -> None:
    start = node.log.head.length
    node.log.append([block(index) for index in range(start, start + count)])
    node.changed()


def test_no_requests_in_push_only_mode() -> None:
    a, b = Node(writer(0)), receiver(PushMode.ONLY)
    channel = Channel(a, b)
    append(a, 3)
    b.want([0, 1, 2])
    settle(channel)
    assert b.log.head.length == 0
    assert push(a, 0, 1, 2) == 1
    settle(channel)
    assert b.log.contiguous_length == b.log.head.length == 3
    assert channel.ends[1].peer.counters.requests_sent == 0
    assert channel.ends[1].peer.counters.pushes_received == 3
    assert not b.replicator.is_behind


def test_push_and_pull_concurrently() -> None:
    a, b = Node(writer(20)), receiver(PushMode.ONLY)
    channel = Channel(a, b)
    channel.step(0.0)
    b.carry_out(b.replicator.want([10], 0.0, is_forced=True))
    for index in range(20, 30):
        append(a, 1)
        push(a, index)
        channel.step(0.0)
    settle(channel)
    assert b.log.head.length == 30
    assert sorted(b.log.blocks) == [10, *range(20, 30)]


def test_push_before_append() -> None:
    log = MemoryLog(KEY_PAIR, is_lazy=True)
    a, b = Node(log), receiver(PushMode.ALLOWED)
    channel = Channel(a, b)
    settle(channel)
    push(a, 0)
    log.append([b"hello world"])
    a.changed()
    settle(channel)
    assert b.log.head.length == 0, "nothing is told before it is durable"
    log.make_durable()
    a.changed()
    settle(channel)
    assert b.log.blocks == {0: b"hello world"}


def test_who_does_not_take_pushes_gets_none() -> None:
    a = Node(writer(5))
    asking = Channel(a, Node(reader()))
    settle(asking)
    assert push(a, 0) == 0
    # As JavaScript, a pusher is told that it may once it has proven a length on this channel.
    late = receiver(PushMode.ALLOWED)
    settle(Channel(Node(writer(5)), late))
    again = Channel(a, late)
    settle(again)
    assert push(a, 0) == 0
    append(a, 1)
    settle(asking, again)
    assert push(a, 0) == 1
    settle(asking, again)
    assert sorted(late.log.blocks) == [0]


def test_pushes_of_what_is_here_or_does_not_fit_are_ignored() -> None:
    a, b = Node(writer(9)), receiver(PushMode.ALLOWED)
    channel = Channel(a, b)
    b.want([3])
    settle(channel)
    counters = channel.ends[1].peer.counters
    ignored = counters.answers_ignored
    nodes = [a.log.nodes[index] for index in (4, 1, 11)]
    for proof in (
        Proof(0, BlockProof(3, block(3), nodes)),  # is here
        Proof(0, BlockProof(5, block(5), [])),  # nothing here that it leads to
        Proof(0, BlockProof(70, b"x", [])),  # beyond the end
        Proof(1, BlockProof(5, block(5), [])),  # another history
        Proof(0),
    ):
        b.carry_out(
            b.replicator.receive(
                channel.ends[1].peer, [(MessageType.DATA, Data(0, proof).encode())], 0.0
            )
        )
    assert counters.answers_ignored == ignored + 5
    assert not b.errors
    assert sorted(b.log.blocks) == [3]


@pytest.mark.parametrize("mode", PushMode)
def test_a_push_that_proves_something_wrong_ends_the_channel(mode: PushMode) -> None:
    a, b = Node(writer(8)), receiver(PushMode.ALLOWED)
    channel = Channel(a, b)
    settle(channel)
    b.carry_out(b.replicator.configure(ReplicationSettings(push=mode), 0.0))
    path = [a.log.nodes[index] for index in (0, 5, 11)]
    wrong = Data(0, Proof(0, BlockProof(1, b"invented", path)))
    b.carry_out(
        b.replicator.receive(channel.ends[1].peer, [(MessageType.DATA, wrong.encode())], 0.0)
    )
    settle(channel)  # it is asked for its head first: it could hold another history
    assert not b.log.blocks
    assert [type(error) for error in b.errors] == ([] if mode is PushMode.OFF else [InvalidProof])


def test_a_push_withdraws_the_request_for_the_same_block() -> None:
    a, b = Node(writer(4)), receiver(PushMode.ALLOWED)
    pushing = Channel(a, b)
    settle(pushing)
    other = Channel(Node(writer(4)), b)
    settle(pushing, other)
    b.want([2])
    asked = [channel for channel in (pushing, other) if len(channel.ends[1].peer.inflight)]
    assert len(asked) == 1
    path = [a.log.nodes[index] for index in (6, 1)]
    pushed = Data(0, Proof(0, BlockProof(2, block(2), path)))
    b.carry_out(
        b.replicator.receive(pushing.ends[1].peer, [(MessageType.DATA, pushed.encode())], 0.0)
    )
    assert b.log.blocks == {2: block(2)}
    assert not len(asked[0].ends[1].peer.inflight)
    assert asked[0].ends[1].peer.wire.sent[MessageType.CANCEL] == 1
    assert not b.replicator.is_behind


def test_pushes_wait_for_the_connection_and_have_a_limit() -> None:
    length = MAX_WAITING_PUSHES + 100
    a, b = Node(writer(length)), receiver(PushMode.ALLOWED)
    channel = Channel(a, b)
    settle(channel)
    push(a, *range(length))
    assert not channel.ends[0].sent, "bulk is pulled"
    settle(channel)
    assert len(b.log.blocks) == MAX_WAITING_PUSHES


def test_levels_to_a_root() -> None:
    assert [levels_below_root(index, 5) for index in range(5)] == [2, 2, 2, 2, 0]
    assert [levels_below_root(index, 6) for index in range(6)] == [2, 2, 2, 2, 1, 1]
    assert levels_below_root(0, 1) == 0


@pytest.mark.parametrize("mode", [PushMode.ALLOWED, PushMode.ONLY])
@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_pushes_and_answers_cross(mode: PushMode, ahead: int) -> None:
    """Whatever is on its way in which order: everything pushed or asked for is there in the end."""
    a, b = Node(writer(7)), receiver(mode)
    channel = Channel(a, b)
    channel.step(0.0)
    wanted = []
    for number in range(12):
        append(a, 1 + number % 3)
        last = a.log.head.length - 1
        push(a, last)
        if number % 2:
            wanted.append(last - ahead)
            b.carry_out(b.replicator.want([last - ahead], 0.0, is_forced=True))
        channel.step(0.0)
        wanted.append(last)
    settle(channel)
    assert b.log.head == a.log.head
    assert set(wanted) <= b.log.blocks.keys()
    assert not b.errors + a.errors


def test_a_peer_that_did_not_take_pushes_is_believed() -> None:
    """It asks from where it is, again: it gets its answer, and not for ever what it ignores."""
    a, b = Node(writer(3)), receiver(PushMode.ALLOWED)
    channel = Channel(a, b)
    settle(channel)
    channel.change = lambda end, messages: [
        (kind, payload)
        for kind, payload in messages
        if not (kind == MessageType.DATA and Data.decode(payload).request == 0)
    ]
    append(a, 2)
    push(a, 4)
    settle(channel, rounds=100)
    assert b.log.head.length == 5
    append(a, 2)
    settle(channel, rounds=100)
    assert b.log.head.length == 7
    assert not b.errors
