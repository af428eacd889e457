"""The messages of the protomux channel `beemesh/1`, which nodes of one mesh speak.

| # | message  | fields                                                                        |
|---|----------|-------------------------------------------------------------------------------|
| 0 | hello    | version, proof (32 bytes)                                                     |
| 1 | welcome  | data core key, length, name, role, grant or nil, [policy...], authorship or nil |
| 2 | query    | request id, [coID...], [sessions or nil...], blocks pushed (bool)             |
| 3 | answer   | request id, data version, [[coID, sessions or nil]...], more follows (bool)   |
| 4 | interest | everything (bool), [coID added...], [coID removed...], [prefix...], [owner...] |
| 5 | update   | data version, [[coID, sessions]...]                                           |
| 6 | evidence | kind (0 a session, 1 a core), subject, first, second                          |
| 7 | stored   | data version, blocks of yours merged here, [[coID, sessions or nil]...]        |
| 9 | listed   | data version, interest messages of yours that are done with                   |

Numbers 16 to 19 are about members: `trust_messages`. 20 to 22 say things in brief:
`hearsay_messages`. 8 and 23 are about runs of a node: `run_messages`.

Each is a MessagePack array; *sessions* is a map from CoSessionId to a count of transactions,
and nil says that not even the header is held; in *stored*, that the value is not taken. What does
not fit into one message goes into several: entries of one id add up, and an answer says whether
more of it follows. *Listed* counts the receiver's interest messages on this connection: all that
was held of what those began to follow has been announced, or is in the log up to that version.
Nodes of version 1 do not send it.

Worked example: `Hello(1, 32 zero bytes)` is `92 01 c4 20 00...00`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import SessionCounts
from node.mesh.authorship import Authorship
from node.mesh.fields import Field, FieldError, FieldReader, pack_fields
from node.mesh.follow_rules import EVERYTHING, PREFIX
from node.mesh.hearsay_messages import Brief, HearsayMessage, Neighbors, Unclear
from node.mesh.run_messages import Alive, Head, RunMessage
from node.mesh.ticket import Grant
from node.mesh.trust_messages import Farewell, Held, Kept, Records, TrustMessage

PROTOCOL = "beemesh/1"
VERSION = 2
OLDEST_VERSION = 1
LISTED_VERSION = 2
"""The first version that says when all of what is newly followed has been told (`Listed`)."""

MAX_MESSAGE_BYTES = 4 << 20
"""Longest message read. A quarter of protomux's frame; ours are far smaller, except for one
value with very many sessions."""

MAX_QUERY_IDS = 1000
"""Ids in one query, as many as a Jazz client has loads in flight."""

MAX_UPDATE_VALUES = 4096
MAX_INTEREST_IDS = 4096
MAX_PATTERNS = 64
MAX_NAME = 128

TARGET_MESSAGE_BYTES = 256 << 10
"""Where a writer begins the next message, so that one member's list does not hold up the
blocks that share its connection."""

_ENTRY_BYTES = 64
_SESSION_BYTES = 16

Sessions: TypeAlias = SessionCounts
"""The known state of a value whose header is held; where None may stand, it is not."""


class MessageType(IntEnum):
    HELLO = 0
    WELCOME = 1
    QUERY = 2
    ANSWER = 3
    INTEREST = 4
    UPDATE = 5
    EVIDENCE = 6
    STORED = 7
    HEAD = 8
    LISTED = 9
    RECORDS = 16
    HELD = 17
    FAREWELL = 18
    KEPT = 19
    NEIGHBORS = 20
    BRIEF = 21
    UNCLEAR = 22
    ALIVE = 23


class EvidenceKind(IntEnum):
    SESSION = 0
    CORE = 1


@dataclass(frozen=True, slots=True)
class Hello:
    """I know the secret of the mesh; nothing else is said before both have proved it."""

    version: int
    proof: bytes

    def encode(self) -> bytes:
        return pack_fields(self.version, self.proof)

    @classmethod
    def decode(cls, reader: FieldReader) -> Hello:
        return cls(reader.uint(), reader.fixed(32))


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a member may know of this node: `length` is that of its data core, in blocks."""

    data_key: bytes
    length: int
    name: str
    role: str
    grant: Grant | None
    policies: tuple[str, ...]
    author: Authorship | None = None
    """Proof that it writes that core; None from older nodes."""

    def encode(self) -> bytes:
        grant = None if self.grant is None else self.grant.fields
        author = None if self.author is None else self.author.fields
        policies = list(self.policies)
        return pack_fields(
            self.data_key, self.length, self.name, self.role, grant, policies, author
        )

    @classmethod
    def decode(cls, reader: FieldReader) -> Welcome:
        data_key, length = reader.fixed(32), reader.uint()
        name, role = reader.text(MAX_NAME), reader.text(MAX_NAME)
        grant = reader.optional_array()
        policies = reader.texts(MAX_PATTERNS, MAX_NAME)
        author = reader.optional_array() if reader.remaining else None
        return cls(
            data_key,
            length,
            name,
            role,
            None if grant is None else Grant.decode(grant),
            policies,
            None if author is None else Authorship.decode(author),
        )


