"""The sync engine: what is said to which client, what is stored, what is asked of the mesh.

A pure machine. It keeps verified state only (headers, counts, running hashes), never
transactions: content goes to the store as it comes and is read from there when a client can
take it. A content message's way:

    receive -> dependencies here? -> parts verified -> Store(append, ticket)
    stored(ticket) -> Known to the sender, Serve to whoever lacks it, Changed to the node

Nothing is acknowledged, announced or offered before `stored`. What does not verify is dropped
and leaves nothing that could hinder the genuine content; the originals turn away from the
sender instead.

Source: cojson 0.20.19 sync.ts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import assert_never

from node.cojson.asking import Asking
from node.cojson.claims import Claims
from node.cojson.commits import Commits
from node.cojson.crypto import RunningHash
from node.cojson.engine_state import EngineState
from node.cojson.foresight import Extensions, Foresight
from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Gatekeeper, Origin
from node.cojson.hazardous_values import HazardousValues
from node.cojson.intake import Intake
from node.cojson.messages import (
    ControlMessage,
    Done,
    Known,
    Load,
    Message,
    NoSuchId,
    Reconcile,
    ReconcileAck,
)
from node.cojson.offers import Offers
from node.cojson.outputs import After, EndPeer, Output, Pull, ReadGroup, Send
from node.cojson.peer_view import MAX_CLIENT_BYTES, PeerView, ValueView
from node.cojson.reconcile import compare_value, open_batch, tick_batches
from node.cojson.rights import Rights
from node.cojson.value_table import MEMORY_BYTES, Phase
from node.cojson.waiting_room import Delivery
from node.covalue.content import Content
from node.covalue.dependencies import part_dependencies
from node.covalue.group_view import GroupView
from node.covalue.header import GROUP_PRIORITY, VALUE_PRIORITY
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, SessionCounts
from node.covalue.store import StoredValue


class SyncEngine:
    """Serves clients from verified state. See `outputs.py` for what it asks for."""

    def __init__(
        self,
        *,
        memory_bytes: int = MEMORY_BYTES,
        client_bytes: int = MAX_CLIENT_BYTES,
        enforces_writes: bool = False,
        access: Gatekeeper | None = None,
    ) -> None:
        """`enforces_writes` refuses what its author had no right to write, as groups say."""
        self._state = EngineState(memory_bytes, client_bytes, access)
        self._claims = Claims(self._state)
        self._offers = Offers(self._state, self._claims)
        self._rights = Rights(self._state, self._claims, enforces_writes=enforces_writes)
        self._asking = Asking(self._state)
        self._intake = Intake(self._state, self._rights, self._asking, self._offers)
        self._commits = Commits(self._state, self._rights, self._intake, self._offers)
        self._peers: dict[str, PeerView] = {}
        self.cut_streams = self._state.cut_streams
        """What was promised to clients that left before they had it."""

    @property
    def has_mesh(self) -> bool:
        """Whether `Find` has somebody to ask; else unknown ids are answered at once."""
        return self._state.has_mesh

    @has_mesh.setter
    def has_mesh(self, has_mesh: bool) -> None:
        self._state.has_mesh = has_mesh

    @property
    def refused(self) -> int:
        """Messages of which nothing was taken."""
        return self._state.refused

    @property
    def interest_version(self) -> int:
        """Grows whenever the set of wanted ids changes."""
        return self._state.interest_version

    # What the shell asks.

    @property
    def hazardous(self) -> HazardousValues:
        return self._state.hazardous

    @property
    def values_in_memory(self) -> int:
        return len(self._state.values)

    @property
    def state_bytes(self) -> int:
        """Beyond the budget only by what is in use."""
        return self._state.values.used_bytes

    @property
    def subscribed_ids(self) -> frozenset[RawCoId]:
        return frozenset(self._state.subscribers)

    @property
    def wanted_ids(self) -> frozenset[RawCoId]:
        """What clients are subscribed to, and what their content waits for."""
        return self.subscribed_ids.union(self._state.awaited)

    def is_subscribed(self, co_id: RawCoId) -> bool:
        return co_id in self._state.subscribers

    def is_wanted(self, co_id: RawCoId) -> bool:
        return self.is_subscribed(co_id) or co_id in self._state.awaited

    def durable_state(self, co_id: RawCoId) -> KnownState | None:
        """What is stored of a value in memory; None when the store has to be asked."""
        entry = self._state.values.peek(co_id)
        return None if entry is None or entry.phase is Phase.LOADING else entry.durable

    def claimed_by(self, peer_id: str, co_id: RawCoId) -> KnownState:
        """What a client has of a value, as far as it has said so."""
        peer = self._peers.get(peer_id)
        view = None if peer is None else peer.values.get(co_id)
        return NOTHING if view is None else view.real

    def priority(self, co_id: RawCoId) -> int:
        """The queue of a client in which a value in memory waits."""
        entry = self._state.values.peek(co_id)
        return VALUE_PRIORITY if entry is None or entry.header is None else entry.header.priority

    def unsettled_bytes(self, peer_id: str) -> int:
        """What this client sent that is on its way to or from the disk: stop reading if much is."""
        peer = self._peers.get(peer_id)
        return 0 if peer is None else peer.unsettled_bytes

    # Clients come and go.

    def add_peer(self, peer_id: str, origin: Origin = UNKNOWN_ORIGIN) -> None:
        if peer_id in self._peers:
            raise ValueError(f"peer {peer_id} is here already")
        self._peers[peer_id] = PeerView(peer_id, origin, self._state.clients)

    def remove_peer(self, peer_id: str) -> None:
        peer = self._peers.pop(peer_id)
        self._claims.forget(peer)
        self._asking.forget(peer)
        self._state.remove(peer)

    def has_claims(self, peer_id: str) -> bool:
        """Whether this client may have more than is here: listen to it, a `while` at a time."""
        peer = self._peers[peer_id]
        return bool(peer.claims or peer.just_asked)

    def listened(self, peer_id: str, *, is_quiet: bool) -> list[Output]:
        """A while of some seconds has passed, in which a quiet client had nearly nothing to say."""
        out: list[Output] = []
        self._claims.listened(self._peers[peer_id], is_quiet, out)
        self._state.values.trim()
        return out

    # Time passes: values that are not used for a whole round are forgotten.

    def begin_round(self) -> None:
        """To be called at even intervals."""
        self._state.values.begin_round()

    def forget_unused(self, max_values: int) -> bool:
        """Forget values that were used neither in this round nor the one before.

        At most `max_values` are looked at; True when there may be more.
        """
        return self._state.values.forget_unused(max_values)

    def ask_again(self) -> list[Output]:
        """To be called at even intervals: ask for what was put off."""
        out: list[Output] = []
        self._asking.begin_round(out)
        return out

    # What clients and members send.

    def receive(self, peer_id: str, message: Message) -> list[Output]:
        return self.receive_many(peer_id, (message,))

    def foresight(self, peer_id: str | None = None, is_large: bool = False) -> Foresight | None:
        """Finds the signatures that content will be judged by; looking changes nothing.

        None for a client whose last content was refused: more may be refused unread. What is large
        must not be judged in one go, whoever sends it.
        """
        peer = None if peer_id is None else self._peers[peer_id]
        if peer is not None and peer.is_doubted and not is_large:
            return None
        origin = None if peer is None else peer.origin
        return Foresight(self._state.values, self._state.admission, origin)

    def receive_many(
        self, peer_id: str, messages: Iterable[Message], foreseen: Sequence[Extensions] = ()
    ) -> list[Output]:
        """What came together: as `receive` for each, looking at the limits once.

        `foreseen` has one item for each message, or is empty.
        """
        out: list[Output] = []
        peer = self._peers[peer_id]
        for index, message in enumerate(messages):
            if isinstance(message, Content):
                extensions = foreseen[index] if foreseen else None
                delivery = Delivery(message, peer, None, message.size, foreseen=extensions)
                self._intake.accept(delivery, out)
            else:
                self._take(peer, message, out)
        if peer.is_over_limit():
            out.append(EndPeer(peer_id, "too many subscriptions"))
        elif self._state.clients.is_exceeded:
            largest = max(self._peers.values(), key=attrgetter("size"))
            out.append(EndPeer(largest.peer_id, "too many subscriptions of all clients together"))
        self._state.values.trim()
        return out

    def _take(self, peer: PeerView, message: ControlMessage, out: list[Output]) -> None:
        match message:
            case Load(co_id, known):
                self._offers.load(peer, co_id, known, out)
            case NoSuchId():
                out.append(Send(peer.peer_id, message))
            case Known(co_id, known, is_correction):
                self._receive_known(peer, co_id, known, is_correction, out)
            case Reconcile(batch_id, values):
                self._reconcile(peer, batch_id, values, out)
            case Done() | ReconcileAck():
                pass
            case _:
                assert_never(message)

    def receive_content(
        self, content: Content, receipt: int, foreseen: Extensions | None = None
    ) -> list[Output]:
        """Content from the mesh; `Settled(receipt, ...)` tells what became of it."""
        out: list[Output] = []
        delivery = Delivery(content, None, receipt, content.size, foreseen=foreseen)
        self._intake.accept(delivery, out)
        self._state.values.trim()
        return out

    # What the shell answers.

    def loaded(self, co_id: RawCoId, stored: StoredValue | None) -> list[Output]:
        """The answer to `LoadValue`."""
        out: list[Output] = []
        entry = self._state.values.peek(co_id)
        if entry is None or entry.phase is not Phase.LOADING:
            return out
        if stored is None:
            entry.phase = Phase.ABSENT
            self._intake.is_absent(co_id, out)
        else:
            entry.hold(stored)
            self._state.hazardous.note_stored(co_id, stored.header)
            self._state.values.resize(entry)
            self._state.arrived.append(co_id)
        self._state.resume(entry, out)
        self._intake.release_arrived(out)
        self._state.values.trim()
        return out

    def go_on(self) -> list[Output]:
        """The answer to `GoOn`."""
        out: list[Output] = []
        self._offers.go_on(out)
        self._state.values.trim()
        return out

    def load_failed(self, co_id: RawCoId) -> list[Output]:
        """What is stored of a value is damaged: refuse what waits for it, then forget it.

        A later question asks the disk again.
        """
        out: list[Output] = []
        entry = self._state.values.peek(co_id)
        if entry is not None and entry.is_busy:
            entry.phase = Phase.DAMAGED
            entry.rehashing.clear()
            self._intake.is_damaged(co_id, out)
            self._state.resume(entry, out)
        return out

    def rehashed(
        self, co_id: RawCoId, session_id: CoSessionId, count: int, running: RunningHash
    ) -> list[Output]:
        """The answer to `Rehash`."""
        out: list[Output] = []
        entry = self._state.values.peek(co_id)
        if entry is None or entry.rehashing.get(session_id) != count:
            return out  # asked before the value was read again
        del entry.rehashing[session_id]
        entry.rehash(session_id, running)
        self._state.values.resize(entry)
        self._state.resume(entry, out)
        self._intake.release_arrived(out)
        self._state.values.trim()
        return out

    def group_read(self, co_id: RawCoId, group: GroupView | None) -> list[Output]:
        """The answer to `ReadGroup`; None when there is no such group, or it is damaged."""
        out: list[Output] = []
        for entry in self._rights.group_read(co_id, group, out):
            self._state.resume(entry, out)
        self._intake.release_arrived(out)
        self._state.values.trim()
        return out

    def judging(self, co_id: RawCoId) -> Iterator[ReadGroup | None]:
        """How to carry out `JudgeGroup`: None after some work; to be read before the next step."""
        return self._rights.judging(co_id)

    def group_judged(self, co_id: RawCoId) -> list[Output]:
        """The answer to `JudgeGroup`."""
        out: list[Output] = []
        for entry in self._rights.group_judged(co_id):
            self._state.resume(entry, out)
        self._intake.release_arrived(out)
        self._state.values.trim()
        return out

    def fork_unproven(self, peer_id: str, co_id: RawCoId, session_id: CoSessionId) -> list[Output]:
        """The answer to `CheckFork` when more of the session is needed to tell.

        The client is asked, once, for the whole session: two continuations are proven from
        where they part.
        """
        peer = self._peers.get(peer_id)
        entry = self._state.values.peek(co_id)
        if peer is None or entry is None or not peer.suspect(co_id, session_id):
            return []
        sessions = {key: n for key, n in entry.durable.sessions.items() if key != session_id}
        return [Send(peer_id, Known(co_id, KnownState(True, sessions), True))]

    def stored(self, tickets: Sequence[int]) -> list[Output]:
        """These commits are durable: acknowledge, offer and announce them."""
        out: list[Output] = []
        self._commits.stored(tickets, out)
        self._intake.release_arrived(out)
        self._state.values.trim()
        return out

    def not_stored(self, tickets: Iterable[int]) -> list[Output]:
        """These commits met damage: refuse what was in them. No later ones of their values are out.

        A later question asks the disk again.
        """
        out: list[Output] = []
        self._commits.not_stored(tickets, out)
        self._intake.release_arrived(out)
        return out

    def searched(self, co_ids: Iterable[RawCoId]) -> list[Output]:
        """The mesh was asked, and what it had was handed in: the rest of these is nowhere."""
        out: list[Output] = []
        pending = list(co_ids)
        while pending:
            co_id = pending.pop()
            if co_id not in self._state.searching or self._is_dependency_looked_for(co_id):
                continue  # found, or its answer is still a dependency's to give
            searchers = self._state.searching.pop(co_id)
            entry = self._state.values.peek(co_id)
            if entry is not None and entry.phase is Phase.HELD:
                continue
            for peer in searchers:
                self._offers.say_absent(peer, co_id, out)
            self._intake.value_is_nowhere(co_id, out)
            pending.extend(self._state.room.dependants(co_id))
        return out

    def _is_dependency_looked_for(self, co_id: RawCoId) -> bool:
        """Whether content of this value is here and may be completed yet."""
        for dependency in self._state.room.all_awaited_by(co_id):
            entry = self._state.values.peek(dependency)
            is_loading = entry is not None and entry.phase is Phase.LOADING
            if is_loading or dependency in self._state.searching:
                return True
        return False

    # What the shell pulls when a client can take more.

    def next_for(self, peer_id: str, co_id: RawCoId) -> Pull | After | Known | None:
        """After `Serve`: which pieces to read for this client, or what to say instead."""
        peer = self._peers[peer_id]
        view = peer.values.get(co_id)
        if view is None:
            return None
        entry = self._state.values.use(co_id)
        if entry is None or entry.phase is Phase.LOADING:
            return Pull(view.optimistic, None)
        if view.lacks(entry.durable):
            is_group = entry.header is not None and entry.header.is_group
            if is_group and (late := self._let_pass(peer, view, entry.dependencies)):
                return late
            is_screened = self._state.hazardous.are_among(entry.dependencies.keys())
            return Pull(view.optimistic, entry.durable, is_screened)
        if view.is_told:
            return None
        view.is_told = True
        return Known(co_id, self._state.claimed(entry, view))

    def goes_before(self, peer_id: str, co_id: RawCoId, pieces: Sequence[Content]) -> After | None:
        """What a client is to be sent before pieces of a value that is not in memory, if any is.

        What they depend on is looked for in them: nobody else can tell it at once.
        """
        peer = self._peers[peer_id]
        view = peer.values.get(co_id)
        if view is None or not pieces or pieces[0].priority != GROUP_PRIORITY:
            return None
        parts = [part_dependencies(piece.new, is_group=True) for piece in pieces]
        needed = dict.fromkeys(chain.from_iterable(parts))
        needed.pop(co_id, None)
        return self._let_pass(peer, view, needed)

    def _let_pass(
        self, peer: PeerView, view: ValueView, dependencies: Iterable[RawCoId]
    ) -> After | None:
        """What goes before, if it is here; it may not be offered yet, since it is still read."""
        late = peer.lets_pass(view, dependencies)
        for co_id in late:
            if co_id not in peer.values:
                self._state.subscribe(peer, co_id).is_told = True  # it has not asked
        return After(late) if late else None

    def sent(
        self, peer_id: str, co_id: RawCoId, reached: KnownState, until: SessionCounts | None = None
    ) -> None:
        """A piece was handed to the client's connection; a client that takes it has `reached`.

        `until` is where the last piece will end, as it announced.
        """
        view = self._peers[peer_id].values.get(co_id)
        if view is not None:
            view.add_sent(reached)
            view.is_told = True
            if until is not None:
                view.announced = until

    # Known states.

    def _receive_known(
        self,
        peer: PeerView,
        co_id: RawCoId,
        known: KnownState,
        is_correction: bool,
        out: list[Output],
    ) -> None:
        view = self._state.subscribe(peer, co_id)
        if not is_correction and peer.owes_answer(co_id):
            # An answer names what was announced, as a load does; an acknowledgement what has come.
            known = self._state.cut_streams.doubt(co_id, known)
        self._asking.told(co_id, peer)
        if is_correction:
            peer.replace(view, known)
        else:
            peer.confirm(view, known)
        self._offers.compare(peer, co_id, out)
        tick_batches(peer, co_id, out)

    def _reconcile(
        self,
        peer: PeerView,
        batch_id: str,
        values: Sequence[tuple[RawCoId, str]],
        out: list[Output],
    ) -> None:
        open_batch(peer, batch_id, len(values), out)
        for co_id, their_hash in values:
            step = partial(self._compare, peer, batch_id, co_id, their_hash)
            self._state.when_read(co_id, step, out)

    def _compare(
        self, peer: PeerView, batch_id: str, co_id: RawCoId, their_hash: str, out: list[Output]
    ) -> None:
        entry = self._state.values.peek(co_id)
        if entry is not None and not peer.is_gone:
            compare_value(peer, batch_id, entry, their_hash, out)
