from __future__ import annotations

import random
from itertools import pairwise

import pytest

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof, MalformedMessage
from hypercore.proof_request import BlockRequest, ProofRequest, UpgradeRequest
from hypercore.replication.messages import (
    Data,
    Extension,
    MessageType,
    NoData,
    NoDataReason,
    Range,
    Request,
    Sync,
    Want,
)
from hypercore.replication.replicator import EndChannel
from hypercore.replication.uploads import MAX_WAITING, TooManyRequests
from tests.support.memory_log import MemoryLog
from tests.support.replicator_pair import Channel, Message, Node, settle

KEY_PAIR = KeyPair.from_seed(bytes(32))


def block(index: int) -> bytes:
    return b"block %d " % index + b"x" * (index % 7)


def writer(length: int, *, is_lazy: bool = False) -> MemoryLog:
    log = MemoryLog(KEY_PAIR, is_lazy=is_lazy)
    if length:
        log.append([block(index) for index in range(length)])
    return log


def reader() -> MemoryLog:
    return MemoryLog(key=writer(0).key)


def copy_of(log: MemoryLog) -> MemoryLog:
    """A reader that has everything already."""
    copy = reader()
    source, target = Node(log), Node(copy)
    target.want(range(log.head.length))
    settle(Channel(source, target))
    assert copy.contiguous_length == log.head.length
    return copy


def of_type(messages: list[Message], message_type: MessageType) -> list[bytes]:
    return [payload for kind, payload in messages if kind == message_type]


class Recorder:
    """Notes what travels to one end of a channel."""

    def __init__(self, channel: Channel, end: int) -> None:
        self.messages: list[Message] = []
        self._end = end
        channel.change = self._note

    def _note(self, end: int, messages: list[Message]) -> list[Message]:
        if end == self._end:
            self.messages += messages
        return messages

    def of(self, message_type: MessageType) -> list[bytes]:
        return of_type(self.messages, message_type)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65, 1000, 3001])
def test_everything_is_copied(length: int) -> None:
    seeder, leecher = Node(writer(length)), Node(reader())
    channel = Channel(seeder, leecher)
    leecher.want(range(length))
    settle(channel)
    assert leecher.log.head == seeder.log.head
    assert leecher.log.blocks == seeder.log.blocks
    assert leecher.log.manifest == seeder.log.manifest
    counters = channel.ends[1].peer.counters
    assert counters.blocks_received == length
    assert counters.bytes_received == seeder.log.head.byte_length
    assert counters.answers_retried == counters.answers_ignored == 0
    assert channel.ends[0].peer.counters.blocks_sent == length
    assert not seeder.errors + leecher.errors


def test_what_arrives_together_is_committed_together() -> None:
    seeder, leecher = Node(writer(1000)), Node(reader())
    channel = Channel(seeder, leecher)
    leecher.want(range(1000))
    settle(channel, max_bytes=1 << 20)
    # The upgrade with the first block, then windows of 64, 128, 256, ... requests.
    assert leecher.log.commits <= 8


def test_a_run_of_blocks_brings_about_one_tree_node_each() -> None:
    seeder, leecher = Node(writer(4096)), Node(reader())
    channel = Channel(seeder, leecher)
    sent = Recorder(channel, 1)
    leecher.want(range(4096))
    settle(channel)
    nodes = 0
    for payload in sent.of(MessageType.DATA):
        proof = Data.decode(payload).proof
        assert proof.block is not None
        nodes += len(proof.block.nodes)
    assert nodes <= 4096 + 100


def test_without_being_asked_only_the_head_is_fetched() -> None:
    seeder, leecher = Node(writer(100)), Node(reader())
    settle(Channel(seeder, leecher))
    assert leecher.log.head == seeder.log.head
    assert not leecher.log.blocks


