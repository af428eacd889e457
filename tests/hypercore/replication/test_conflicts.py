"""Two histories under one key: noticed, proven, told to all; and what is no conflict, charged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.fork_proof import MAX_PROOF_BYTES, verify_fork_proof
from hypercore.manifest import Manifest, Prologue
from hypercore.proof import BlockRequest, Proof, ProofRequest, UpgradeRequest
from hypercore.replication.capability import replicate_capability
from hypercore.replication.conflicts import MAX_IDLE_REPORTS, PROBE_SECONDS, FalseReport
from hypercore.replication.messages import (
    PROTOCOL,
    Data,
    Handshake,
    MessageType,
    NoData,
    NoDataReason,
    Request,
    Sync,
)
from hypercore.replication.outputs import AbortConnection
from hypercore.replication.session import CoreReplication
from hypercore.replication.settings import ReplicationSettings
from hypercore.verifier import Verifier
from tests.hypercore.test_spoiled_proofs import spoiled_lists
from tests.support.forked_logs import (
    ONE,
    OTHER,
    SHARED,
    fork_proof,
    log_with,
    reader_with,
    statement,
    tree_with,
    with_other_sizes,
)
from tests.support.memory_log import MemoryLog
from tests.support.memory_mux import memory_mux_pair
from tests.support.replicated_logs import of_type
from tests.support.replicator_pair import Channel, Endpoint, Message, Node, settle
from tests.support.trees import KEY_PAIR, MANIFEST

KEY = MANIFEST.key
FIRST = BlockRequest(0, 0)
COMPARING = ReplicationSettings(compare_seconds=60)


def report(proof: Proof) -> Message:
    return MessageType.DATA, Data(0, proof).encode()


def sync(blocks: Sequence[bytes], *, fork: int = 0) -> Message:
    length = len(blocks)
    return MessageType.SYNC, Sync(fork, length, 0, True, True, True, True, False).encode()


def stranger_to(node: Node, blocks: Sequence[bytes]) -> Endpoint:
    """An end of the node's for which the test speaks; the other says it has these blocks."""
    end = Endpoint(node)
    end.receive([sync(blocks)], 0.0)
    end.sent.clear()
    return end


@pytest.mark.parametrize(
    ("held", "theirs"),
    [(ONE, OTHER), (OTHER, ONE), (ONE, [*SHARED, b"f"]), ([b"x"], [b"y"] * 40)],
)
def test_a_reader_notices_and_both_freeze(held: list[bytes], theirs: list[bytes]) -> None:
    ours, other = Node(reader_with(held)), Node(log_with(theirs))
    channel = Channel(ours, other)
    ours.want(range(40))
    if len(theirs) <= len(held):
        ours.log.clear(0, len(held))  # so that it has something to ask for
    settle(channel)
    assert not ours.errors
    assert not other.errors
    for log in (ours.log, other.log):
        assert log.fork_proof is not None
        proven = verify_fork_proof(log.fork_proof, KEY)
        assert proven.lengths == tuple(sorted((len(held), len(theirs))))
    assert not other.log.is_writable
    assert ours.log.head == tree_with(held).head
    assert set(ours.log.blocks.values()) <= set(held)


def test_a_writer_with_an_old_backup_notices_when_it_went_on() -> None:
    restored, copy = Node(log_with(ONE)), Node(reader_with(OTHER))
    settle(Channel(restored, copy))
    assert restored.log.fork_proof == copy.log.fork_proof == fork_proof()
    assert not restored.log.is_writable


def test_a_writer_with_an_old_backup_that_did_not_go_on_gets_its_own_blocks() -> None:
    restored, copy = Node(log_with(SHARED)), Node(reader_with(ONE))
    settle(Channel(restored, copy))
    assert restored.log.head.length == 5
    assert restored.log.fork_proof is None
    assert restored.log.is_writable


