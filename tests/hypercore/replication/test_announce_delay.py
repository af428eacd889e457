"""Appends that are announced together, some time later."""

from __future__ import annotations

from hypercore.proof_request import ProofRequest, UpgradeRequest
from hypercore.replication.messages import MessageType, Range, Request, Sync
from hypercore.replication.settings import ReplicationSettings
from tests.support.forked_logs import log_with
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import of_type
from tests.support.replicator_pair import Endpoint, Node
from tests.support.trees import MANIFEST

DELAY_SECONDS = 2.0


def reader_of(node: Node) -> Endpoint:
    """A peer that has nothing yet and hears of everything."""
    end = Endpoint(node)
    nothing = Sync(0, 0, 0, True, True, True, True, False).encode()
    end.receive([(MessageType.SYNC, nothing)], 0.0)
    end.sent.clear()
    return end


def append(node: Node, block: bytes, now: float) -> None:
    node.log.append([block])
    node.carry_out(node.replicator.log_changed(now))


def delayed_writer() -> tuple[Node, Endpoint]:
    node = Node(log_with([b"first"]))
    settings = ReplicationSettings(announce_delay_seconds=DELAY_SECONDS)
    node.carry_out(node.replicator.configure(settings, 0.0))
    return node, reader_of(node)


def announced(end: Endpoint) -> list[tuple[int, range]]:
    """Lengths, and the blocks that go with each."""
    lengths = [Sync.decode(payload).length for payload in of_type(end.sent, MessageType.SYNC)]
    runs = [Range.decode(payload) for payload in of_type(end.sent, MessageType.RANGE)]
    end.sent.clear()
    return [
        (length, range(run.start, run.start + run.length))
        for length, run in zip(lengths, runs, strict=True)
    ]


def test_appends_are_announced_together_when_the_first_is_due() -> None:
    node, reader = delayed_writer()
    for number in range(3):
        append(node, b"%d" % number, number / 2)
        assert not reader.sent
    assert node.replicator.deadline == DELAY_SECONDS
    node.carry_out(node.replicator.advance(DELAY_SECONDS))
    assert announced(reader) == [(4, range(4))]
    assert node.replicator.deadline > DELAY_SECONDS
    append(node, b"later", 10.0)
    assert node.replicator.deadline == 10.0 + DELAY_SECONDS


def test_whoever_cannot_wait_has_it_announced_at_once() -> None:
    node, reader = delayed_writer()
    node.carry_out(node.replicator.announce(0.0))
    assert not reader.sent, "there was nothing to be said"
    append(node, b"second", 1.0)
    node.carry_out(node.replicator.announce(1.0))
    assert announced(reader) == [(2, range(2))]
    node.carry_out(node.replicator.advance(100.0))
    assert not reader.sent


def test_blocks_behind_a_gap_are_all_announced() -> None:
    node, reader = delayed_writer()
    node.log.clear(0, 1)
    node.carry_out(node.replicator.blocks_dropped(0, 1))
    reader.sent.clear()
    for number in range(3):
        append(node, b"%d" % number, 0.0)
    node.carry_out(node.replicator.announce(0.0))
    assert announced(reader) == [(4, range(1, 4))]


def test_with_a_head_that_is_asked_for_meanwhile_go_the_blocks() -> None:
    """Whoever has it proven asks for these at once, and must not think that they are lost."""
    node, reader = delayed_writer()
    other = reader_of(node)
    append(node, b"second", 0.0)
    asked = ProofRequest(0, upgrade=UpgradeRequest(0, 1))
    reader.receive([(MessageType.REQUEST, Request(1, asked, manifest=True).encode())], 0.1)
    append(node, b"third", 0.1)
    reader.take(1 << 16)
    assert reader.sent[-1][0] == MessageType.DATA, "that comes last"
    assert announced(reader) == [(2, range(2)), (3, range(3))]
    assert not other.sent
    node.carry_out(node.replicator.advance(DELAY_SECONDS))
    assert announced(other) == [(3, range(3))]
    assert not reader.sent, "it knows"


def test_another_history_is_announced_at_once() -> None:
    node, reader = delayed_writer()
    append(node, b"second", 0.0)
    assert not reader.sent
    node.log.truncate(1)
    node.carry_out(node.replicator.log_changed(0.1))
    assert [Sync.decode(p).fork for p in of_type(reader.sent, MessageType.SYNC)] == [1]


def test_who_comes_meanwhile_hears_of_all() -> None:
    node, _ = delayed_writer()
    append(node, b"second", 0.0)
    later = Endpoint(node)
    assert Sync.decode(of_type(later.sent, MessageType.SYNC)[0]).length == 2
    assert Node(MemoryLog(key=MANIFEST.key)).replicator.deadline == float("inf")
