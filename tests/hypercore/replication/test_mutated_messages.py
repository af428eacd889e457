"""Every message of a session with every field changed, one at a time.

What can be known to be false costs its sender the channel (or the connection, when it is no
message), and nothing of it is stored. What nobody can know (how far a peer says it is, which
blocks it says it has) is believed only as a reason to ask: nothing untrue is stored, and an honest
peer still gives everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import trio

from hypercore.encoding import DecodeError
from hypercore.errors import (
    InvalidCapability,
    InvalidProof,
    InvalidSignature,
    MalformedMessage,
)
from hypercore.fork_proof import verify_fork_proof
from hypercore.log import Head
from hypercore.proof import Proof
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import (
    PROTOCOL,
    Cancel,
    Data,
    Extension,
    Handshake,
    HaveBits,
    MessageType,
    NoData,
    Range,
    Request,
    Sync,
    Want,
)
from hypercore.replication.session import CoreReplication
from hypercore.replication.uploads import TooManyRequests
from tests.support.forked_logs import ONE, OTHER, log_with, reader_with
from tests.support.memory_log import MemoryLog
from tests.support.memory_mux import memory_mux_pair
from tests.support.mutations import mutations
from tests.support.replicator_pair import Channel, Message, Node, settle
from tests.support.trees import MANIFEST

BLOCKS = [b"block %d" % index for index in range(11)]
ERRORS = (InvalidProof, InvalidSignature, MalformedMessage, TooManyRequests)
TO_LEECHER, TO_SEEDER = 1, 0

DECODERS: dict[
    int, type[Sync | Request | Cancel | Data | NoData | Want | HaveBits | Range | Extension]
] = {
    MessageType.SYNC: Sync,
    MessageType.REQUEST: Request,
    MessageType.CANCEL: Cancel,
    MessageType.DATA: Data,
    MessageType.NO_DATA: NoData,
    MessageType.WANT: Want,
    MessageType.UNWANT: Want,
    MessageType.BITFIELD: HaveBits,
    MessageType.RANGE: Range,
    MessageType.EXTENSION: Extension,
}


@dataclass
class Session:
    """A seeder, a leecher and their channel, the same every time it is made."""

    seeder: Node
    leecher: Node
    truth: MemoryLog
    """What everything stored must be a part of."""
    start: Callable[[], None]

    def run(self, change: Callable[[int, int, Message], Message]) -> None:
        """Until nobody says anything; `change` sees (end, number, message)."""
        channel = Channel(self.seeder, self.leecher)
        counts = Counter[int]()

        def pass_on(end: int, messages: list[Message]) -> list[Message]:
            changed = []
            for message in messages:
                changed.append(change(end, counts[end], message))
                counts[end] += 1
            return changed

        channel.change = pass_on
        self.start()
        settle(channel)
        for hour in (1.0, 2.0):
            self.leecher.carry_out(self.leecher.replicator.advance(3600 * hour))
            settle(channel)


def whole_log() -> Session:
    """An empty reader that wants everything; extensions, wants and gaps included."""
    source = log_with(BLOCKS)
    source.clear(4, 6)
    seeder, leecher = Node(source), Node(MemoryLog(key=source.key))

    def start() -> None:
        leecher.want(range(len(BLOCKS)))
        seeder.carry_out(seeder.replicator.send_extension("ext", b"hello", None))
        seeder.carry_out(seeder.replicator.send_extension("ext", b"again", None))

    return Session(seeder, leecher, log_with(BLOCKS), start)


def another_fork() -> Session:
    """A reader of an older history that follows the writer."""
    source = log_with(BLOCKS)
    source.truncate(5)
    source.append([b"other %d" % index for index in range(6)])
    truth = log_with(BLOCKS)
    truth.truncate(5)
    truth.append([b"other %d" % index for index in range(6)])
    return Session(Node(source), Node(reader_with(BLOCKS)), truth, lambda: None)


def a_conflict() -> Session:
    """A reader that learns of two histories: nothing of the other one is ever taken."""
    return Session(Node(log_with(OTHER)), Node(reader_with(ONE)), log_with(ONE), lambda: None)


SESSIONS = {"whole log": whole_log, "another fork": another_fork, "conflict": a_conflict}


def recorded(make: Callable[[], Session]) -> list[tuple[int, int, Message]]:
    """(end, number, message) of all that is said when nobody changes anything."""
    messages: list[tuple[int, int, Message]] = []

    def note(end: int, number: int, message: Message) -> Message:
        messages.append((end, number, message))
        return message

    make().run(note)
    return messages


def nothing_untrue_is_stored(log: MemoryLog, truth: MemoryLog, heads: Sequence[Head]) -> None:
    assert log.head in heads
    assert log.fork_proof is None or verify_fork_proof(log.fork_proof, MANIFEST.key).fork == 0
    if log.head == truth.head:
        assert log.blocks.items() <= truth.blocks.items()
        assert log.nodes.items() <= truth.nodes.items()


def run_changed(
    make: Callable[[], Session], end: int, number: int, payload: bytes
) -> tuple[Session, list[int]]:
    """The session in which that message has another payload; the commits before and after it."""
    session = make()
    commits: list[int] = []

    def change(to: int, count: int, message: Message) -> Message:
        if (to, count) == (end, number):
            commits.append(session.leecher.log.commits)
            return message[0], payload
        return message

    session.run(change)
    commits.append(session.leecher.log.commits)
    return session, commits


def distinct(messages: Sequence[tuple[int, int, Message]]) -> Iterator[tuple[int, int, Message]]:
    """Of the blocks that are asked for and sent alike, some; of everything else all."""
    seen = Counter[tuple[int, int, bytes]]()
    for end, number, (kind, payload) in messages:
        shape = (end, kind, payload[:1] if kind in (MessageType.DATA, MessageType.REQUEST) else b"")
        seen[shape] += 1
        if seen[shape] <= 2:
            yield end, number, (kind, payload)


def charged(node: Node) -> int:
    assert all(isinstance(error, ERRORS) for error in node.errors), node.errors
    return node.replicator.peers_refused


def reads_as(payload: bytes, honest: Data) -> bool:
    """Whether only bytes after the last field are new: that is how messages grow."""
    try:
        return Data.decode(payload) == honest
    except DecodeError:
        return False


def is_true_all_the_same(path: str, changed: Data, honest: Data) -> bool:
    """A part left out, which is asked for again; or what is added to a signature."""
    if path == "proof.block" and changed.proof.block is None:
        return honest.proof.upgrade is not None
    upgrade, before = changed.proof.upgrade, honest.proof.upgrade
    if path != "proof.upgrade.signature" or upgrade is None or before is None:
        return False
    return upgrade.signature[:66] == before.signature[:66] and len(upgrade.signature) >= 68


def why_not_charged(path: str, payload: bytes, honest: Data) -> str:
    """What a receiver cannot hold against the sender; empty when it is false."""
    if reads_as(payload, honest):
        return "ends in bytes of a later version"
    try:
        changed = Data.decode(payload)
    except DecodeError:
        return ""
    if changed.proof == Proof(honest.proof.fork):
        return "says nothing, as JavaScript with an empty log does"
    if path == "request":
        return "answers nothing, or what was cancelled"
    if is_true_all_the_same(path, changed, honest):
        return "true all the same"
    if honest.request == 0 and path == "proof.fork":
        return "about a history that was left, or is to come"
    if honest.request == 0 and path in ("proof.upgrade", "proof.upgrade.start"):
        return "pushed, which is not asked for"
    return ""


@pytest.mark.parametrize("name", SESSIONS)
def test_every_field_of_every_answer(name: str) -> None:
    make = SESSIONS[name]
    heads = [make().truth.head, make().leecher.log.head]
    outcomes = Counter[str]()
    for end, number, (kind, payload) in distinct(recorded(make)):
        if kind != MessageType.DATA:
            continue
        honest = Data.decode(payload)
        for path, changed in mutations(honest):
            encoded = changed.encode()
            if encoded == payload:
                continue
            session, commits = run_changed(make, end, number, encoded)
            receiver = (session.seeder, session.leecher)[end]
            nothing_untrue_is_stored(session.leecher.log, session.truth, heads)
            if charged(receiver):
                assert charged(receiver) == 1
                outcomes["charged"] += 1
                if name == "whole log":  # what came before it, with it, is
                    assert honest.proof.block is not None
                    assert honest.proof.block.index not in receiver.log.blocks
                else:
                    assert commits[0] == commits[1], "nothing is stored of it"
                continue
            why = why_not_charged(path, encoded, honest)
            if not why:
                # Half a report is no report; the other half, or the probe's answer, is. And a
                # frozen log does not read reports.
                assert receiver.log.fork_proof is not None, (path, changed)
            outcomes[why or "conflict"] += 1
    assert outcomes["charged"] > 50, outcomes


@pytest.mark.parametrize("name", SESSIONS)
def test_every_field_of_everything_else(name: str) -> None:
    make = SESSIONS[name]
    heads = [make().truth.head, make().leecher.log.head]
    kinds = Counter[int]()
    for end, number, (kind, payload) in distinct(recorded(make)):
        if kind == MessageType.DATA:
            continue
        for _, changed in mutations(DECODERS[kind].decode(payload)):
            encoded = changed.encode()
            if encoded == payload:
                continue
            session, _ = run_changed(make, end, number, encoded)
            kinds[kind] += 1
            nothing_untrue_is_stored(session.leecher.log, session.truth, heads)
            charged(session.seeder)
            charged(session.leecher)
            assert session.seeder.log.head == make().seeder.log.head
            if name != "conflict":
                assert_still_usable(session)
    wanted = {MessageType.SYNC, MessageType.REQUEST, MessageType.RANGE}
    if name == "whole log":
        wanted |= {MessageType.WANT, MessageType.BITFIELD, MessageType.EXTENSION}
    assert wanted <= set(kinds), kinds


def assert_still_usable(session: Session) -> None:
    """Whatever the peer said, from an honest one everything comes."""
    honest = Channel(Node(session.truth), session.leecher)
    settle(honest)
    session.leecher.want(range(session.truth.head.length))
    for hour in (3.0, 4.0, 5.0):
        session.leecher.carry_out(session.leecher.replicator.advance(3600 * hour))
        settle(honest)
    assert session.leecher.log.head == session.truth.head
    assert session.leecher.log.blocks == session.truth.blocks


def test_what_is_cut_off_anywhere_is_no_message() -> None:
    """Or it is one that ends in fields that may be left out, or in bytes of any number."""
    messages = {(kind, payload) for _, _, (kind, payload) in recorded(whole_log)}
    messages.add((MessageType.NO_DATA, NoData(1, 2).encode()))
    messages.add((MessageType.CANCEL, Cancel(300).encode()))
    messages.add((MessageType.UNWANT, Want(0, 1 << 21, any=True).encode()))
    optional = {MessageType.NO_DATA: 2, MessageType.WANT: 1, MessageType.UNWANT: 1}
    for kind, payload in messages:
        for stop in range(len(payload)):
            node = Node(reader_with(BLOCKS[:3]))
            end = Channel(node, Node(log_with([]))).ends[0]
            end.receive([(MessageType.SYNC, SYNC)], 0.0)
            before = node.log.commits
            end.receive([(kind, payload[:stop])], 1.0)
            assert node.log.commits == before
            if node.errors:
                assert type(node.errors[0]) is MalformedMessage
                assert charged(node) == 1
            else:
                is_ignored = kind == MessageType.DATA and stop >= 3  # nobody waits for it
                is_short = stop >= len(payload) - optional.get(MessageType(kind), 0)
                assert is_ignored or is_short or kind == MessageType.EXTENSION


SYNC = Sync(0, 11, 3, True, True, True, True, False).encode()


async def test_every_bit_of_the_handshake() -> None:
    """A wrong capability ends the connection before anything is said."""
    log = log_with(BLOCKS)
    right = Handshake(
        replicate_capability(is_initiator=False, key=log.key, handshake_hash=b"h" * 64)
    ).encode()
    wrong = [
        right[:place] + bytes((right[place] ^ 1 << bit,)) + right[place + 1 :]
        for place in range(1, len(right))
        for bit in range(8)
    ]
    cut_off = [right[:stop] for stop in range(len(right))]
    for handshake in [*wrong, *cut_off]:
        replication = CoreReplication(log)
        ours, theirs = memory_mux_pair()
        for mux in (ours, theirs):
            mux.expected.add((PROTOCOL, log.discovery_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(replication.serve, ours)
            channel = await theirs.open_channel(PROTOCOL, log.discovery_key, handshake)
        assert isinstance(ours.error, InvalidCapability | MalformedMessage)
        assert not channel.other or not channel.other.sent
        assert replication.statistics().peers_refused == 1