@pytest.mark.parametrize("is_writer", [True, False])
def test_two_histories_of_one_length_are_noticed(is_writer: bool) -> None:
    """Found in review: neither end ever asked the other for anything."""
    theirs = [*SHARED, b"another e"]
    other = log_with(theirs) if is_writer else reader_with(theirs)
    nodes = Node(reader_with(ONE)), Node(other)
    nodes[0].replicator.configure(COMPARING, 0)
    settle(Channel(*nodes))
    for node in nodes:
        assert node.log.fork_proof == fork_proof(ONE, theirs)
        assert not node.errors


def test_the_same_length_is_compared_now_and_then() -> None:
    node = Node(reader_with(ONE))
    node.replicator.configure(COMPARING, 0)
    end = stranger_to(node, ONE)
    asked = (
        MessageType.REQUEST,
        Request(0, ProofRequest(0, upgrade=UpgradeRequest(0, 5))).encode(),
    )
    # `stranger_to` said so once; answers of which some say nothing new are as they should be.
    for minute in range(MAX_IDLE_REPORTS + 2):
        end.receive([report(statement(ONE, 5))], 60.0 * minute)
        end.receive([sync(ONE)], 60.0 * minute + 59)
        assert not of_type(end.sent, MessageType.REQUEST)
        end.receive([sync(ONE)], 60.0 * minute + 60)
        assert end.sent == [asked]
        end.sent.clear()
    assert not node.errors
    assert node.log.fork_proof is None


def test_an_honest_pair_that_compares_goes_on() -> None:
    nodes = Node(reader_with(ONE)), Node(log_with(ONE))
    for node in nodes:
        node.replicator.configure(COMPARING, 0)
    settle(Channel(*nodes))
    for node in nodes:
        assert not node.errors
        assert node.log.fork_proof is None


def test_evidence_is_passed_on_to_all_and_to_who_comes_later() -> None:
    middle = Node(reader_with(ONE))
    friends = [Node(reader_with(ONE)), Node(log_with(OTHER))]
    settle(*(Channel(middle, friend) for friend in friends))
    later = Node(reader_with(ONE))
    settle(Channel(friends[0], later))
    for node in (middle, *friends, later):
        assert node.log.fork_proof == fork_proof()
        assert not node.errors


def test_a_frozen_log_is_served_and_asks_for_nothing() -> None:
    frozen, reader = Node(reader_with(ONE)), Node(MemoryLog(key=KEY))
    frozen.carry_out(frozen.replicator.freeze(fork_proof()))
    frozen.want(range(10))
    assert not frozen.replicator.is_behind
    channel = Channel(frozen, reader)
    reader.want(range(5))
    settle(channel)
    assert reader.log.blocks == frozen.log.blocks
    longer = stranger_to(frozen, [*ONE, b"more"])
    longer.receive([(MessageType.RANGE, b"\x00\x00\x06")], 1.0)
    assert not of_type(longer.sent, MessageType.REQUEST)
    assert frozen.log.head.length == 5


def test_an_upgrade_that_comes_with_the_evidence_is_not_taken() -> None:
    log = reader_with(SHARED)
    node = Node(log)
    end = Endpoint(node)
    end.receive([(MessageType.SYNC, Sync(0, 5, 4, True, True, True, True, False).encode())], 0.0)
    assert of_type(end.sent, MessageType.REQUEST)
    upgrade = tree_with(ONE).answer(upgrade=UpgradeRequest(4, 1))
    answer = (MessageType.DATA, Data(1, upgrade).encode())
    forked = statement([*SHARED[:3], b"not d"], 4)
    end.receive([report(forked), answer], 1.0)
    assert log.fork_proof is not None
    assert log.head.length == 4
    end.receive([answer], 2.0)
    assert log.head.length == 4