def test_single_blocks_cost_single_requests() -> None:
    seeder, leecher = Node(writer(10_000)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    wanted = random.Random(1).sample(range(10_000), 200)
    requests = Recorder(channel, 0)
    leecher.want(wanted)
    settle(channel)
    assert leecher.log.blocks == {index: block(index) for index in wanted}
    assert len(requests.of(MessageType.REQUEST)) == 200
    assert leecher.log.commits == 2


def test_many_single_blocks_leave_in_one_burst() -> None:
    seeder, leecher = Node(writer(1000)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    leecher.want(list(range(0, 100, 2)))
    assert len(of_type(channel.ends[1].sent, MessageType.REQUEST)) == 50


def test_appends_follow_live_in_two_messages_each_way() -> None:
    log = writer(10)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    leecher.want(range(2**50))
    settle(channel)
    assert leecher.log.contiguous_length == 10
    for length in range(11, 30):
        log.append([block(length - 1)])
        seeder.changed()
        before = channel.messages_carried
        settle(channel)
        assert leecher.log.contiguous_length == length
        # sync and range; request for upgrade and block; data; sync and range.
        assert channel.messages_carried - before <= 6


def test_a_range_without_end_costs_nothing_up_front() -> None:
    leecher = Node(reader())
    leecher.want(range(2**53 - 1))
    seeder = Node(writer(500))
    settle(Channel(seeder, leecher))
    assert leecher.log.contiguous_length == 500


def test_blocks_wanted_before_there_is_a_peer_or_a_length() -> None:
    leecher = Node(reader())
    leecher.want([3, 90])
    settle(Channel(Node(writer(100)), leecher))
    assert sorted(leecher.log.blocks) == [3, 90]


def test_what_is_wanted_no_more_is_cancelled() -> None:
    seeder, leecher = Node(writer(1000)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    leecher.want(range(1000))
    leecher.want([5])
    leecher.unwant(range(1000))
    cancelled = of_type(channel.ends[1].sent, MessageType.CANCEL)
    assert len(cancelled) == 64
    assert len(channel.ends[1].peer.inflight) == 1
    settle(channel)
    assert list(leecher.log.blocks) == [5]


def test_a_range_taken_back_leaves_another_range() -> None:
    seeder, leecher = Node(writer(300)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    leecher.want(range(200))
    leecher.want(range(100, 300))
    leecher.unwant(range(200))
    settle(channel)
    assert sorted(leecher.log.blocks) == list(range(100, 300))


def sparse_writer(length: int, gaps: list[range]) -> MemoryLog:
    log = writer(length)
    for gap in gaps:
        log.clear(gap.start, gap.stop)
    return log


def test_a_sparse_peer_is_asked_what_it_has() -> None:
    log = sparse_writer(200, [range(10, 20), range(100, 101)])
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    to_seeder = Recorder(channel, 0)
    leecher.want(range(200))
    settle(channel)
    assert leecher.log.blocks == log.blocks
    assert [Want.decode(payload) for payload in to_seeder.of(MessageType.WANT)] == [
        Want(0, 2097152)
    ]
    counters = channel.ends[1].peer.counters
    assert counters.no_data_received == 0
    assert counters.requests_sent == 189


def test_a_sparse_peer_tells_of_blocks_it_gets_later() -> None:
    full = Node(writer(1000))
    middle, leecher = Node(reader()), Node(reader())
    upper, lower = Channel(full, middle), Channel(middle, leecher)
    settle(upper, lower)
    leecher.want([3, 500])
    settle(upper, lower)
    assert not leecher.log.blocks
    middle.want([500, 3])
    settle(upper, lower)
    assert sorted(leecher.log.blocks) == [3, 500]


def test_two_peers_share_the_work() -> None:
    log = writer(2000)
    one, other = Node(copy_of(log)), Node(copy_of(log))
    leecher = Node(reader())
    channels = [Channel(one, leecher), Channel(other, leecher)]
    leecher.want(range(2000))
    settle(*channels)
    assert leecher.log.blocks == log.blocks
    counts = [channel.ends[1].peer.counters.blocks_received for channel in channels]
    assert sum(counts) == 2000
    assert min(counts) > 500


def test_each_peer_is_asked_for_its_half() -> None:
    one, other = sparse_writer(200, [range(100)]), sparse_writer(200, [range(100, 200)])
    leecher = Node(reader())
    leecher.want(range(200))
    settle(Channel(Node(one), leecher), Channel(Node(other), leecher))
    assert leecher.log.contiguous_length == 200


def test_requests_move_to_another_peer_when_one_goes() -> None:
    log = writer(300)
    leecher = Node(reader())
    first = Channel(Node(copy_of(log)), leecher)
    settle(first)
    leecher.want(range(300))
    second = Channel(Node(copy_of(log)), leecher)
    first.ends[1].close(0.0)
    settle(second)
    assert leecher.log.contiguous_length == 300
    assert leecher.replicator.departed.requests_sent > 0


def test_an_upgrade_moves_to_another_peer_too() -> None:
    log = writer(20)
    leecher = Node(reader())
    first = Channel(Node(copy_of(log)), leecher)
    first.step(0.0)
    assert [request.upgrade for request in first.ends[1].peer.inflight] == [UpgradeRequest(0, 20)]
    second = Channel(Node(copy_of(log)), leecher)
    first.ends[1].close(0.0)
    settle(second)
    assert leecher.log.head.length == 20


def test_a_peer_that_does_not_answer_is_passed_over() -> None:
    log = writer(100)
    leecher = Node(reader())
    silent = Channel(Node(copy_of(log)), leecher)
    settle(silent)
    leecher.want(range(40))
    helpful = Channel(Node(copy_of(log)), leecher)
    for _ in range(10):
        helpful.step(0.0)
    assert not leecher.log.blocks
    deadline = leecher.replicator.deadline
    assert 2.0 <= deadline < 10.0
    leecher.carry_out(leecher.replicator.advance(deadline))
    assert len(of_type(silent.ends[1].sent, MessageType.CANCEL)) == 40
    for _ in range(10):
        helpful.step(deadline)
    assert leecher.log.contiguous_length == 40


def test_an_upgrade_that_does_not_come_is_asked_of_another_peer() -> None:
    log = writer(100)
    leecher = Node(reader())
    silent = Channel(Node(copy_of(log)), leecher)
    silent.step(0.0)
    assert len(silent.ends[1].peer.inflight) == 1
    helpful = Channel(Node(copy_of(log)), leecher)
    settle(helpful)
    assert leecher.log.head.length == 0
    leecher.carry_out(leecher.replicator.advance(leecher.replicator.deadline))
    settle(helpful)
    assert leecher.log.head.length == 100


def test_a_missing_block_is_not_asked_of_the_same_peer_again() -> None:
    log = writer(50)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.clear(7, 8)
    leecher.want(range(50))
    settle(channel)
    assert sorted(leecher.log.blocks) == [index for index in range(50) if index != 7]
    assert channel.ends[1].peer.counters.no_data_received == 1
    assert leecher.replicator.nobody_has(7)
    # Another peer that has it is asked; and so is the same, once it says that it has it.
    settle(channel, Channel(Node(copy_of(writer(50))), leecher))
    assert leecher.log.contiguous_length == 50


def test_only_durable_lengths_are_announced() -> None:
    log = writer(3, is_lazy=True)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    leecher.want(range(2**40))
    settle(channel)
    assert leecher.log.head.length == 0
    log.make_durable()
    seeder.changed()
    settle(channel)
    assert leecher.log.contiguous_length == 3
    log.append([block(3)])
    seeder.changed()
    log.append([block(4)])
    seeder.changed()
    settle(channel)
    assert leecher.log.head.length == 3
    log.durable_length = 4
    seeder.changed()
    settle(channel)
    assert leecher.log.contiguous_length == 4
    log.make_durable()
    seeder.changed()
    settle(channel)
    assert leecher.log.contiguous_length == 5


def test_blocks_that_are_not_durable_are_not_served() -> None:
    log = writer(3, is_lazy=True)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    request = Request(1, ProofRequest(0, block=BlockRequest(0, 0), upgrade=UpgradeRequest(0, 3)))
    channel.ends[0].receive([(MessageType.REQUEST, request.encode())], 0.0)
    channel.ends[0].take(1000)
    answers = of_type(channel.ends[0].sent, MessageType.NO_DATA)
    assert NoData.decode(answers[0]) == NoData(1, NoDataReason.NOT_AVAILABLE)


def test_answers_may_come_in_any_order() -> None:
    shuffle = random.Random(7).shuffle
    seeder, leecher = Node(writer(2000)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)

    def shuffled(end: int, messages: list[Message]) -> list[Message]:
        if end == 1:
            shuffle(messages)
        return messages

    channel.change = shuffled
    leecher.want(range(2000))
    settle(channel)
    assert leecher.log.contiguous_length == 2000
    assert channel.ends[1].peer.counters.answers_retried == 0


def test_answers_may_be_spread_over_wake_ups_in_any_order() -> None:
    chance = random.Random(3)
    seeder, leecher = Node(writer(1500)), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    held: list[Message] = []

    def delayed(end: int, messages: list[Message]) -> list[Message]:
        nonlocal held
        if end == 0:
            return messages
        waiting = held + messages
        chance.shuffle(waiting)
        cut = len(waiting) // 2 if len(waiting) > 20 else 0
        held = waiting[:cut]
        return waiting[cut:]

    channel.change = delayed
    leecher.want(range(1500))
    settle(channel)
    while held:
        messages, held = held, []
        channel.ends[1].receive(messages, 0.0)
        settle(channel)
    assert leecher.log.contiguous_length == 1500
    assert not leecher.errors


def test_an_answer_whose_ground_never_comes_is_asked_for_again() -> None:
    log = writer(64)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.clear(0, 1)  # its answer was to bring the nodes for the ones after it
    leecher.want(range(64))
    settle(channel)
    assert sorted(leecher.log.blocks) == list(range(1, 64))
    assert 0 < channel.ends[1].peer.counters.answers_retried <= 63
    assert not leecher.errors


def test_a_slow_reader_costs_only_its_requests() -> None:
    log = MemoryLog(KEY_PAIR)
    log.append([bytes([index]) * 1000 for index in range(100)])
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    leecher.want(range(64))
    channel.ends[0].receive(channel.ends[1].sent, 0.0)
    channel.ends[1].sent = []
    channel.ends[0].take(5000)
    assert len(channel.ends[0].sent) <= 6
    assert len(channel.ends[0].peer.uploads) >= 58
    settle(channel, max_bytes=3000)
    assert leecher.log.contiguous_length == 64


def corrupt(payload: bytes) -> bytes:
    """Change the value of the block."""
    at = payload.index(b"block")
    return payload[:at] + b"B" + payload[at + 1 :]


def test_a_wrong_block_ends_that_channel_and_nothing_else() -> None:
    log = writer(100)
    liar, honest, leecher = Node(copy_of(log)), Node(copy_of(log)), Node(reader())
    bad = Channel(liar, leecher)
    good = Channel(honest, leecher)
    settle(bad, good)

    def lie(end: int, messages: list[Message]) -> list[Message]:
        if end == 0:
            return messages
        return [
            (kind, corrupt(payload) if kind == MessageType.DATA else payload)
            for kind, payload in messages
        ]

    bad.change = lie
    leecher.want(range(100))
    settle(bad, good)
    assert [type(error) for error in leecher.errors] == [InvalidProof]
    assert leecher.log.blocks == log.blocks
    assert bad.ends[1].peer.is_gone
    assert not good.ends[1].peer.is_gone
    assert leecher.replicator.peers_refused == 1


def test_a_head_signed_by_somebody_else_is_refused() -> None:
    other = MemoryLog(KeyPair.from_seed(bytes([9]) * 32))
    other.append([b"not yours"])
    forged = MemoryLog(key=writer(0).key)
    forged.head, forged.nodes, forged.blocks = other.head, other.nodes, other.blocks
    forged.bitfield.set_range(0, 1)
    forged.make_durable()
    forged.manifest, forged.verifier = writer(0).manifest, writer(0).verifier
    leecher = Node(reader())
    settle(Channel(Node(forged), leecher))
    assert len(leecher.errors) == 1
    assert leecher.log.head.length == 0
    assert leecher.log.commits == 0


@pytest.mark.parametrize("kind", range(10))
def test_a_message_cut_off_ends_the_connection(kind: int) -> None:
    node = Node(writer(10))
    channel = Channel(node, Node(reader()))
    settle(channel)
    if kind == MessageType.DATA:
        channel.ends[0].receive([(kind, b"\x01")], 0.0)
    else:
        channel.ends[0].receive([(kind, b"")], 0.0)
    assert [type(error) for error in node.errors] == [MalformedMessage]
    assert channel.ends[0].is_closed


def test_unknown_message_types_are_ignored() -> None:
    node = Node(writer(10))
    channel = Channel(node, Node(reader()))
    channel.ends[0].receive([(10, b""), (99, b"anything")], 0.0)
    settle(channel)
    assert not node.errors


def test_too_many_requests_end_the_channel() -> None:
    node = Node(writer(10))
    channel = Channel(node, Node(reader()))
    requests = [
        (
            int(MessageType.REQUEST),
            Request(number, ProofRequest(0, block=BlockRequest(0, 0))).encode(),
        )
        for number in range(1, MAX_WAITING + 2)
    ]
    channel.ends[0].receive(requests[:-1], 0.0)
    assert not node.errors
    channel.ends[0].receive(requests[-1:], 0.0)
    assert [type(error) for error in node.errors] == [TooManyRequests]


def answers_to(log: MemoryLog, *requests: Request) -> list[Message]:
    channel = Channel(Node(log), Node(reader()))
    channel.ends[0].sent.clear()
    encoded = [(int(MessageType.REQUEST), request.encode()) for request in requests]
    channel.ends[0].receive(encoded, 0.0)
    channel.ends[0].is_answerable = True
    channel.ends[0].take(1 << 20)
    return channel.ends[0].sent


def test_requests_that_cannot_be_answered() -> None:
    log = writer(10)
    log.clear(4, 5)
    wrong = {
        1: ProofRequest(0, block=BlockRequest(10, 0)),
        2: ProofRequest(0, block=BlockRequest(4, 0)),
        3: ProofRequest(7, block=BlockRequest(1, 0)),
        4: ProofRequest(0, block=BlockRequest(1, 60)),
        5: ProofRequest(0, upgrade=UpgradeRequest(5, 100)),
    }
    answers = answers_to(log, *(Request(number, proof) for number, proof in wrong.items()))
    reasons = {}
    for kind, payload in answers:
        assert kind == MessageType.NO_DATA
        answer = NoData.decode(payload)
        reasons[answer.request] = answer.reason
    assert reasons == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2}


def test_a_manifest_is_given_whatever_else_is_not() -> None:
    log = writer(10)
    request = Request(1, ProofRequest(7, upgrade=UpgradeRequest(0, 3)), manifest=True)
    ((kind, payload),) = answers_to(log, request)
    assert kind == MessageType.DATA
    assert Data.decode(payload).proof.manifest == log.manifest


def test_a_request_with_the_same_id_takes_the_place_of_the_older() -> None:
    log = writer(10)
    older = Request(1, ProofRequest(0, block=BlockRequest(1, 0)))
    newer = Request(1, ProofRequest(0, block=BlockRequest(2, 0)))
    ((_, payload),) = answers_to(log, older, newer)
    proof = Data.decode(payload).proof
    assert proof.block is not None
    assert proof.block.index == 2


def test_a_cancelled_request_is_not_answered() -> None:
    channel = Channel(Node(writer(10)), Node(reader()))
    channel.ends[0].sent.clear()
    request = Request(1, ProofRequest(0, block=BlockRequest(1, 0)))
    channel.ends[0].receive(
        [(MessageType.REQUEST, request.encode()), (MessageType.CANCEL, b"\x01")], 0.0
    )
    channel.ends[0].take(1000)
    assert not channel.ends[0].sent


def test_invalid_requests_without_end_are_not_put_up_with() -> None:
    node = Node(writer(10))
    channel = Channel(node, Node(reader()))
    for number in range(1, 100):
        bad = Request(number, ProofRequest(0, upgrade=UpgradeRequest(5, 100)))
        channel.ends[0].receive([(MessageType.REQUEST, bad.encode())], 0.0)
        channel.ends[0].take(1000)
        if node.errors:
            break
    assert 60 < number < 70


def test_a_channel_that_nobody_needs_is_closed() -> None:
    node = Node(writer(10))
    channel = Channel(node, Node(reader()))
    idle = Sync(0, 10, 10, False, True, False, False, False)
    outputs = node.replicator.receive(
        channel.ends[0].peer, [(MessageType.SYNC, idle.encode())], 0.0
    )
    assert [output for output in outputs if isinstance(output, EndChannel)] == [
        EndChannel(channel.ends[0].peer, None)
    ]
    assert node.replicator.peers_refused == 0


def test_a_reader_keeps_the_channel_for_what_is_appended() -> None:
    node = Node(reader())
    channel = Channel(node, Node(writer(10)))
    idle = Sync(0, 0, 0, False, True, False, False, False)
    channel.ends[0].receive([(MessageType.SYNC, idle.encode())], 0.0)
    assert not channel.ends[0].is_closed


def test_extension_names_are_said_once() -> None:
    one, other = Node(writer(1)), Node(reader())
    channel = Channel(one, other)
    settle(channel)
    for payload in (b"1", b"2"):
        one.carry_out(one.replicator.send_extension("a", payload, None))
    one.carry_out(one.replicator.send_extension("b", b"3", channel.ends[0].peer))
    names = [
        Extension.decode(payload).name
        for payload in of_type(channel.ends[0].sent, MessageType.EXTENSION)
    ]
    assert names == ["a", "", "b"]
    settle(channel)
    assert other.extensions == [("a", b"1"), ("a", b"2"), ("b", b"3")]


def test_dropped_blocks_are_told() -> None:
    log = writer(20)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.clear(5, 8)
    seeder.carry_out(seeder.replicator.blocks_dropped(5, 8))
    settle(channel)
    leecher.want(range(20))
    settle(channel)
    assert sorted(leecher.log.blocks) == [*range(5), *range(8, 20)]
    assert channel.ends[1].peer.counters.no_data_received == 0


def test_unasked_data_is_ignored() -> None:
    log = writer(5)
    node = Node(reader())
    channel = Channel(Node(log), node)
    settle(channel)
    request = Request(0, ProofRequest(0, block=BlockRequest(0, 3)))
    ((_, payload),) = answers_to(log, request)
    channel.ends[1].receive([(MessageType.DATA, payload)], 0.0)
    assert not node.log.blocks
    assert not node.errors
    assert channel.ends[1].peer.counters.answers_ignored == 1


def forked_from(log: MemoryLog, length: int, blocks: list[bytes]) -> MemoryLog:
    """The same core after its writer truncated it and went on."""
    fork = MemoryLog(KEY_PAIR)
    fork.append([log.blocks[index] for index in range(log.head.length)])
    fork.truncate(length)
    fork.append(blocks)
    return fork


@pytest.mark.parametrize(("length", "common"), [(30, 10), (200, 150), (64, 64), (7, 0), (33, 32)])
def test_a_reader_follows_the_writer_to_another_fork(length: int, common: int) -> None:
    old = writer(length)
    fork = forked_from(old, common, [b"another %d" % index for index in range(9)])
    leecher = Node(copy_of(old))
    leecher.want(range(2**40))
    held = dict(leecher.log.blocks)
    channel = Channel(Node(fork), leecher)
    settle(channel)
    assert leecher.log.head == fork.head
    assert leecher.log.blocks == fork.blocks
    assert not leecher.errors
    # Only what is new was fetched.
    assert channel.ends[1].peer.counters.blocks_received == 9
    assert all(leecher.log.blocks[index] == held[index] for index in range(common))


def test_a_truncation_is_followed_live_and_passed_on() -> None:
    log = writer(100)
    seeder, middle, last = Node(log), Node(reader()), Node(reader())
    channels = [Channel(seeder, middle), Channel(middle, last)]
    for node in (middle, last):
        node.want(range(2**40))
    settle(*channels)
    log.truncate(60)
    seeder.changed()
    settle(*channels)
    assert middle.log.head == last.log.head == log.head
    log.append([b"after"] * 5)
    seeder.changed()
    settle(*channels)
    assert middle.log.blocks == last.log.blocks == log.blocks
    assert not middle.errors + last.errors


def test_a_fork_that_is_not_signed_is_not_followed() -> None:
    old = writer(20)
    stranger = MemoryLog(KeyPair.from_seed(bytes([9]) * 32))
    stranger.append([b"x"] * 30)
    stranger.truncate(10)
    stranger.key, stranger.manifest, stranger.verifier = old.key, old.manifest, old.verifier
    leecher = Node(copy_of(old))
    settle(Channel(Node(stranger), leecher))
    assert leecher.log.head == old.head
    assert len(leecher.errors) == 1


def test_a_writer_follows_nobody() -> None:
    old = writer(20)
    fork = forked_from(old, 10, [b"restored elsewhere"])
    node = Node(old)
    settle(Channel(Node(fork), node))
    assert node.log.head.fork == 0


def test_a_sparse_reader_follows_too() -> None:
    old = writer(500)
    fork = forked_from(old, 400, [b"new"] * 3)
    leecher = Node(reader())
    first = Channel(Node(old), leecher)
    leecher.want([3, 250, 450])
    settle(first)
    first.ends[1].close(0.0)
    second = Channel(Node(fork), leecher)
    settle(second)
    assert leecher.log.head == fork.head
    assert set(leecher.log.blocks) <= {3, 250}
    leecher.want(range(403))
    settle(second)
    assert leecher.log.blocks == fork.blocks


def test_a_peer_on_an_older_fork_is_not_asked_for_blocks() -> None:
    old = writer(30)
    fork = forked_from(old, 10, [b"another"])
    ahead = Node(copy_of(fork))
    channel = Channel(Node(old), ahead)
    requests = Recorder(channel, 0)
    ahead.want(range(30))
    settle(channel)
    assert not requests.of(MessageType.REQUEST)
    assert not ahead.errors


def test_an_empty_log_starts_with_whatever_fork_there_is() -> None:
    log = writer(30)
    log.truncate(10)
    log.append([b"another"])
    leecher = Node(reader())
    leecher.want(range(100))
    settle(Channel(Node(log), leecher))
    assert leecher.log.head == log.head
    assert leecher.log.blocks == log.blocks


def test_a_truncation_is_announced() -> None:
    log = writer(30)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.truncate(12)
    to_leecher = Recorder(channel, 1)
    seeder.changed()
    settle(channel)
    first, *_ = [kind for kind, _ in to_leecher.messages]
    assert first == MessageType.RANGE
    assert Range.decode(to_leecher.of(MessageType.RANGE)[0]) == Range(12, 18, drop=True)
    sync = Sync.decode(to_leecher.of(MessageType.SYNC)[0])
    assert (sync.fork, sync.length, sync.remote_length, sync.can_upgrade) == (1, 12, 0, False)


def test_readers_pass_blocks_on() -> None:
    log = writer(500)
    seeder = Node(log)
    chain = [seeder, Node(reader()), Node(reader()), Node(reader())]
    channels = [Channel(one, other) for one, other in pairwise(chain)]
    for node in chain[1:]:
        node.want(range(2**40))
    settle(*channels)
    log.append([b"late"])
    seeder.changed()
    settle(*channels)
    assert all(node.log.contiguous_length == 501 for node in chain)
