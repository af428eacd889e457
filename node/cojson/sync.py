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

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

from node.cojson.crypto import RunningHash
from node.cojson.intake import Verified, sort_parts, verify_parts
from node.cojson.messages import (
    Done,
    Known,
    Load,
    Message,
    Reconcile,
    ReconcileAck,
)
from node.cojson.outputs import (
    Changed,
    EndPeer,
    Find,
    LoadValue,
    Output,
    Pull,
    Rehash,
    Send,
    Serve,
    Settled,
    Store,
)
from node.cojson.peer_view import PeerView, ValueView
from node.cojson.reconcile import compare_value, open_batch, tick_batches
from node.cojson.value_table import MEMORY_BYTES, Phase, ValueEntry, ValueTable
from node.cojson.waiting_room import Delivery, WaitingRoom
from node.covalue.content import Content
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    session_dependencies,
)
from node.covalue.header import VALUE_PRIORITY, CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, merge_counts
from node.covalue.session_log import SessionLog
from node.covalue.store import StoredValue, ValueAppend

Step = Callable[[list[Output]], None]
"""Something to do when the store has answered; adds what it wants done."""


@dataclass(slots=True)
class _Commit:
    """A store that is out, and who is to hear of it."""

    co_id: RawCoId
    counts: dict[CoSessionId, int]
    deliveries: list[Delivery]
    corrected: set[PeerView] = field(default_factory=set)
    """Senders of a gap: they get a correction instead of an acknowledgement."""