def test_a_damaged_answer_is_no_conflict_and_costs_the_channel() -> None:
    source, reader = Node(log_with(ONE)), Node(reader_with(SHARED))
    channel = Channel(source, reader)

    def spoil(end: int, messages: list[Message]) -> list[Message]:
        if end == 0:
            return messages
        return [
            (kind, data[:-1] + b"!" if kind == MessageType.DATA and data[1] else data)
            for kind, data in messages
        ]

    channel.change = spoil
    settle(channel)
    assert [type(error) for error in reader.errors] == [InvalidSignature]
    assert reader.replicator.peers_refused == 1
    assert reader.log.fork_proof is None
    assert reader.log.head.length == 4
    settle(Channel(source, reader))
    assert reader.log.head.length == 5


@pytest.mark.parametrize("answer", ["nothing", "no data", "garbage", "the same history"])
def test_who_is_probed_answers_or_goes(answer: str) -> None:
    node = Node(reader_with(SHARED))
    end = Endpoint(node)
    end.receive([(MessageType.SYNC, Sync(0, 6, 4, True, True, True, True, False).encode())], 0.0)
    end.sent.clear()
    forged = tree_with(OTHER).answer(upgrade=UpgradeRequest(4, 2))
    assert forged.upgrade is not None
    bad = Proof(0, upgrade=replace(forged.upgrade, signature=bytes(68)))
    end.receive([(MessageType.DATA, Data(1, bad).encode())], 1.0)
    (probe,) = of_type(end.sent, MessageType.REQUEST)
    assert probe == bytes((8, 0, 0, 0, 4))
    assert not node.errors
    assert node.replicator.deadline == 1.0 + PROBE_SECONDS
    match answer:
        case "nothing":
            node.carry_out(node.replicator.advance(1.0 + PROBE_SECONDS - 0.1))
            assert not node.errors
            node.carry_out(node.replicator.advance(1.0 + PROBE_SECONDS))
        case "no data":
            no_data = NoData(0, NoDataReason.INVALID_REQUEST)
            end.receive([(MessageType.NO_DATA, no_data.encode())], 2.0)
        case "garbage":
            true = statement(OTHER, 4).upgrade
            assert true is not None
            garbage = Proof(0, upgrade=replace(true, signature=bytes(68)))
            end.receive([report(bad), report(garbage)], 2.0)
        case _:
            end.receive([report(statement(OTHER, 4))], 2.0)
    assert end.is_closed
    assert end.peer.is_gone
    (error,) = node.errors
    assert isinstance(error, InvalidSignature | FalseReport)
    assert node.replicator.peers_refused == 1
    assert node.log.fork_proof is None
    assert node.replicator.deadline == float("inf")


def spoiled_reports() -> Iterator[Proof]:
    for split in (1, 4, 6):
        true = statement(OTHER, split)
        assert true.upgrade is not None
        signature = bytes((true.upgrade.signature[0],)) + bytes(67)
        yield Proof(0, upgrade=replace(true.upgrade, signature=signature))
        for nodes in spoiled_lists(true.upgrade.nodes):
            yield Proof(0, upgrade=replace(true.upgrade, nodes=nodes))
        for nodes in spoiled_lists(true.upgrade.additional_nodes):
            yield Proof(0, upgrade=replace(true.upgrade, additional_nodes=nodes))


def test_every_false_report_costs_its_sender_the_channel() -> None:
    count = 0
    for spoiled in spoiled_reports():
        node = Node(reader_with(ONE))
        end = stranger_to(node, OTHER)
        end.receive([report(spoiled)], 1.0)
        if node.log.fork_proof is not None:  # sizes alone were changed: it is true all the same
            verify_fork_proof(node.log.fork_proof, KEY)
            continue
        assert isinstance(node.errors[0], FalseReport)
        assert end.peer.is_gone
        assert node.replicator.peers_refused == 1
        count += 1
    assert count > 60