@dataclass(frozen=True, slots=True)
class Query:
    """Who has these, and how much of them? `known` is what the asker holds, id for id."""

    request_id: int
    ids: tuple[RawCoId, ...]
    known: tuple[Sessions | None, ...]
    wants_push: bool = False

    def encode(self) -> bytes:
        known = [None if sessions is None else dict(sessions) for sessions in self.known]
        return pack_fields(self.request_id, list(self.ids), known, self.wants_push)

    @classmethod
    def decode(cls, reader: FieldReader) -> Query:
        request_id = reader.uint()
        ids = reader.co_ids(MAX_QUERY_IDS)
        states = reader.array(MAX_QUERY_IDS)
        if states.remaining != len(ids):
            raise FieldError(f"{states.remaining} known states for {len(ids)} ids", 2)
        known = tuple(states.optional_sessions() for _ in ids)
        return cls(request_id, ids, known, reader.flag())


@dataclass(frozen=True, slots=True)
class Answer:
    """What the answerer holds at version `version` of its data core; None is nothing."""

    request_id: int
    version: int
    values: tuple[tuple[RawCoId, Sessions | None], ...]
    more: bool = False

    def encode(self) -> bytes:
        values: list[Field] = [
            [co_id, None if sessions is None else dict(sessions)] for co_id, sessions in self.values
        ]
        return pack_fields(self.request_id, self.version, values, self.more)

    @classmethod
    def decode(cls, reader: FieldReader) -> Answer:
        request_id, version = reader.uint(), reader.uint()
        items = reader.array()
        values = []
        for _ in range(items.remaining):
            entry = items.array()
            values.append((entry.co_id(), entry.optional_sessions()))
        return cls(request_id, version, tuple(values), reader.flag())


@dataclass(frozen=True, slots=True)
class Interest:
    """What the sender wants to be told of from now on.

    Ids are a difference to what was said before; everything else replaces it.
    """

    everything: bool = False
    added: tuple[RawCoId, ...] = ()
    removed: tuple[RawCoId, ...] = ()
    prefixes: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    @property
    def followed(self) -> frozenset[str]:
        """What it follows beside single ids, as rules have it.

        A full replica reads the log, and follows nothing more by `all`. A member with too many ids
        to name is told of everything, too, but does not read the log.
        """
        everything = (EVERYTHING,) if self.everything else ()
        prefixes = (f"{PREFIX}:{prefix}" for prefix in self.prefixes)
        return frozenset((*everything, *prefixes, *self.owners))

    def encode(self) -> bytes:
        return pack_fields(
            self.everything,
            list(self.added),
            list(self.removed),
            list(self.prefixes),
            list(self.owners),
        )

    @classmethod
    def decode(cls, reader: FieldReader) -> Interest:
        return cls(
            reader.flag(),
            reader.co_ids(MAX_INTEREST_IDS),
            reader.co_ids(MAX_INTEREST_IDS),
            reader.texts(MAX_PATTERNS, MAX_NAME),
            reader.texts(MAX_PATTERNS, MAX_NAME),
        )


