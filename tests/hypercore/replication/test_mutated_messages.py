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
import trio.testing

from hypercore.errors import (
    InvalidCapability,
    InvalidProof,
    InvalidSignature,
    MalformedMessage,
    RemoteProtocolError,
)
from hypercore.log import Head
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
    for index, block in log.blocks.items():
        assert block in (truth.blocks.get(index), None)
    assert log.head in heads
    if log.head == truth.head:
        for index, node in log.nodes.items():
            assert truth.nodes[index] == node


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


def is_true_all_the_same(path: str, changed: Data, honest: Data) -> bool:
    """A part left out, which is asked for again; or a patch length that nobody looks at."""
    if path == "proof.block" and changed.proof.block is None:
        return honest.proof.upgrade is not None
    upgrade, before = changed.proof.upgrade, honest.proof.upgrade
    if path != "proof.upgrade.signature" or upgrade is None or before is None:
        return False
    return upgrade.signature[:66] == before.signature[:66] and len(upgrade.signature) >= 68


@pytest.mark.parametrize("name", SESSIONS)
def test_every_field_of_every_answer(name: str) -> None:
    make = SESSIONS[name]
    refused = 0
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
            heads = [session.truth.head, make().leecher.log.head]
            nothing_untrue_is_stored(session.leecher.log, session.truth, heads)
            assert all(isinstance(error, ERRORS) for error in receiver.errors), path
            if path == "request" or is_true_all_the_same(path, changed, honest):
                continue
            assert len(commits) == 2
            if receiver.log.fork_proof is None:
                assert receiver.errors, (path, changed)
                assert receiver.replicator.peers_refused == 1, path
                refused += 1
    assert refused > 50