def test_one_history_told_twice_freezes_nobody() -> None:
    blocks = [b"aa", b"bb", b"cc", b"dd", b"ee"]
    node = Node(reader_with(blocks))
    for told in (
        statement(blocks, 3),
        with_other_sizes(statement(blocks, 3)),
        with_other_sizes(statement(blocks, 1)),
        statement(blocks[:4], 2),
        statement([*blocks, b"ff"], 6),
        with_other_sizes(statement([*blocks, b"ff"], 5)),
    ):
        end = stranger_to(node, blocks)
        end.receive([report(told)], 1.0)
        assert not end.is_closed
    assert node.log.fork_proof is None
    assert not node.errors


def test_reports_that_show_nothing_are_counted() -> None:
    node = Node(reader_with(ONE))
    end = stranger_to(node, ONE)
    idle = [report(statement(ONE, 5))]
    for _ in range(MAX_IDLE_REPORTS):
        end.receive(idle, 1.0)
    assert not end.is_closed
    end.receive([report(Proof(3, upgrade=statement(ONE, 5).upgrade))], 1.0)
    assert end.peer.is_gone
    assert isinstance(node.errors[0], FalseReport)


def test_pushed_and_unknown_data_is_no_report() -> None:
    node = Node(reader_with(SHARED))
    end = stranger_to(node, ONE)
    pushed = tree_with(ONE).answer(upgrade=UpgradeRequest(4, 1))
    upgrade = statement(ONE, 5).upgrade
    assert upgrade is not None
    enormous = replace(upgrade, signature=bytes(MAX_PROOF_BYTES))
    with_block = replace(statement(ONE, 5), block=tree_with(ONE).answer(block=FIRST).block)
    for _ in range(2 * MAX_IDLE_REPORTS):
        for proof in (pushed, Proof(0), Proof(0, upgrade=enormous), with_block):
            end.receive([report(proof)], 1.0)
    empty = Node(MemoryLog(key=KEY))
    end = stranger_to(empty, ONE)
    end.receive([report(statement(ONE, 5))], 1.0)
    assert not node.errors
    assert not empty.errors
    assert empty.log.head.length == 0


def test_another_fork_is_followed_and_is_no_conflict() -> None:
    log = log_with(ONE)
    log.truncate(3)
    log.append([b"other"])
    reader = Node(reader_with(ONE))
    settle(Channel(Node(log), reader))
    assert reader.log.head == log.head
    assert reader.log.fork_proof is None
    assert not reader.errors


def test_evidence_about_a_history_that_was_left_is_dropped() -> None:
    log = reader_with(ONE)
    node = Node(log)
    end = Endpoint(node)
    end.receive([sync(ONE, fork=1)], 0.0)
    assert not node.errors
    forked = log_with(ONE)
    forked.truncate(5)
    log.head = forked.head
    end.receive([report(statement(OTHER, 5))], 1.0)
    node.carry_out(node.replicator.freeze(fork_proof()))
    assert log.fork_proof is None


def test_a_block_of_another_history_is_enough() -> None:
    node = Node(reader_with([*SHARED, b"e"]))
    node.log.clear(4, 5)
    other = Node(log_with([*SHARED, b"f"]))
    channel = Channel(node, other)
    node.want([4])
    settle(channel)
    assert node.log.fork_proof is not None
    assert node.log.fork_proof == other.log.fork_proof
    assert node.log.blocks.get(4) is None


def test_a_shape_that_nobody_sends_ends_the_channel_at_once() -> None:
    node = Node(reader_with(SHARED))
    end = Endpoint(node)
    end.receive([(MessageType.SYNC, Sync(0, 6, 4, True, True, True, True, False).encode())], 0.0)
    wrong = tree_with(OTHER).answer(upgrade=UpgradeRequest(4, 1))
    assert wrong.upgrade is not None
    shorter = Proof(0, upgrade=replace(wrong.upgrade, nodes=[]))
    end.receive([(MessageType.DATA, Data(1, shorter).encode())], 1.0)
    assert end.is_closed
    assert type(node.errors[0]) is InvalidProof