@dataclass(frozen=True, slots=True)
class Update:
    """These values moved: their sessions' counts as of version `version` of the data core."""

    version: int
    changes: tuple[tuple[RawCoId, Sessions], ...]

    def encode(self) -> bytes:
        changes: list[Field] = [[co_id, dict(sessions)] for co_id, sessions in self.changes]
        return pack_fields(self.version, changes)

    @classmethod
    def decode(cls, reader: FieldReader) -> Update:
        version = reader.uint()
        items = reader.array(MAX_UPDATE_VALUES)
        changes = []
        for _ in range(items.remaining):
            entry = items.array()
            changes.append((entry.co_id(), entry.sessions()))
        return cls(version, tuple(changes))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two signed continuations of one history, as received: proof that its author forked it.

    `subject` names the session (`coID:CoSessionId`) or the core (its key in hexadecimal).
    """

    kind: EvidenceKind
    subject: str
    first: bytes
    second: bytes

    def encode(self) -> bytes:
        return pack_fields(int(self.kind), self.subject, self.first, self.second)

    @classmethod
    def decode(cls, reader: FieldReader) -> Evidence:
        kind = EvidenceKind(reader.uint(max(EvidenceKind)))
        subject = reader.text()
        return cls(kind, subject, reader.data(MAX_MESSAGE_BYTES), reader.data(MAX_MESSAGE_BYTES))


@dataclass(frozen=True, slots=True)
class Stored:
    """What of the receiver's values is durable at the sender: acknowledges updates and answers.

    `merged`: all of blocks [0, merged) of the receiver's data core are; 0 says nothing.
    None: the sender does not take that value, and will not hold it.
    """

    version: int
    merged: int = 0
    values: tuple[tuple[RawCoId, Sessions | None], ...] = ()

    def encode(self) -> bytes:
        values: list[Field] = [
            [co_id, None if sessions is None else dict(sessions)] for co_id, sessions in self.values
        ]
        return pack_fields(self.version, self.merged, values)

    @classmethod
    def decode(cls, reader: FieldReader) -> Stored:
        version, merged = reader.uint(), reader.uint()
        items = reader.array(MAX_UPDATE_VALUES)
        values = []
        for _ in range(items.remaining):
            entry = items.array()
            values.append((entry.co_id(), entry.optional_sessions()))
        return cls(version, merged, tuple(values))


@dataclass(frozen=True, slots=True)
class Listed:
    """All that was held of what the receiver's first `interests` interests follow was told."""

    version: int
    interests: int

    def encode(self) -> bytes:
        return pack_fields(self.version, self.interests)

    @classmethod
    def decode(cls, reader: FieldReader) -> Listed:
        return cls(reader.uint(), reader.uint())


Message: TypeAlias = (
    Hello
    | Welcome
    | Query
    | Answer
    | Interest
    | Update
    | Evidence
    | Stored
    | Listed
    | RunMessage
    | TrustMessage
    | HearsayMessage
)

_DECODERS: dict[MessageType, Callable[[FieldReader], Message]] = {
    MessageType.HELLO: Hello.decode,
    MessageType.WELCOME: Welcome.decode,
    MessageType.QUERY: Query.decode,
    MessageType.ANSWER: Answer.decode,
    MessageType.INTEREST: Interest.decode,
    MessageType.UPDATE: Update.decode,
    MessageType.EVIDENCE: Evidence.decode,
    MessageType.STORED: Stored.decode,
    MessageType.LISTED: Listed.decode,
    MessageType.HEAD: Head.decode,
    MessageType.RECORDS: Records.decode,
    MessageType.HELD: Held.decode,
    MessageType.FAREWELL: Farewell.decode,
    MessageType.KEPT: Kept.decode,
    MessageType.NEIGHBORS: Neighbors.decode,
    MessageType.BRIEF: Brief.decode,
    MessageType.UNCLEAR: Unclear.decode,
    MessageType.ALIVE: Alive.decode,
}

