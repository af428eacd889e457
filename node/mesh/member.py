"""One remote node on its channel: what it says, and what it is asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

import trio

from hypercore.core import Core
from hypercore.replication.channel import MessageChannel
from node.covalue.ids import RawCoId
from node.mesh.acknowledgements import Acknowledgements
from node.mesh.conduct import Conduct
from node.mesh.exchange import Traffic
from node.mesh.hearsay import Hearsay
from node.mesh.hearsay_messages import Brief, HearsayMessage, Neighbors, Unclear
from node.mesh.inquiry import Inquiry
from node.mesh.ledger import Ledger
from node.mesh.listing import Listing
from node.mesh.member_data import Cause, MemberData
from node.mesh.member_statistics import MemberStatistics
from node.mesh.messages import (
    Evidence,
    Interest,
    Listed,
    Query,
    Sessions,
    Stored,
    Update,
    Welcome,
)
from node.mesh.outbox import MemberOutbox
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
from node.mesh.peer_rules import Direction
from node.mesh.run_messages import Alive, Head, RunMessage
from node.mesh.session import ANSWER_SECONDS, MeshSession
from node.mesh.ticket import Role
from node.mesh.trust_messages import (
    Farewell,
    Held,
    Introduction,
    Kept,
    Records,
    TrustMessage,
)
from swarm.io.tasks import Wakeup

MAX_INTRODUCTIONS = 2048
"""Members whose cores one member may offer (about 1 MB)."""


class Gossip:
    """What a member says about members."""

    def __init__(self) -> None:
        self.summary: bytes | None = None
        """Summary of the records in force there; None from an older version."""
        self.introductions: deque[Introduction] = deque()
        """Those of itself and of members whose cores it keeps, which are to be looked at."""
        self.arrived = Wakeup()
        self.is_told = False
        """Whether it was sent the records that it lacked when it came."""
        self.introduced_with: Ledger | None = None
        """The records that our introduction to it was made from; None once it is a member."""
        self.is_heard = False
        """Whether it has said whose cores it keeps, and that was looked at."""


class MemberListener(Protocol):
    """What hears what a member says: the mesh."""

    def introduction(self, member: Member, /) -> Sequence[TrustMessage]:
        """What it is told before our welcome, which then waits for its welcome; may be empty."""
        ...

    def welcome(self, member: Member, /) -> Welcome:
        """What it may know of us: it has proved the secret."""
        ...

    def due(self, member: Member, /) -> Direction:
        """What is exchanged with it, now that its welcome is here."""
        ...

    def receive_claims(
        self, member: Member, version: int, claims: Sequence[tuple[RawCoId, Sessions]], /
    ) -> None:
        """It holds this much of values that we want, at that version of its data."""
        ...

    def receive_interest(self, member: Member, interest: Interest, /) -> None:
        """From now on it is told of these; `session.selection` has them already."""
        ...

    def receive_evidence(self, member: Member, evidence: Evidence, /) -> None: ...
    def receive_trust(self, member: Member, message: TrustMessage, /) -> None: ...
    def receive_hearsay(self, member: Member, message: HearsayMessage, /) -> None: ...

    def receive_run(self, member: Member, message: RunMessage, /) -> None:
        """How long our own data core is there, or which runs with our key, or its own, it knows."""
        ...

    def receive_listed(self, member: Member, /) -> None:
        """It has told all of what we follow, up to some interest."""
        ...

    def receive_holdings(
        self, member: Member, holdings: Sequence[tuple[RawCoId, Sessions | None]], /
    ) -> None:
        """So much of these is durable there; None: nothing is."""
        ...


class Member:
    """The remote node; it is a member of the mesh once `welcome` is set.

    Its methods are sync and carry out what the session wants at once; `serve.py` has the
    tasks that wait.
    """

    traffic: Traffic | None = None
    """The traffic of its connection, where that is known."""

    core: Core | None = None
    """Its data core while that is open, whether or not it can be read here."""
    is_author = True
    """Whether it is believed to write that one: it may have said so of somebody else's."""

    times_asked_anew = 0
    """A comparison during which this moved was not with what is wanted now."""

    def __init__(
        self, id: bytes, channel: MessageChannel, session: MeshSession, listener: MemberListener
    ) -> None:
        self.id = id
        self.session = session
        self.since_unix_seconds = time.time()
        self.data: MemberData | None = None
        self.welcome: Welcome | None = None
        self.gossip = Gossip()
        """What it said about members."""
        self.close_reason: str | None = None
        self.query_arrived = Wakeup()
        """There is something for `next_query`."""
        self.deadline_moved = Wakeup()
        self.state_changed = Wakeup()
        """It was admitted, or is to be closed."""
        self.needs_catching_up = Wakeup()
        self.policy_changed = Wakeup()
        """With `needs_catching_up`: it is to be asked for something else, at once."""
        self.direction = Direction.BOTH
        """What is exchanged with it while it is connected, from its welcome on: it may say what it
        wants to hear of before it is in the table."""
        self.heard_listed = Wakeup()
        self.listing = Listing()
        """Values that it wants to be told of, whether they move or not."""
        self.refused = 0
        """Values whose content did not verify."""
        self.failures = 0
        """Reads of its data that failed."""
        self.conduct = Conduct(trio.current_time())
        self.stopwatch: Callable[[], float] = time.perf_counter
        """Measures what is done for it, in seconds."""
        self.has_shown_values = False
        """Whether it held anything that it was asked for."""
        self.is_frozen = False
        """Whether its data core is forked: nothing is asked of it."""
        self.acknowledgements = Acknowledgements()
        self.hearsay = Hearsay()
        self.outbox = MemberOutbox(
            channel, session, self.acknowledgements, self.hearsay, lambda: self.may_read
        )
        self._channel = channel
        self._listener = listener
        self._role: Role | None = None
        self._inquiries: dict[int, Inquiry] = {}
        self._updates_received = 0

    def carry_out(self, outputs: Sequence[Output]) -> None:
        """Do what the session wants done, in that order."""
        for output in outputs:
            match output:
                case Transmit(number, payload):
                    self._channel.send(number, payload)
                case WelcomeDue():
                    self._introduce_ourselves()
                case Admitted(welcome, role):
                    self.welcome, self._role = welcome, role
                    self.direction = self._listener.due(self)
                    self.send_welcome()
                    self.state_changed.set()
                case AnswerReceived() | AnsweredLate():
                    self._receive_answer(output)
                case QueryEnded(request_id, is_answered):
                    self._inquiries.pop(request_id).query_ended(is_answered=is_answered)
                case Asked():
                    self.query_arrived.set()
                case (
                    Update()
                    | Interest()
                    | Evidence()
                    | (Stored() | Listed())
                    | Head()
                    | Alive()
                    | (Records() | Held() | Farewell() | Kept())
                    | (Neighbors() | Brief() | Unclear())
                ):
                    self._hear(output)
                case QuerySent() | Query():
                    pass  # `ask` and `next_query` look at these
                case Unknown() | Idle() | Turned():
                    self._note_manners(output)
                case Closed(reason, is_fault):
                    self.close_reason = reason
                    self.conduct.end(reason if is_fault else None)
                    self.state_changed.set()
                case _:
                    assert_never(output)

    def _note_manners(self, output: Unknown | Idle | Turned) -> None:
        match output:
            case Unknown(size):
                self.conduct.note_unknown(size, trio.current_time())
            case Idle():
                self.conduct.note_idle(trio.current_time())
            case Turned():
                self.conduct.note_turn(trio.current_time())

    def next_query(self) -> Query | None:
        """The question that is to be answered next; None when none waits, or it makes no sense."""
        outputs = self.session.next_query()
        self.carry_out(outputs)
        for output in outputs:
            if isinstance(output, Query):
                self.note_holdings(list(zip(output.ids, output.known, strict=True)))
                return output
        return None

    def _introduce_ourselves(self) -> None:
        introduction = self._listener.introduction(self)
        for message in introduction:
            self.carry_out(self.session.tell(message))
        if not introduction:
            self.send_welcome()

    def send_welcome(self) -> None:
        """Tell it what a member may know of us, if it was not told."""
        self.carry_out(self.session.welcome(self._listener.welcome(self)))

    def _hear(
        self,
        message: (
            (Update | Interest | Evidence | Stored | Listed)
            | (RunMessage | TrustMessage | HearsayMessage)
        ),
    ) -> None:
        match message:
            case Update():
                self._receive_update(message)
            case Interest():
                if message.removed or self.acknowledgements.hears_everything:
                    self.acknowledgements.keep(self.session.selection.matches)
                self.acknowledgements.hears_everything = message.everything
                self._listener.receive_interest(self, message)
            case Evidence():
                self._listener.receive_evidence(self, message)
            case Head() | Alive():
                self._listener.receive_run(self, message)
            case Listed():
                self.heard_listed.set()
                self._listener.receive_listed(self)
            case Stored(_, merged, values):
                self._receive_stored(merged, values)
            case Records() | Held() | Farewell() | Kept():
                self._hear_of_members(message)
            case Neighbors() | Brief() | Unclear():
                if isinstance(message, Unclear):
                    self._note_reply(len(message.names))
                elif isinstance(message, Neighbors):
                    words = len(message.added) + len(message.removed)
                    self.conduct.note_gossip(words, trio.current_time())
                self._listener.receive_hearsay(self, message)

    def _receive_update(self, update: Update) -> None:
        self._updates_received += 1
        changes, wants = update.changes, self.session.wants
        self.note_holdings(changes)
        wanted = [item for item in changes if wants(item[0])] if self.may_write else []
        if len(wanted) < len(changes):
            self.conduct.note_unwanted(len(changes) - len(wanted), trio.current_time())
        self._listener.receive_claims(self, update.version, wanted)

    def _hear_of_members(self, message: TrustMessage) -> None:
        gossip, words = self.gossip, 1
        match message:
            case Records():
                words += len(message.records)
            case Kept(introductions):
                words += len(introductions)
                gossip.introductions.extend(introductions)
                gossip.arrived.set()
                if len(gossip.introductions) > MAX_INTRODUCTIONS:
                    self.carry_out(self.session.close("too many introductions"))
            case Held() | Farewell():
                pass
        self.conduct.note_gossip(words, trio.current_time())
        self._listener.receive_trust(self, message)

    def _receive_stored(
        self, merged: int, values: Sequence[tuple[RawCoId, Sessions | None]]
    ) -> None:
        acknowledgements = self.acknowledgements
        acknowledgements.is_spoken = True
        self._note_reply(1 + len(values))
        acknowledgements.merged_there = max(acknowledgements.merged_there, merged)
        for co_id, sessions in values:
            if sessions is None:
                acknowledgements.decline(co_id)
        self.note_holdings(values)

    def _note_reply(self, values: int) -> None:
        """It replied about so many values; only a member that was told of them has to."""
        told = self.outbox.values_told + self.session.values_answered
        # A full replica finds what was there before in our log, each in a block or more.
        self.conduct.note_reply(values, told + self.acknowledgements.told_length)

    def expel(self, fault: str) -> None:
        """It did what no member may: it goes, and does not come back at once."""
        self.carry_out(self.session.close(fault, is_fault=True))

    def read_failed(self, asked_at: float, cause: Cause) -> None:
        """A read of its log that began then failed: it is done again, unless the member goes."""
        heard_at = trio.current_time() if self.traffic is None else self.traffic.answering_at()
        self.conduct.note_failure(cause, asked_at, heard_at)
        self.compare_again()
        self.judge()

    def judge(self) -> None:
        """Look at what it did lately, and expel it if that is too much."""
        fault = self.conduct.fault()
        if fault is not None and self.close_reason is None:
            self.expel(fault)

    def note_holdings(self, holdings: Sequence[tuple[RawCoId, Sessions | None]]) -> None:
        """It said, in whatever message, that so much of these is durable there."""
        note = self.acknowledgements.note
        stated = [(co_id, note(co_id, sessions)) for co_id, sessions in holdings]
        self._listener.receive_holdings(self, stated)

    def answered(self, values: Sequence[tuple[RawCoId, Sessions | None]]) -> None:
        """It was answered this: it is to acknowledge what it lacks of the values that it wants."""
        for co_id, sessions in values:
            if sessions is not None and self.session.selection.matches(co_id):
                self.acknowledgements.told(co_id, sessions)

    def owe(self, co_id: RawCoId, sessions: Sessions | None) -> None:
        """Tell it, soon, that so much of what it announced is durable here; None: not taken."""
        self.acknowledgements.owe(co_id, sessions)
        self._channel.wake_source()

    def owe_merged(self, length: int) -> None:
        """Tell it that blocks [0, length) of its data core are merged here."""
        self.acknowledgements.owe_merged(length)
        self._channel.wake_source()

    @property
    def role(self) -> Role | None:
        """What it may do; None before it was admitted."""
        return self._role

    @property
    def is_expelled(self) -> bool:
        """Whether it goes, or went, for what it did."""
        return self.conduct.ended_for is not None

    @property
    def may_write(self) -> bool:
        """Whether what it holds is taken: else it is asked for nothing, and not heard."""
        return self._role is not None and self._role.may_write

    @property
    def may_read(self) -> bool:
        """Whether it is told of values, in answers and updates."""
        return self._role is not None and self._role is not Role.BLIND

    def change_role(self, role: Role) -> None:
        """An admin granted it something else."""
        if role is not self._role:
            self._role = role
            self.ask_anew()

    def ask_anew(self) -> None:
        """Have it asked at once: for something else, or as something else than before."""
        self.compare_again()
        self.policy_changed.set()

    def compare_again(self) -> None:
        """Have it asked once more, when what it announced is here: there is more."""
        self.acknowledgements.is_compared = False
        self.times_asked_anew += 1
        self.needs_catching_up.set()

    @property
    def blocks_fetched(self) -> int:
        """Of its data core, on whatever connection."""
        return 0 if self.data is None else self.data.blocks_fetched

    @property
    def open_inquiries(self) -> frozenset[Inquiry]:
        """Questions that it has not answered yet."""
        return frozenset(self._inquiries.values())

    def ask(
        self,
        inquiry: Inquiry,
        patience_seconds: float = ANSWER_SECONDS,
        *,
        wants_push: bool = False,
        counts_copies: bool = False,
    ) -> int:
        """Put the question; returns in how many queries, each of which the inquiry sees end.

        With `wants_push` the member is to send the blocks of what it has along.

        A member that may not write gets none: what it has is not taken. But where the inquiry
        `counts_copies`, a copy is a copy, whoever keeps it.
        """
        is_of_use = self.may_write or (counts_copies and self.may_read)
        if self.is_frozen or not is_of_use:
            return 0
        wants_push = wants_push and self.data is not None and self.data.expect_pushes(self.id)
        outputs = self.session.ask(
            list(inquiry.wanted.items()),
            trio.current_time(),
            patience_seconds,
            wants_push=wants_push,
        )
        sent = [output.request_id for output in outputs if isinstance(output, QuerySent)]
        self._inquiries.update((request_id, inquiry) for request_id in sent)
        self.carry_out(outputs)
        self.deadline_moved.set()
        return len(sent)

    def _receive_answer(self, answer: AnswerReceived | AnsweredLate) -> None:
        self.conduct.note_true(len(answer.values), trio.current_time())
        self.has_shown_values |= any(sessions is not None for _, sessions in answer.values)
        self.note_holdings(answer.values)
        values = answer.values if self.may_write else ()
        late: Sequence[tuple[RawCoId, Sessions]]
        if isinstance(answer, AnswerReceived):
            late = self._inquiries[answer.request_id].receive(self.id, answer.version, values)
        else:
            wants = self.session.wants
            late = [(co_id, held) for co_id, held in values if held is not None and wants(co_id)]
        if late:
            self._listener.receive_claims(self, answer.version, late)

    def freeze(self) -> None:
        """Its writer signed two histories: from now on nothing is read from it, or asked."""
        self.is_frozen = True
        self.data = None

    def statistics(self) -> MemberStatistics:
        welcome, data, session = self.welcome, self.data, self.session
        fetched = None if self.core is None else self.core.replication.totals()
        return MemberStatistics(
            id=self.id,
            key=b"" if welcome is None else welcome.data_key,
            name="" if welcome is None else welcome.name,
            role="" if self._role is None else self._role.value,
            policies=() if welcome is None else welcome.policies,
            since_unix_seconds=self.since_unix_seconds,
            length=0 if data is None else data.length,
            blocks_fetched=0 if fetched is None else fetched.blocks_received,
            bytes_fetched=0 if fetched is None else fetched.bytes_received,
            refused=self.refused,
            failures=self.failures,
            queries_asked=session.queries_asked,
            queries_answered=session.queries_answered,
            updates_received=self._updates_received,
            updates_sent=self.outbox.updates_sent,
            round_trip_seconds=session.last_round_trip_seconds,
        )