class SyncEngine:
    """Serves clients from verified state. See `outputs.py` for what it asks for."""

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.has_mesh = False
        """Whether `Find` has somebody to ask; else unknown ids are answered at once."""
        self.refused = 0
        """Messages of which nothing verified."""
        self.interest_version = 0
        """Grows whenever the set of subscribed ids changes."""
        self._values = ValueTable(memory_bytes)
        self._peers: dict[str, PeerView] = {}
        self._subscribers: dict[RawCoId, dict[PeerView, None]] = {}
        self._room = WaitingRoom()
        self._searching: dict[RawCoId, dict[PeerView, None]] = {}
        self._commits: dict[int, _Commit] = {}
        self._next_ticket = 1
        self._arrived: deque[RawCoId] = deque()
        """Values that were just accepted or read, for which content may have been set aside."""

    # What the shell asks.

    @property
    def values_in_memory(self) -> int:
        return len(self._values)

    @property
    def subscribed_ids(self) -> frozenset[RawCoId]:
        return frozenset(self._subscribers)

    def durable_state(self, co_id: RawCoId) -> KnownState | None:
        """What is stored of a value in memory; None when the store has to be asked."""
        entry = self._values.peek(co_id)
        return None if entry is None or entry.phase is Phase.LOADING else entry.durable

    def priority(self, co_id: RawCoId) -> int:
        """In which of its client queues a value in memory waits."""
        entry = self._values.peek(co_id)
        return VALUE_PRIORITY if entry is None or entry.header is None else entry.header.priority

    def unsettled_bytes(self, peer_id: str) -> int:
        """Content of this client that is on its way to the disk: stop reading when it is much."""
        peer = self._peers.get(peer_id)
        return 0 if peer is None else peer.unsettled_bytes

    # Clients come and go.

    def add_peer(self, peer_id: str) -> None:
        if peer_id in self._peers:
            raise ValueError(f"peer {peer_id} is here already")
        self._peers[peer_id] = PeerView(peer_id)

    def remove_peer(self, peer_id: str) -> None:
        peer = self._peers.pop(peer_id)
        peer.is_gone = True
        for co_id in peer.values:
            subscribers = self._subscribers[co_id]
            del subscribers[peer]
            if not subscribers:
                del self._subscribers[co_id]
                self.interest_version += 1
            searchers = self._searching.get(co_id)
            if searchers is not None:
                searchers.pop(peer, None)
        self._room.forget(peer)

    # What clients and members send.

    def receive(self, peer_id: str, message: Message) -> list[Output]:
        out: list[Output] = []
        peer = self._peers[peer_id]
        match message:
            case Content():
                self._accept(Delivery(message, peer, None, message.size), out)
            case Load(co_id, known):
                peer.replace(self._subscribe(peer, co_id, out), known)
                self._find_newer(co_id, peer, out)
                self._when_read(co_id, lambda later: self._answer_load(peer, co_id, later), out)
            case Known(co_id, known, is_correction):
                self._receive_known(peer, co_id, known, is_correction, out)
            case Reconcile(batch_id, values):
                self._reconcile(peer, batch_id, values, out)
            case Done() | ReconcileAck():
                pass
            case _:
                assert_never(message)
        if peer.is_over_limit():
            out.append(EndPeer(peer_id, "too many subscriptions"))
        return out

    def receive_content(self, content: Content, receipt: int) -> list[Output]:
        """Content from the mesh; `Settled(receipt, ...)` tells what became of it."""
        out: list[Output] = []
        self._accept(Delivery(content, None, receipt, content.size), out)
        return out

    # What the shell answers.

    def loaded(self, co_id: RawCoId, stored: StoredValue | None) -> list[Output]:
        """The answer to `LoadValue`."""
        out: list[Output] = []
        entry = self._values.peek(co_id)
        if entry is None or entry.phase is not Phase.LOADING:
            return out
        if stored is None:
            entry.phase = Phase.ABSENT
            for sender in self._room.senders(co_id):
                self._ask_for(co_id, sender, out)
        else:
            entry.phase = Phase.HELD
            entry.header = stored.header
            entry.dependencies = dict.fromkeys(sorted(stored.dependencies))
            entry.durable = stored.known_state
            entry.logs = {
                session_id: SessionLog(item.count, item.signature, item.bytes_since_checkpoint)
                for session_id, item in stored.sessions.items()
            }
            self._values.resize(entry)
            self._arrived.append(co_id)
        self._continue(entry, out)
        self._release_arrived(out)
        return out

    def load_failed(self, co_id: RawCoId) -> list[Output]:
        """The stored value is damaged: forget it, so that a later question asks the disk again."""
        entry = self._values.peek(co_id)
        if entry is not None and entry.phase is Phase.LOADING:
            self._values.discard(co_id)
        return []

    def rehashed(
        self, co_id: RawCoId, session_id: CoSessionId, running: RunningHash
    ) -> list[Output]:
        """The answer to `Rehash`."""
        out: list[Output] = []
        entry = self._values.peek(co_id)
        if entry is None or session_id not in entry.rehashing:
            return out
        entry.rehashing.discard(session_id)
        entry.logs[session_id].running = running
        self._continue(entry, out)
        self._release_arrived(out)
        return out

    def stored(self, tickets: Sequence[int]) -> list[Output]:
        """These commits are durable: acknowledge, offer and announce them."""
        out: list[Output] = []
        changed: dict[RawCoId, dict[CoSessionId, int]] = {}
        heard: dict[RawCoId, dict[PeerView, bool]] = {}
        settled: list[tuple[RawCoId, Delivery]] = []
        for ticket in tickets:
            commit = self._commits.pop(ticket)
            entry = self._values.peek(commit.co_id)
            if entry is None:
                raise RuntimeError(f"{commit.co_id} was forgotten with a commit out")
            entry.tickets.remove(ticket)
            merge_counts(changed.setdefault(commit.co_id, {}), commit.counts)
            listeners = heard.setdefault(commit.co_id, {})
            for delivery in commit.deliveries:
                settled.append((commit.co_id, delivery))
                if delivery.sender is not None:
                    is_gap = delivery.sender in commit.corrected
                    listeners[delivery.sender] = is_gap or listeners.get(delivery.sender, False)
        for co_id, counts in changed.items():
            entry = self._values.peek(co_id)
            if entry is not None:
                entry.durable = entry.durable.merged(KnownState(True, counts))
                self._tell(entry, heard[co_id], out)
            out.append(Changed(co_id, counts))
        for co_id, delivery in settled:
            self._settle(delivery, out)
            self._tick_batches(delivery, co_id, out)
        for co_id in changed:
            entry = self._values.peek(co_id)
            if entry is not None:
                self._continue(entry, out)
        self._release_arrived(out)
        return out

    def searched(self, co_ids: Iterable[RawCoId]) -> list[Output]:
        """The mesh was asked, and what it had was handed in: tell those who wait the rest."""
        out: list[Output] = []
        pending = list(co_ids)
        while pending:
            co_id = pending.pop()
            if co_id not in self._searching or self._room.awaited_by(co_id) in self._searching:
                continue  # found, or its answer is still a dependency's to give
            searchers = self._searching.pop(co_id)
            entry = self._values.peek(co_id)
            if entry is not None and entry.phase is Phase.HELD:
                continue
            for peer in searchers:
                self._say_absent(peer, co_id, out)
            pending.extend(self._room.dependants(co_id))
        return out

    # What the shell pulls when a client can take more.

    def next_for(self, peer_id: str, co_id: RawCoId) -> Pull | Known | None:
        """After `Serve`: which pieces to read for this client, or what to say instead."""
        peer = self._peers[peer_id]
        view = peer.values.get(co_id)
        if view is None:
            return None
        entry = self._values.use(co_id)
        if entry is None:
            return Pull(view.optimistic, None)
        if view.lacks(entry.durable):
            return Pull(view.optimistic, entry.durable)
        if view.is_told:
            return None
        view.is_told = True
        return Known(co_id, entry.durable)

    def sent(self, peer_id: str, content: Content) -> None:
        """A piece was handed to the client's connection."""
        view = self._peers[peer_id].values.get(content.co_id)
        if view is not None:
            view.add_sent(content.known_state)
            view.is_told = True

    # Known states.

    def _subscribe(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> ValueView:
        view = peer.values.get(co_id)
        if view is None:
            view = peer.values[co_id] = ValueView()
            subscribers = self._subscribers.get(co_id)
            if subscribers is None:
                subscribers = self._subscribers[co_id] = {}
                self.interest_version += 1
            subscribers[peer] = None
        return view

    def _find_newer(self, co_id: RawCoId, peer: PeerView, out: list[Output]) -> None:
        """Ask the mesh when the first client subscribes: later changes are announced to us."""
        if self.has_mesh and len(self._subscribers[co_id]) == 1 and co_id not in self._searching:
            self._searching[co_id] = {}
            out.append(Find(co_id))

    def _receive_known(
        self,
        peer: PeerView,
        co_id: RawCoId,
        known: KnownState,
        is_correction: bool,
        out: list[Output],
    ) -> None:
        view = self._subscribe(peer, co_id, out)
        peer.asked.discard(co_id)
        if is_correction:
            peer.replace(view, known)
        else:
            peer.confirm(view, known)
        self._when_read(co_id, lambda later: self._offer(peer, co_id, later), out)
        tick_batches(peer, co_id, out)

    def _answer_load(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        entry = self._values.peek(co_id)
        view = peer.values.get(co_id)
        if entry is None or view is None or peer.is_gone:
            return
        if entry.phase is Phase.HELD and not entry.durable.header:
            entry.waiting.append(lambda later: self._answer_load(peer, co_id, later))
        elif entry.phase is Phase.HELD:
            if view.lacks(entry.durable):
                self._offer(peer, co_id, out)
            else:
                view.is_told = True
                out.append(Send(peer.peer_id, Known(co_id, entry.durable)))
        elif co_id in self._searching and not view.real.header:
            self._searching[co_id][peer] = None
        else:
            self._say_absent(peer, co_id, out)

    def _say_absent(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        view = peer.values.get(co_id)
        if view is not None:
            view.is_told = True
            out.append(Send(peer.peer_id, Known(co_id, NOTHING)))

    def _offer(self, peer: PeerView, co_id: RawCoId, out: list[Output]) -> None:
        """Serve what the client lacks of a value, and before it of all that it depends on.

        The whole is put off when the store has to be read first.
        """
        if peer.is_gone or co_id not in peer.values:
            return
        order: list[ValueEntry] = []
        seen: set[RawCoId] = set()
        stack: list[tuple[RawCoId, bool]] = [(co_id, False)]
        while stack:
            step, is_expanded = stack.pop()
            entry = self._use(step, out)
            if entry.phase is Phase.LOADING:
                entry.waiting.append(lambda later: self._offer(peer, co_id, later))
                return
            if is_expanded:
                order.append(entry)
                continue
            view = peer.values.get(step)
            if step in seen or not entry.durable.header:
                continue
            if view is not None and view.offered_version == entry.version:
                continue
            seen.add(step)
            stack.append((step, True))
            if view is None or view.lacks(entry.durable):
                stack.extend((key, False) for key in reversed(entry.dependencies))
        for entry in order:
            view = self._subscribe(peer, entry.co_id, out)
            view.offered_version = entry.version
            if view.lacks(entry.durable):
                header = entry.header
                priority = VALUE_PRIORITY if header is None else header.priority
                out.append(Serve(peer.peer_id, entry.co_id, priority))

    def _tell(self, entry: ValueEntry, listeners: dict[PeerView, bool], out: list[Output]) -> None:
        """After a commit: answer its senders, offer it to everyone else who is subscribed."""
        for peer, is_gap in listeners.items():
            view = peer.values.get(entry.co_id)
            if view is not None and not peer.is_gone:
                view.is_told = True
                out.append(Send(peer.peer_id, Known(entry.co_id, entry.durable, is_gap)))
        for peer in list(self._subscribers.get(entry.co_id, ())):
            if peer.values[entry.co_id].lacks(entry.durable):
                self._offer(peer, entry.co_id, out)

    # Content.

    def _accept(self, delivery: Delivery, out: list[Output]) -> None:
        if delivery.sender is not None:
            self._subscribe(delivery.sender, delivery.content.co_id, out)
            delivery.sender.unsettled_bytes += delivery.size
        self._judge(delivery, out)
        self._release_arrived(out)

    def _judge(self, delivery: Delivery, out: list[Output]) -> None:
        """Store it, set it aside, put it off until the store has answered, or refuse it."""
        content = delivery.content
        co_id = content.co_id
        entry = self._use(co_id, out)
        if entry.is_busy:
            entry.waiting.append(lambda later: self._judge(delivery, later))
            return
        header = entry.header
        if header is None:
            header = content.header
            if header is None and self._room.awaited_by(co_id) is None:
                self._reply(delivery, NOTHING, True, out)
                self._settle(delivery, out, "content of an unknown value without its header")
                return
            if header is not None and header.id != co_id:
                self._refuse(delivery, "the header does not hash to the id", out)
                return
        missing = self._missing_dependency(header, content, out)
        if missing is not None or header is None:
            self._set_aside(delivery, missing, out)
            return
        parts = sort_parts(content, entry.logs)
        if parts.unhashed:
            for session_id in parts.unhashed:
                entry.rehashing.add(session_id)
                out.append(Rehash(co_id, session_id, entry.logs[session_id].count))
            # In front: what waits already came later.
            entry.waiting.appendleft(lambda later: self._judge(delivery, later))
            return
        verified = verify_parts(parts.fresh, self._account_key)
        if verified.refusals and not verified.logs:
            self._refuse(delivery, "; ".join(verified.refusals), out)
        elif verified.logs or entry.header is None:
            self._commit(entry, header, delivery, verified, parts.has_gap, out)
        else:
            self._nothing_new(entry, delivery, parts.has_gap, out)

    def _missing_dependency(
        self, header: CoValueHeader | None, content: Content, out: list[Output]
    ) -> RawCoId | None:
        """The first dependency that is not here; what content of this value waits for already."""
        co_id = content.co_id
        first = self._room.awaited_by(co_id)
        if first is not None or header is None:
            return first
        needed = dict.fromkeys(header_dependencies(header))
        needed.update(dict.fromkeys(session_dependencies(content.new)))
        if header.is_group:
            for part in content.new.values():
                needed.update(dict.fromkeys(member_dependencies(part.transactions)))
        needed.pop(co_id, None)
        for dependency in needed:
            if self._use(dependency, out).phase is Phase.HELD:
                continue
            if not self._room.would_circle(co_id, dependency):
                return dependency
        return None

    def _set_aside(self, delivery: Delivery, dependency: RawCoId | None, out: list[Output]) -> None:
        if dependency is None:
            self._refuse(delivery, "it depends on nothing that could come", out)
            return
        self._room.add(delivery, dependency)
        self._settle(delivery, out, is_waiting=True)
        if self._use(dependency, out).phase is Phase.ABSENT:
            self._ask_for(dependency, delivery.sender, out)

    def _ask_for(self, co_id: RawCoId, sender: PeerView | None, out: list[Output]) -> None:
        """Whoever sent the dependant must have it; the mesh may."""
        if sender is not None and co_id not in sender.asked and not sender.is_gone:
            sender.asked.add(co_id)
            out.append(Send(sender.peer_id, Load(co_id, NOTHING)))
        if self.has_mesh and co_id not in self._searching:
            self._searching[co_id] = {}
            out.append(Find(co_id))

    def _account_key(self, account_id: str) -> bytes | None:
        entry = self._values.peek(RawCoId(account_id))
        if entry is None or entry.header is None:
            return None
        return entry.header.account_public_key

    def _commit(
        self,
        entry: ValueEntry,
        header: CoValueHeader,
        delivery: Delivery,
        verified: Verified,
        has_gap: bool,
        out: list[Output],
    ) -> None:
        is_first = entry.header is None
        entry.phase = Phase.HELD
        entry.header = header
        entry.logs.update(verified.logs)
        if is_first:
            entry.dependencies.update(dict.fromkeys(header_dependencies(header)))
        entry.dependencies.update(dict.fromkeys(session_dependencies(verified.logs)))
        if header.is_group:
            for append in verified.appends.values():
                members = member_dependencies(append.transactions)
                entry.dependencies.update(dict.fromkeys(members))
        entry.dependencies.pop(entry.co_id, None)
        self._values.resize(entry)
        counts = {session_id: log.count for session_id, log in verified.logs.items()}
        ticket = self._next_ticket
        self._next_ticket += 1
        commit = self._commits[ticket] = _Commit(entry.co_id, counts, [delivery])
        entry.tickets.append(ticket)
        if has_gap and delivery.sender is not None:
            commit.corrected.add(delivery.sender)
        self._note_received(delivery, counts)
        new_header = header if is_first else None
        out.append(Store(ValueAppend(entry.co_id, new_header, verified.appends), ticket))
        if is_first:
            self._searching.pop(entry.co_id, None)
            self._arrived.append(entry.co_id)

    def _nothing_new(
        self, entry: ValueEntry, delivery: Delivery, has_gap: bool, out: list[Output]
    ) -> None:
        """Everything is here already, or all of it is beyond a gap."""
        if not has_gap:
            counts = {key: part.stop for key, part in delivery.content.new.items()}
            self._note_received(delivery, counts)
        if entry.tickets:
            # What it repeats may not be durable yet: answer with the last commit that is out.
            commit = self._commits[entry.tickets[-1]]
            commit.deliveries.append(delivery)
            if has_gap and delivery.sender is not None:
                commit.corrected.add(delivery.sender)
            return
        self._reply(delivery, entry.durable, has_gap, out)
        self._settle(delivery, out)
        self._tick_batches(delivery, entry.co_id, out)

    def _note_received(self, delivery: Delivery, counts: dict[CoSessionId, int]) -> None:
        """The sender has what it sent, and all that came before it."""
        peer = delivery.sender
        if peer is not None and not peer.is_gone:
            peer.asked.discard(delivery.content.co_id)
            view = peer.values.get(delivery.content.co_id)
            if view is not None:
                peer.confirm(view, KnownState(True, counts))

    def _release_arrived(self, out: list[Output]) -> None:
        """Judge again what waited for values that are here now, and what waited for those."""
        while self._arrived:
            deliveries, owed = self._room.release(self._arrived.popleft())
            for delivery in deliveries:
                if delivery.sender is not None:
                    delivery.sender.unsettled_bytes += delivery.size
                self._judge(delivery, out)
            for item in owed:
                entry = self._values.peek(item.co_id)
                durable = NOTHING if entry is None else entry.durable
                if not item.sender.is_gone:
                    out.append(Send(item.sender.peer_id, Known(item.co_id, durable, True)))

    def _reply(
        self, delivery: Delivery, known: KnownState, is_correction: bool, out: list[Output]
    ) -> None:
        peer = delivery.sender
        if peer is None or peer.is_gone:
            return
        co_id = delivery.content.co_id
        view = peer.values.get(co_id)
        if view is not None:
            view.is_told = True
        out.append(Send(peer.peer_id, Known(co_id, known, is_correction)))

    def _refuse(self, delivery: Delivery, reason: str, out: list[Output]) -> None:
        self.refused += 1
        self._settle(delivery, out, reason)

    def _settle(
        self,
        delivery: Delivery,
        out: list[Output],
        refusal: str | None = None,
        is_waiting: bool = False,
    ) -> None:
        """The delivery is off the way to the disk."""
        if delivery.sender is not None:
            delivery.sender.unsettled_bytes -= delivery.size
        if delivery.receipt is not None:
            out.append(Settled(delivery.receipt, delivery.content.co_id, refusal, is_waiting))

    # Reading verified state.

    def _use(self, co_id: RawCoId, out: list[Output]) -> ValueEntry:
        entry = self._values.use(co_id)
        if entry is None:
            entry = self._values.add(co_id)
            out.append(LoadValue(co_id))
        return entry

    def _when_read(self, co_id: RawCoId, step: Step, out: list[Output]) -> None:
        """Do `step` now, or when the store has told what it holds of this value."""
        entry = self._use(co_id, out)
        if entry.phase is Phase.LOADING:
            entry.waiting.append(step)
        else:
            step(out)

    def _continue(self, entry: ValueEntry, out: list[Output]) -> None:
        """Do what waited for the store, as far as nothing new has to be waited for."""
        for _ in range(len(entry.waiting)):
            if entry.is_busy:
                return
            entry.waiting.popleft()(out)

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
            self._when_read(co_id, step, out)

    def _compare(
        self, peer: PeerView, batch_id: str, co_id: RawCoId, their_hash: str, out: list[Output]
    ) -> None:
        entry = self._values.peek(co_id)
        if entry is not None and not peer.is_gone:
            compare_value(peer, batch_id, co_id, their_hash, entry.durable, out)

    def _tick_batches(self, delivery: Delivery, co_id: RawCoId, out: list[Output]) -> None:
        """Content of a value was stored: a reconcile batch may wait for it."""
        peer = delivery.sender
        if peer is None or not peer.batches:
            return
        until = delivery.content.expect_until
        entry = self._values.peek(co_id)
        if entry is None or until is None or entry.durable.covers(KnownState(True, until)):
            tick_batches(peer, co_id, out)