def with_prologue(log: MemoryLog, blocks: Sequence[bytes]) -> MemoryLog:
    """A writer's log of a core whose first blocks are fixed."""
    prologue = Prologue(tree_with(SHARED).head.tree_hash, len(SHARED))
    log.manifest = Manifest.multi_signer(MANIFEST.signers, quorum=1, prologue=prologue)
    log.key = log.manifest.key
    log.verifier = Verifier(log.key, log.manifest)
    log.append(blocks)
    return log


@pytest.mark.parametrize(("held", "theirs"), [(ONE, OTHER), (OTHER, ONE), (ONE, [*SHARED, b"x"])])
def test_histories_that_part_after_a_prologue(held: list[bytes], theirs: list[bytes]) -> None:
    ours = Node(with_prologue(MemoryLog(KEY_PAIR), held))
    other = Node(with_prologue(MemoryLog(KEY_PAIR), theirs))
    ours.log.is_writable = False
    ours.log.clear(0, len(held))
    ours.want(range(len(held)))
    settle(Channel(ours, other))
    for node in (ours, other):
        assert not node.errors
        assert node.log.fork_proof is not None
        proven = verify_fork_proof(node.log.fork_proof, ours.log.key)
        assert proven.lengths == tuple(sorted((len(held), len(theirs))))


def test_evidence_counts_though_what_follows_it_is_no_message() -> None:
    node = Node(reader_with(SHARED))
    end = Endpoint(node)
    end.receive([(MessageType.SYNC, Sync(0, 6, 4, True, True, True, True, False).encode())], 0.0)
    forged = tree_with(OTHER).answer(upgrade=UpgradeRequest(4, 2)).upgrade
    assert forged is not None
    bad = Proof(0, upgrade=replace(forged, signature=bytes(68)))
    end.receive([(MessageType.DATA, Data(1, bad).encode())], 1.0)
    told = report(statement([*SHARED[:3], b"not d"], 4))
    outputs = node.replicator.receive(end.peer, [told, (MessageType.SYNC, b"")], 2.0)
    assert [type(output) for output in outputs] == [AbortConnection]
    assert node.log.fork_proof is not None
    assert node.replicator.peers_refused == 1


async def test_a_silent_suspect_is_left_when_its_time_is_up(autojump_clock: MockClock) -> None:
    """Over a channel: the scheduler's deadline wakes the session, and nobody else has to."""
    log = reader_with(SHARED)
    replication = CoreReplication(log)
    ours, theirs = memory_mux_pair()
    for mux in (ours, theirs):
        mux.expected.add((PROTOCOL, log.discovery_key))
    capability = replicate_capability(
        is_initiator=False, key=log.key, handshake_hash=theirs.link.handshake_hash
    )
    forged = tree_with(OTHER).answer(upgrade=UpgradeRequest(4, 2)).upgrade
    assert forged is not None
    bad = Proof(0, upgrade=replace(forged, signature=bytes(68)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replication.serve, ours)
        handshake = Handshake(capability).encode()
        channel = await theirs.open_channel(PROTOCOL, log.discovery_key, handshake)
        started = trio.current_time()
        said = Sync(0, 6, 4, True, True, True, True, False)
        channel.send(MessageType.SYNC, said.encode())
        said_before: list[Message] = []
        with trio.fail_after(100):
            while not of_type(said_before, MessageType.REQUEST):
                said_before += await channel.receive()
            channel.send(MessageType.DATA, Data(1, bad).encode())
            (probe, _) = await channel.receive()
            assert probe == (MessageType.REQUEST, bytes((8, 0, 0, 0, 4)))
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()
        assert trio.current_time() - started == pytest.approx(PROBE_SECONDS)
    assert replication.statistics().peers_refused == 1
    assert log.fork_proof is None
