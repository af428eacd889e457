from __future__ import annotations

from itertools import pairwise

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof
from hypercore.proof_request import UpgradeRequest
from hypercore.replication.messages import (
    MessageType,
)
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import copy_of, of_type, reader, sparse_writer, writer
from tests.support.replicator_pair import Channel, Message, Node, settle


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
    now = 0.0
    while not of_type(silent.ends[1].sent, MessageType.CANCEL):
        now = leecher.replicator.deadline
        leecher.carry_out(leecher.replicator.advance(now))
    assert 0.25 <= now <= 2.0
    assert len(of_type(silent.ends[1].sent, MessageType.CANCEL)) == 40
    for _ in range(10):
        helpful.step(now)
    assert leecher.log.contiguous_length == 40
    assert helpful.ends[1].peer.counters.hotswaps == 40


def test_an_upgrade_that_does_not_come_is_asked_of_another_peer() -> None:
    log = writer(100)
    leecher = Node(reader())
    silent = Channel(Node(copy_of(log)), leecher)
    silent.step(0.0)
    assert len(silent.ends[1].peer.inflight) == 1
    helpful = Channel(Node(copy_of(log)), leecher)
    settle(helpful)
    assert leecher.log.head.length == 0
    now = 0.0
    while now < 2.0:
        now = leecher.replicator.deadline
        leecher.carry_out(leecher.replicator.advance(now))
    assert now < 4.0
    settle(helpful)
    assert leecher.log.head.length == 100


def corrupt(payload: bytes) -> bytes:
    """Change the value of the block; the answer to a probe has none."""
    at = payload.find(b"block")
    if at < 0:
        return payload
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


def test_who_takes_all_back_before_it_is_answered_can_still_ask() -> None:
    """As who gives each read of a far away peer half a round trip."""
    leecher = Node(reader())
    channel = Channel(Node(writer(5000)), leecher)
    settle(channel)
    for start in range(0, 5000, 50):
        leecher.want(range(start, start + 50))
        leecher.unwant(range(start, start + 50))
    settle(channel)
    leecher.want([7, 4999])
    settle(channel)
    assert {7, 4999} <= set(leecher.log.blocks)
