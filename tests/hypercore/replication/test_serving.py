from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof, MalformedMessage
from hypercore.proof import Proof
from hypercore.proof_request import BlockRequest, ProofRequest, UpgradeRequest
from hypercore.replication.messages import (
    Cancel,
    Data,
    Extension,
    MessageType,
    NoData,
    NoDataReason,
    Request,
    Sync,
)
from hypercore.replication.outputs import EndChannel
from hypercore.replication.uploads import MAX_WAITING, TooManyRequests
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, block, of_type, reader, writer
from tests.support.replicator_pair import Channel, Message, Node, settle


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


def test_what_the_disk_lost_is_not_waited_for() -> None:
    """A failing disk may give less back than was written: the log goes on from there."""
    log = writer(3, is_lazy=True)
    log.make_durable()
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    settle(channel)
    log.append([b"lost"] * 50)
    seeder.changed()
    left = writer(3)
    log.head, log.nodes, log.blocks, log.bitfield = (
        left.head,
        left.nodes,
        left.blocks,
        left.bitfield,
    )
    seeder.changed()
    log.append([block(3)])
    log.make_durable()
    seeder.changed()
    settle(channel)
    assert leecher.log.head.length == 4
    assert not leecher.errors


def test_blocks_that_are_not_durable_are_not_served() -> None:
    log = writer(3, is_lazy=True)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    request = Request(1, ProofRequest(0, block=BlockRequest(0, 0), upgrade=UpgradeRequest(0, 3)))
    channel.ends[0].receive([(MessageType.REQUEST, request.encode())], 0.0)
    channel.ends[0].take(1000)
    answers = of_type(channel.ends[0].sent, MessageType.NO_DATA)
    assert NoData.decode(answers[0]) == NoData(1, NoDataReason.NOT_AVAILABLE)


def test_what_was_asked_of_an_older_history_is_not_held_against_us() -> None:
    """JavaScript gives a peer up that refuses 32 requests because it does not have the blocks."""
    log = writer(3)
    channel = Channel(Node(log), Node(reader()))
    log.truncate(2)
    channel.ends[0].node.changed()
    for number, upgrade in (1, None), (2, UpgradeRequest(0, 3)):
        request = Request(number, ProofRequest(0, block=BlockRequest(0, 0), upgrade=upgrade))
        channel.ends[0].receive([(MessageType.REQUEST, request.encode())], 0.0)
    channel.ends[0].take(1000)
    answers = map(NoData.decode, of_type(channel.ends[0].sent, MessageType.NO_DATA))
    assert list(answers) == [NoData(1, NoDataReason.NONE), NoData(2, NoDataReason.NONE)]


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


def ask(channel: Channel, *requests: Request) -> None:
    channel.ends[0].receive([(MessageType.REQUEST, one.encode()) for one in requests], 0.0)


def block_request(number: int, index: int, priority: int = 0) -> Request:
    return Request(number, ProofRequest(0, block=BlockRequest(index, 0)), priority=priority)


def answered(channel: Channel) -> list[int]:
    channel.ends[0].take(1 << 20)
    return [Data.decode(data).request for data in of_type(channel.ends[0].sent, MessageType.DATA)]


def test_urgent_requests_are_answered_first() -> None:
    channel = Channel(Node(writer(50)), Node(reader()))
    ask(channel, *[block_request(number, number) for number in range(1, 6)])
    ask(channel, block_request(7, 7, priority=1), block_request(8, 8, priority=2))
    assert answered(channel) == [7, 8, 1, 2, 3, 4, 5]


def test_an_urgent_request_takes_the_place_of_one_with_its_id() -> None:
    channel = Channel(Node(writer(50)), Node(reader()))
    ask(channel, block_request(1, 1), block_request(2, 2))
    ask(channel, block_request(2, 9, priority=1))
    ask(channel, block_request(3, 3, priority=1))
    ask(channel, block_request(3, 4))
    assert len(channel.ends[0].peer.uploads) == 3
    assert answered(channel) == [2, 1, 3]


def test_an_urgent_request_is_cancelled_as_others_are() -> None:
    channel = Channel(Node(writer(50)), Node(reader()))
    ask(channel, block_request(1, 1, priority=1), block_request(2, 2))
    channel.ends[0].receive([(MessageType.CANCEL, Cancel(1).encode())], 0.0)
    assert answered(channel) == [2]


def test_urgent_requests_count_among_those_that_may_wait() -> None:
    seeder = Node(writer(3))
    channel = Channel(seeder, Node(reader()))
    half = MAX_WAITING // 2
    ask(channel, *[block_request(number, 0) for number in range(1, half + 1)])
    ask(channel, *[block_request(number, 0, 1) for number in range(half + 1, MAX_WAITING + 1)])
    assert not seeder.errors
    ask(channel, block_request(MAX_WAITING + 1, 0, 1))
    assert [type(error) for error in seeder.errors] == [TooManyRequests]


def test_a_manifest_is_asked_of_a_peer_that_has_nothing_else() -> None:
    empty, leecher = Node(writer(0)), Node(reader())
    channel = Channel(empty, leecher)
    settle(channel)
    assert leecher.log.manifest == empty.log.manifest
    assert channel.ends[1].peer.counters.requests_sent == 1


def test_another_cores_manifest_ends_the_channel() -> None:
    other = MemoryLog(KeyPair.from_seed(bytes([7]) * 32))
    other.key, other.discovery_key = writer(0).key, writer(0).discovery_key
    leecher = Node(reader())
    channel = Channel(Node(other), leecher)
    settle(channel)
    assert leecher.log.manifest is None
    assert [type(error) for error in leecher.errors] == [InvalidProof]
    assert channel.ends[1].peer.counters.invalid_data == 1


def test_a_manifest_alone_answers_what_crossed_a_truncation() -> None:
    """Asked of the old history, with the manifest: the peer has only this to give."""
    log = writer(5)
    seeder, leecher = Node(log), Node(reader())
    channel = Channel(seeder, leecher)
    channel.step(0.0)
    assert [request.upgrade for request in channel.ends[1].peer.inflight] == [UpgradeRequest(0, 5)]
    log.truncate(3)
    log.append([b"other"])
    seeder.changed()
    settle(channel)
    assert not leecher.errors
    assert leecher.log.head == log.head
    assert leecher.log.manifest == log.manifest


def test_manifests_without_end_are_asked_for_once() -> None:
    """A peer that answers every request for its head with the manifest is asked no more."""
    log = writer(5)
    leecher = Node(reader())
    peer, _ = leecher.replicator.add_peer()
    manifest = Data(0, Proof(0, manifest=log.manifest))
    sync = Sync(0, 5, 0, True, True, True, True, False)
    leecher.carry_out(leecher.replicator.receive(peer, [(MessageType.SYNC, sync.encode())], 0.0))
    for number in range(1, 10):
        answers = [
            (MessageType.DATA, Data(request.id, manifest.proof).encode())
            for request in peer.inflight
        ]
        if answers:
            leecher.carry_out(leecher.replicator.receive(peer, answers, float(number)))
    assert leecher.log.manifest == log.manifest
    assert peer.counters.requests_sent == 2
    assert not peer.is_gone