_TYPES: dict[type[Message], MessageType] = {
    Hello: MessageType.HELLO,
    Welcome: MessageType.WELCOME,
    Query: MessageType.QUERY,
    Answer: MessageType.ANSWER,
    Interest: MessageType.INTEREST,
    Update: MessageType.UPDATE,
    Evidence: MessageType.EVIDENCE,
    Stored: MessageType.STORED,
    Listed: MessageType.LISTED,
    Head: MessageType.HEAD,
    Records: MessageType.RECORDS,
    Held: MessageType.HELD,
    Farewell: MessageType.FAREWELL,
    Kept: MessageType.KEPT,
    Neighbors: MessageType.NEIGHBORS,
    Brief: MessageType.BRIEF,
    Unclear: MessageType.UNCLEAR,
    Alive: MessageType.ALIVE,
}


def message_type(message: Message) -> MessageType:
    return _TYPES[type(message)]


def decode_message(number: int, payload: bytes) -> Message | None:
    """The message, or None for a number of a later version.

    Raises: DecodeError for anything that is not the message it claims to be.
    """
    try:
        decode = _DECODERS[MessageType(number)]
    except ValueError:
        return None
    return decode(FieldReader.unpack(payload, MAX_MESSAGE_BYTES))


def says_nothing(message: Message) -> bool:
    """Whether a message of a member lists nothing."""
    match message:
        case Update(changes=items) | Brief(counts=items) | Unclear(names=items):
            return not items
        case Stored(merged=merged, values=values):
            return not (merged or values)
        case Neighbors(added, removed):
            return not (added or removed)
        case Kept(introductions):
            return not introductions
        case _:
            return False


def split_known(
    wanted: Sequence[tuple[RawCoId, Sessions | None]],
) -> Iterator[tuple[tuple[RawCoId, Sessions | None], ...]]:
    """Cut what is asked for into lists that each fit a query.

    Each id is in one of them, with as much of what is held as fits: an answer is about all of it.
    """
    asked: set[RawCoId] = set()
    for part in split_values(wanted, max_values=MAX_QUERY_IDS):
        fresh = tuple(item for item in part if item[0] not in asked)
        asked.update(co_id for co_id, _ in fresh)
        if fresh:
            yield fresh


def split_values(
    values: Iterable[tuple[RawCoId, Sessions | None]],
    target_bytes: int = TARGET_MESSAGE_BYTES,
    max_values: int = MAX_UPDATE_VALUES,
) -> Iterator[tuple[tuple[RawCoId, Sessions | None], ...]]:
    """Cut a list of values into lists that each fit a message; one at least.

    A value with more sessions than fit is spread over several entries of the same id.
    """
    part: list[tuple[RawCoId, Sessions | None]] = []
    size = 0
    for co_id, sessions in values:
        for piece, piece_bytes in _split_sessions(sessions, target_bytes):
            if part and (size + piece_bytes > target_bytes or len(part) >= max_values):
                yield tuple(part)
                part, size = [], 0
            part.append((co_id, piece))
            size += piece_bytes
    yield tuple(part)


def _split_sessions(
    sessions: Sessions | None, target_bytes: int
) -> Iterator[tuple[Sessions | None, int]]:
    """Pieces of one known state and the most bytes that each takes in a message."""
    if sessions is None:
        yield None, _ENTRY_BYTES
        return
    size = _ENTRY_BYTES + sum(len(session_id) + _SESSION_BYTES for session_id in sessions)
    if size <= target_bytes:
        yield sessions, size
        return
    piece: dict[CoSessionId, int] = {}
    size = _ENTRY_BYTES
    for session_id, count in sessions.items():
        entry_bytes = len(session_id) + _SESSION_BYTES
        if piece and size + entry_bytes > target_bytes:
            yield piece, size
            piece, size = {}, _ENTRY_BYTES
        piece[session_id] = count
        size += entry_bytes
    yield piece, size
