"""One remote node over one channel, as a machine: who it is, what was asked, what it wants.

    STRANGER --its hello proves the secret--> PROVED --its welcome, role judged--> MEMBER
        any of them --wrong proof, malformed or untimely message, a limit--> CLOSED

A stranger is told nothing but our own proof, which shows nothing to anybody who lacks the secret.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias, assert_never

from hypercore.encoding import DecodeError
from node.covalue.ids import RawCoId
from node.mesh.follow_rules import Owners
from node.mesh.hearsay_messages import Brief, HearsayMessage, Neighbors, Unclear
from node.mesh.mesh_key import hello_proof, is_hello_proof
from node.mesh.messages import (
    LISTED_VERSION,
    OLDEST_VERSION,
    TARGET_MESSAGE_BYTES,
    VERSION,
    Answer,
    Evidence,
    Hello,
    Interest,
    Listed,
    Message,
    MessageType,
    Query,
    Sessions,
    Stored,
    Update,
    Welcome,
    decode_message,
    message_type,
    says_nothing,
    split_known,
    split_values,
)
from node.mesh.outputs import (
    Admitted,
    AnsweredLate,
    AnswerReceived,
    Asked,
    Closed,
    Idle,
    Output,
    QueryEnded,
    QuerySent,
    Transmit,
    Turned,
    Unknown,
    WelcomeDue,
)
from node.mesh.replicas import Change, ReplicaPolicy, Selection, ToldInterest, TooManySelected
from node.mesh.run_messages import Alive, Head, RunMessage
from node.mesh.ticket import Grant, Role
from node.mesh.trust_messages import Farewell, Held, Kept, Records, TrustMessage

ADMISSION_SECONDS = 10.0

WRONG_SECRET = "it does not know the secret of this mesh"
"""Why a node of another mesh, or of none, is no member; it is a hypercore peer all the same."""
ANSWER_SECONDS = 1.0
"""An answer is waited for so long, and then for as long again while blocks and answers come."""

MAX_ANSWER_SECONDS = 4.0
"""After which it is not, whatever comes."""

MAX_OPEN_QUERIES = 64
"""Queries that either side may leave unanswered: 64,000 ids."""

MAX_UNREAD_BYTES = 32 << 20
"""Bytes of these, as they came; those of a node like this one are at most half as many."""

MAX_ANSWER_SESSIONS = 262_144
"""Counts in the answers to all open queries together (about 40 MB). Who has more to tell has values
that very many wrote to: the query is given up, and the rest is taken bit by bit."""


_MemberMessage: TypeAlias = (Answer | Interest | Update | Evidence | Stored | Listed) | (
    RunMessage | TrustMessage | HearsayMessage
)


class State(Enum):
    STRANGER = auto()
    PROVED = auto()
    MEMBER = auto()
    CLOSED = auto()


@dataclass(slots=True)
class _OpenQuery:
    ids: frozenset[RawCoId]
    sent_at: float
    deadline: float
    sessions: int = 0


class MeshSession:
    """`judge` says which role a grant gives to this remote; None shuts it out.

    `explain` makes what it is told then, if anything.
    """

    def __init__(
        self,
        mesh_key: bytes,
        *,
        is_initiator: bool,
        handshake_hash: bytes,
        judge: Callable[[Grant | None], Role | None],
        explain: Callable[[Grant | None], Farewell] | None = None,
        now: float,
        owners_of: Callable[[RawCoId], Owners | None] = lambda _: (),
    ) -> None:
        self._mesh_key = mesh_key
        self._is_initiator = is_initiator
        self.handshake_hash = handshake_hash
        self._judge = judge
        self._explain = explain
        self._state = State.STRANGER
        self._has_welcomed = False
        self._admission_deadline = now + ADMISSION_SECONDS
        self._next_request = 1
        self._asked: dict[int, _OpenQuery] = {}
        self._given_up: dict[int, frozenset[RawCoId]] = {}
        """Ids of queries whose answers are not waited for; the member still has them."""
        self._unread: deque[bytes] = deque()
        """Questions, in the order in which they came."""
        self._unread_bytes = 0
        self._to_answer: set[int] = set()
        self._told_interest = ToldInterest()
        self._says_listed = False
        self._listed = 0
        """How many of our interest messages it has told all about."""
        self.interests_heard = 0
        self._listed_told = 0
        self.selection = Selection(owners_of)
        self.announced_length = 0
        """Length of its data core, as it said with what moved there; 0 if nothing has."""
        self.last_round_trip_seconds: float | None = None
        self.queries_asked = 0
        self.answers_heard = 0
        self.queries_answered = 0
        self.values_answered = 0
        """Ids it asked for of which it was told that they are here."""

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_proved(self) -> bool:
        """Whether the remote has proved the secret; one that has not is not listened to."""
        return self._state in {State.PROVED, State.MEMBER}

    @property
    def can_ask(self) -> bool:
        unanswered = len(self._asked) + len(self._given_up)
        return self._state is State.MEMBER and unanswered < MAX_OPEN_QUERIES

    def open(self) -> list[Output]:
        """The channel is open: prove ourselves."""
        proof = hello_proof(self._mesh_key, self._is_initiator, self.handshake_hash)
        return [_transmit(Hello(VERSION, proof))]

    def welcome(self, welcome: Welcome) -> list[Output]:
        """Answer to `WelcomeDue`, at once or when the other has shown what it may do."""
        if self._has_welcomed or not self.is_proved:
            return []
        self._has_welcomed = True
        return [_transmit(welcome)]

    def tell(self, message: TrustMessage) -> list[Output]:
        """Say something about members to one that has proved the secret; nothing to strangers."""
        return [_transmit(message)] if self.is_proved else []

    def dismiss(self, farewell: Farewell) -> list[Output]:
        """The remote is shut out: say why, and close."""
        return [*self.tell(farewell), *self.close(farewell.reason)]

    def receive(self, number: int, payload: bytes, now: float) -> list[Output]:
        """One message of the channel. Whatever it holds, the answer is a list of outputs."""
        if self._state is State.CLOSED:
            return []
        if number == MessageType.QUERY and self._state is State.MEMBER:
            return self._receive_query(payload)
        try:
            message = decode_message(number, payload)
        except DecodeError as error:
            return self._close(_malformed(number, error))
        match message:
            case None:
                return [Unknown(len(payload))] if self.is_proved else []
            case Hello():
                return self._receive_hello(message)
            case Welcome():
                return self._receive_welcome(message)
            case Records() | Farewell() if self._state is State.PROVED:
                return self._hand_over(message)
        if self._state is not State.MEMBER:
            return self._close(f"message {number} before the welcome")
        assert not isinstance(message, Query)  # a member's are read later
        return self._receive_from_member(message, now)

    def _receive_from_member(self, message: _MemberMessage, now: float) -> list[Output]:
        match message:
            case Answer():
                return self._receive_answer(message, now)
            case Interest():
                return self._receive_interest(message)
            case Listed():
                return self._receive_listed(message)
            case (
                (Update() | Evidence() | Stored() | Head() | Alive())
                | (Records() | Held() | Farewell() | Kept())
                | (Neighbors() | Brief() | Unclear())
            ):
                self._note_length(message)
                heard = self._hand_over(message)
                return [Idle(), *heard] if says_nothing(message) else heard

    def _note_length(self, message: Message) -> None:
        if isinstance(message, Update | Brief | Listed):
            self.announced_length = max(message.version, self.announced_length)

    def ask(
        self,
        wanted: Sequence[tuple[RawCoId, Sessions | None]],
        now: float,
        patience_seconds: float = ANSWER_SECONDS,
        *,
        wants_push: bool = False,
    ) -> list[Output]:
        """Ask for values; each comes with what we hold of it, and is to be pushed if `wants_push`.

        Makes as many queries as it takes; ids beyond `MAX_OPEN_QUERIES` are not asked for.
        """
        outputs: list[Output] = []
        for part in split_known(wanted):
            if not part or not self.can_ask:
                break
            known: dict[RawCoId, Sessions | None] = dict(part)
            request_id, self._next_request = self._next_request, self._next_request + 1
            self._asked[request_id] = _OpenQuery(frozenset(known), now, now + patience_seconds)
            self.queries_asked += 1
            query = Query(request_id, tuple(known), tuple(known.values()), wants_push)
            outputs += [QuerySent(request_id, query.ids), _transmit(query)]
        return outputs

    def answer(
        self,
        request_id: int,
        version: int,
        values: Sequence[tuple[RawCoId, Sessions | None]],
        *,
        more: bool = False,
    ) -> list[Output]:
        """Answer a `Query`: what we hold of each id, at that version of our data core.

        There is `more` of the answer to come.
        """
        if self._state is not State.MEMBER or request_id not in self._to_answer:
            return []
        if not more:
            self._to_answer.discard(request_id)
            self.queries_answered += 1
        self.values_answered += sum(sessions is not None for _, sessions in values)
        parts = list(split_values(values))
        return [
            _transmit(Answer(request_id, version, part, more=more or number < len(parts)))
            for number, part in enumerate(parts, 1)
        ]

    def announce(self, version: int, changes: Mapping[RawCoId, Sessions]) -> list[Output]:
        """Tell the member which of the values that it wants to hear of moved, and how far."""
        if self._state is not State.MEMBER:
            return []
        picked = list(self.selection.pick(changes))
        if not picked:
            return []
        return [
            _transmit(Update(version, tuple((co_id, state or {}) for co_id, state in part)))
            for part in split_values(picked, TARGET_MESSAGE_BYTES)
        ]

    def tell_run(self, message: RunMessage) -> list[Output]:
        """Tell the member how long its own data core is here, or of runs with one key."""
        return [_transmit(message)] if self._state is State.MEMBER else []

    def mention(self, message: HearsayMessage) -> list[Output]:
        """Tell the member what it may have heard from others."""
        return [_transmit(message)] if self._state is State.MEMBER else []

    def testify(self, evidence: Evidence) -> list[Output]:
        """Pass evidence on."""
        return [_transmit(evidence)] if self._state is State.MEMBER else []

    def acknowledge(
        self, version: int, merged: int, values: Sequence[tuple[RawCoId, Sessions | None]]
    ) -> list[Output]:
        """Tell the member what of its own is durable here, as of that version of our data."""
        if self._state is not State.MEMBER:
            return []
        parts = split_values(values, TARGET_MESSAGE_BYTES)
        return [_transmit(Stored(version, merged, part)) for part in parts]

    def tell_interest(self, policy: ReplicaPolicy, wanted: Set[RawCoId]) -> list[Output]:
        """Bring the member's idea of what we want to hear of up to date."""
        if self._state is not State.MEMBER:
            return []
        return [_transmit(message) for message in self._told_interest.plan(policy, wanted)]

    def add_interest(self, ids: Iterable[RawCoId]) -> list[Output]:
        """We want to hear of these, too; said ahead of the next query."""
        if self._state is not State.MEMBER:
            return []
        return [_transmit(message) for message in self._told_interest.plan_more(ids)]

    def wants(self, co_id: RawCoId) -> bool:
        """Whether the member was told that we want to hear of this."""
        return self._told_interest.matches(co_id)

    @property
    def is_listed(self) -> bool:
        """Whether it has told all of what we follow; a node of version 1 is taken to have."""
        return not self._says_listed or self._listed >= self._told_interest.listing_due

    def tell_listed(self, listed: Listed) -> list[Output]:
        """Tell the member that this is all of what it follows, once."""
        if self._state is not State.MEMBER or not self._says_listed:
            return []
        if listed.interests <= self._listed_told:
            return []
        self._listed_told = listed.interests
        return [_transmit(listed)]

    @property
    def deadline(self) -> float | None:
        """When `advance` must be called at the latest."""
        match self._state:
            case State.STRANGER | State.PROVED:
                return self._admission_deadline
            case State.MEMBER if self._asked:
                return min(query.deadline for query in self._asked.values())
            case _:
                return None

    def advance(self, now: float, *, is_sending: bool = False) -> list[Output]:
        """Give up on what did not come, unless it `is_sending` what may lie before that."""
        if self._state in {State.STRANGER, State.PROVED}:
            return self._close("no welcome in time") if now >= self._admission_deadline else []
        if is_sending:
            for query in self._asked.values():
                later = min(now + ANSWER_SECONDS, query.sent_at + MAX_ANSWER_SECONDS)
                query.deadline = max(query.deadline, later)
        late = [number for number, query in self._asked.items() if now >= query.deadline]
        return [self._give_up(request_id) for request_id in late]

    def _give_up(self, request_id: int) -> QueryEnded:
        self._given_up[request_id] = self._asked.pop(request_id).ids
        return QueryEnded(request_id, is_answered=False)

    def close(self, reason: str = "channel closed", *, is_fault: bool = False) -> list[Output]:
        """The remote has gone, or we want no more of it: no question will be answered any more."""
        if self._state is State.CLOSED:
            return []
        return self._close(reason, is_fault=is_fault)

    def _receive_hello(self, hello: Hello) -> list[Output]:
        if self._state is not State.STRANGER:
            return self._close("a second hello")
        if hello.version < OLDEST_VERSION:
            return self._close(f"protocol version {hello.version}")
        if not is_hello_proof(
            hello.proof, self._mesh_key, not self._is_initiator, self.handshake_hash
        ):
            return self._close(WRONG_SECRET)
        self._state, self._says_listed = State.PROVED, hello.version >= LISTED_VERSION
        return [WelcomeDue()]

    def _receive_welcome(self, welcome: Welcome) -> list[Output]:
        if self._state is not State.PROVED:
            return self._close("an untimely welcome")
        role = self._judge(welcome.grant)
        if role is None and self._explain is not None:
            return self.dismiss(self._explain(welcome.grant))
        if role is None:
            return self._close("its grant is revoked, expired or not an admin's")
        self._state = State.MEMBER
        return [Admitted(welcome, role)]

    def _receive_query(self, payload: bytes) -> list[Output]:
        """Queue a question unread: one too many need not be read at all."""
        if len(self._unread) + len(self._to_answer) >= MAX_OPEN_QUERIES:
            return self._close(f"more than {MAX_OPEN_QUERIES} queries that wait for an answer")
        self._unread_bytes += len(payload)
        if self._unread_bytes > MAX_UNREAD_BYTES:
            return self._close(f"{self._unread_bytes} bytes of queries that wait for an answer")
        self._unread.append(payload)
        return [Asked()]

    def next_query(self) -> list[Output]:
        """Read the question that has waited longest; nothing when none waits."""
        if not self._unread:
            return []
        payload = self._unread.popleft()
        self._unread_bytes -= len(payload)
        try:
            query = decode_message(MessageType.QUERY, payload)
        except DecodeError as error:
            return self._close(_malformed(MessageType.QUERY, error))
        assert isinstance(query, Query)
        self._to_answer.add(query.request_id)
        return [query] if query.ids else [Idle(), query]

    def _receive_answer(self, answer: Answer, now: float) -> list[Output]:
        self.answers_heard += 1
        query = self._asked.get(answer.request_id)
        if query is None:
            return self._receive_late(answer)
        values = tuple(value for value in answer.values if value[0] in query.ids)
        query.sessions += sum(len(sessions or ()) for _co_id, sessions in values)
        if sum(other.sessions for other in self._asked.values()) > MAX_ANSWER_SESSIONS:
            return [self._give_up(answer.request_id), *self._receive_late(answer)]
        received = AnswerReceived(answer.request_id, answer.version, values)
        if answer.more:
            return [received]
        del self._asked[answer.request_id]
        self.last_round_trip_seconds = now - query.sent_at
        return [received, QueryEnded(answer.request_id, is_answered=True)]

    def _receive_late(self, answer: Answer) -> list[Output]:
        """An answer that nobody waits for: to a query that was given up, or never sent."""
        ids = self._given_up.get(answer.request_id, frozenset())
        if not answer.more:
            self._given_up.pop(answer.request_id, None)
        values = tuple(value for value in answer.values if value[0] in ids)
        return [AnsweredLate(answer.version, values)] if values else [Idle()]

    def _hand_over(
        self, message: Update | Evidence | Stored | RunMessage | TrustMessage | HearsayMessage
    ) -> list[Output]:
        """Pass a message on as it is; after a farewell, its last one, the other side hangs up."""
        if isinstance(message, Farewell):
            return [message, *self.close(f"it said farewell: {message.reason}")]
        return [message]

    def _receive_listed(self, listed: Listed) -> list[Output]:
        if not self._listed < listed.interests <= self._told_interest.messages:
            return [Idle()]
        self._listed = listed.interests
        self._note_length(listed)
        return [listed]

    def _receive_interest(self, interest: Interest) -> list[Output]:
        self.interests_heard += 1
        try:
            change = self.selection.apply(interest)
        except TooManySelected:
            return self._close("too many ids selected one by one")
        match change:
            case Change.NOTHING:
                return [Idle()]
            case Change.IDS:
                return [interest]
            case Change.RULES:
                return [Turned(), interest]
            case _:
                assert_never(change)

    def _close(self, reason: str, *, is_fault: bool | None = None) -> list[Output]:
        """By default a member is at fault; a stranger may be of another mesh, or older."""
        if is_fault is None:
            is_fault = self._state is State.MEMBER
        self._state = State.CLOSED
        ended: list[Output] = [
            QueryEnded(request_id, is_answered=False) for request_id in self._asked
        ]
        self._asked.clear()
        self._to_answer.clear()
        self._unread.clear()
        return [*ended, Closed(reason, is_fault)]


def _malformed(number: int, error: DecodeError) -> str:
    return f"malformed message {number}: {error}"


def _transmit(message: Message) -> Transmit:
    return Transmit(message_type(message), message.encode())
