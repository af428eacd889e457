"""A cojson client as a machine: what it is told goes in, what it says waits in `unsent`.

Two known states of the server, a value: what it said (`real`), and that with what was sent since
(`optimistic`). What a server of cojson's would never send is a fault, and so is a load without an
answer; see `faults` and `unanswered`.

Source: cojson 0.20.19 sync.ts, PeerState.ts, PeerKnownState.ts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import assert_never

from node.cojson.messages import Known, Load, Reconcile, ReconcileAck
from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState, merge_counts, sessions_hash
from tests.conversations.ledger import Ledger
from tests.support.authors import Author

Spoken = Content | Known | Load | Reconcile | ReconcileAck
"""What clients say, and are told."""

MAX_BATCH = 100
"""Values that a client compares at a time."""


class ModelClient:
    """One device of one person."""

    def __init__(self, name: str, author: Author, ledger: Ledger) -> None:
        self.name = name
        self.author = author
        self.held: dict[RawCoId, dict[CoSessionId, int]] = {}
        """Of every value that has come here, how far each session goes."""
        self.deleted: set[RawCoId] = set()
        self.wanted: dict[RawCoId, None] = {}
        """Values that it made or asked for; others come with these."""
        self.is_connected = False
        self.unsent: deque[Spoken] = deque()
        self.unanswered: dict[RawCoId, None] = {}
        """Values that it has asked for on this connection and was told nothing about."""
        self.unsettled: dict[str, None] = {}
        """Batches of values that it has had compared on this connection, and heard nothing of."""
        self.faults: list[str] = []
        self.early: list[str] = []
        """What came before something it depends on: that has to be asked for."""
        self._ledger = ledger
        self._batches = 0
        self._real: dict[RawCoId, KnownState] = {}
        self._optimistic: dict[RawCoId, KnownState] = {}
        self._told: set[RawCoId] = set()
        self._announced: dict[RawCoId, KnownState] = {}
        """Where values that come in pieces will end: it claims that already."""
        self._queued: defaultdict[RawCoId, list[Content]] = defaultdict(list)
        """Content that waits for what it depends on."""

    def known(self, co_id: RawCoId) -> KnownState:
        held = self.held.get(co_id)
        return NOTHING if held is None else KnownState(True, held)

    @property
    def waits_for(self) -> list[RawCoId]:
        return list(self._queued)

    # What its user does.

    def create(self, header: CoValueHeader) -> None:
        """Make a value, with no transaction yet."""
        self._ledger.write(self.author, header, self._session(header), ())
        self.wanted[header.id] = None
        self.held[header.id] = {}
        self._send_news(header.id, header)

    def edit(self, co_id: RawCoId, transactions: Sequence[Transaction]) -> None:
        """Continue our session of a value that is here."""
        if co_id not in self.deleted:
            header = self._ledger.headers[co_id]
            self._write(header, self._session(header), transactions)

    def delete(self, co_id: RawCoId) -> None:
        """Write a deletion, as who made the value may."""
        if co_id in self.deleted:
            return
        header = self._ledger.headers[co_id]
        for session_id, part in self.author.deletion(header, session=self.name).new.items():
            self._write(header, session_id, part.transactions)
        self._bury(co_id)

    def want(self, co_id: RawCoId) -> None:
        """Subscribe to a value, for good."""
        if co_id not in self.wanted:
            self.wanted[co_id] = None
            if co_id not in self.held:
                self._ask(co_id)

    def reconcile(self) -> None:
        """Have what is here compared, as far as it goes into one batch.

        Source: sync.ts startStorageReconciliation.
        """
        values = [(co_id, sessions_hash(counts)) for co_id, counts in self.held.items()]
        if self.is_connected and values:
            self._batches += 1
            batch_id = f"{self.name} {self._batches}"
            self.unsettled[batch_id] = None
            self.unsent.append(Reconcile(batch_id, tuple(values[-MAX_BATCH:])))

    def count(self, co_id: RawCoId) -> int:
        """How many transactions of this value are ours."""
        return self._ledger.length(co_id, self._session(self._ledger.headers[co_id]))

    def _session(self, header: CoValueHeader) -> CoSessionId:
        """Of a value that nobody owns: its own agent's, so that it needs no account."""
        is_bare = header.owner_group is None and not header.is_group
        return self.author.session_id(self.name, as_agent=is_bare or header.is_account)

    def _write(
        self, header: CoValueHeader, session_id: CoSessionId, transactions: Sequence[Transaction]
    ) -> None:
        """What the server knows of the value otherwise does not matter: it will say so.

        Source: sync.ts syncContent.
        """
        after = self._ledger.length(header.id, session_id)
        stop = self._ledger.write(self.author, header, session_id, transactions)
        self.held[header.id][session_id] = stop
        self._send_news(header.id, None, {session_id: after})

    def _send_news(
        self,
        co_id: RawCoId,
        header: CoValueHeader | None,
        after: dict[CoSessionId, int] | None = None,
    ) -> None:
        if not self.is_connected:
            return
        after = after or {}
        known = KnownState(header is None, after)
        held = {key: self.held[co_id][key] for key in after}
        news = self._ledger.content(co_id, held, known)
        assert news is not None
        self.unsent.append(news)
        self._optimistic[co_id] = self._view(co_id).merged(news.known_state)
        self._told.add(co_id)

    # The connection.

    def connect(self, *, is_restarted: bool) -> None:
        """Say what is here, dependencies before their dependants.

        Source: sync.ts startPeerReconciliation.
        """
        self.is_connected = True
        self.unsent.clear()
        self.unanswered.clear()
        self.unsettled.clear()
        self._optimistic.clear()
        self._told.clear()
        self._queued.clear()
        if is_restarted:
            self._real.clear()
            self._announced.clear()
        for co_id in self.in_order(self.held):
            self._ask(co_id)
        for co_id in self.wanted:
            if co_id not in self.held:
                self._ask(co_id)

    def disconnect(self) -> None:
        self.is_connected = False
        self.unsent.clear()

    def in_order(self, co_ids: Iterable[RawCoId]) -> list[RawCoId]:
        """Each after those that it depends on."""
        found: dict[RawCoId, None] = {}
        seen: set[RawCoId] = set()

        def visit(co_id: RawCoId) -> None:
            if co_id not in seen:
                seen.add(co_id)
                for dependency in self._ledger.dependencies(co_id, self.held[co_id]):
                    if dependency in self.held:
                        visit(dependency)
                found[co_id] = None

        for co_id in co_ids:
            visit(co_id)
        return list(found)

    # What the server says.

    def receive(self, message: Spoken) -> None:
        match message:
            case Content():
                self.unanswered.pop(message.co_id, None)
                self._receive_content(message)
            case Known(co_id, known, is_correction):
                self._receive_known(co_id, known, is_correction=is_correction)
            case Load(co_id, known):
                self._real[co_id] = known
                self._optimistic.pop(co_id, None)
                self._say_what_it_lacks(co_id, is_owed=True)
            case ReconcileAck(batch_id):
                if batch_id not in self.unsettled:
                    self.faults.append(f"batch {batch_id} was settled twice")
                self.unsettled.pop(batch_id, None)
            case Reconcile(batch_id):
                self.faults.append(f"it was to compare {batch_id}")
            case _:
                assert_never(message)

    def _receive_known(self, co_id: RawCoId, known: KnownState, *, is_correction: bool) -> None:
        self._check_claim(co_id, known)
        if is_correction:
            self._real[co_id] = known
            self._optimistic.pop(co_id, None)
        else:
            self._confirm(co_id, known)
            self.unanswered.pop(co_id, None)
        if co_id in self.held:
            self._say_what_it_lacks(co_id)

    def _receive_content(self, content: Content) -> None:
        co_id = content.co_id
        for queue in self._queued.values():
            if any(waiting.co_id == co_id for waiting in queue):
                queue.append(content)
                return
        if content.header is None and co_id not in self.held:
            self.faults.append(f"{co_id} came without its header")
            self.unsent.append(Known(co_id, NOTHING, True))
            return
        for session_id, part in content.new.items():
            if not self._ledger.is_true(co_id, session_id, part):
                self.faults.append(f"{co_id} came with {session_id} as nobody wrote it")
                return
        reached = {session_id: part.stop for session_id, part in content.new.items()}
        needed = self._ledger.dependencies(co_id, reached)
        missing = [key for key in needed if key not in self.held]
        if missing:
            self.early.append(f"{co_id} came before {missing[0]}")
            for dependency in missing:
                self._queued[dependency].append(content)
                if dependency not in self.unanswered:
                    self._ask(dependency)
            return
        self._take(content)
        for waiting in self._queued.pop(co_id, ()):
            self._receive_content(waiting)

    def _take(self, content: Content) -> None:
        """Source: sync.ts handleNewContent."""
        co_id = content.co_id
        if content.expect_until is not None:
            self._announced[co_id] = KnownState(True, content.expect_until)
            if co_id not in self.held:
                self._confirm(co_id, self._announced[co_id])
        held = self.held.setdefault(co_id, {})
        taken: dict[CoSessionId, int] = {}
        has_gap = False
        for session_id, part in content.new.items():
            if co_id in self.deleted and not is_delete_session(session_id):
                continue
            if part.after > held.get(session_id, 0):
                has_gap = True
                continue
            held[session_id] = max(part.stop, held.get(session_id, 0))
            taken[session_id] = part.stop
            if is_delete_session(session_id):
                self._bury(co_id)
        if has_gap and co_id not in self._announced:
            self.faults.append(f"{co_id} came with a gap")
        if co_id in self._announced and self.known(co_id).covers(self._announced[co_id]):
            del self._announced[co_id]
        if co_id in self.deleted:
            taken = dict(content.known_state.sessions)
        self._confirm(co_id, KnownState(True, taken))
        self.unsent.append(Known(co_id, self._claim(co_id, is_correction=has_gap), has_gap))
        self._told.add(co_id)
        self._say_what_it_lacks(co_id)

    def _say_what_it_lacks(self, co_id: RawCoId, *, is_owed: bool = False) -> None:
        """Source: sync.ts sendNewContent to a server."""
        if co_id not in self.held:
            if is_owed:
                self.unsent.append(Known(co_id, NOTHING))
            return
        known = self._view(co_id)
        content = self._ledger.content(co_id, self.held[co_id], known)
        if content is not None:
            self.unsent.append(content)
            self._optimistic[co_id] = known.merged(self.known(co_id))
        elif is_owed or co_id not in self._told:
            self.unsent.append(Known(co_id, self._claim(co_id).merged(self._with_announced(co_id))))
        self._told.add(co_id)

    # What it believes.

    def _ask(self, co_id: RawCoId) -> None:
        if self.is_connected:
            self._told.add(co_id)
            self.unanswered[co_id] = None
            self.unsent.append(Load(co_id, self._with_announced(co_id)))

    def _view(self, co_id: RawCoId) -> KnownState:
        return self._optimistic.get(co_id) or self._real.get(co_id, NOTHING)

    def _confirm(self, co_id: RawCoId, known: KnownState) -> None:
        self._real[co_id] = self._real.get(co_id, NOTHING).merged(known)
        if co_id in self._optimistic:
            self._optimistic[co_id] = self._optimistic[co_id].merged(known)

    def _copied(self, co_id: RawCoId) -> KnownState:
        """What is here now: what is said must not change when that does."""
        known = self.known(co_id)
        return KnownState(known.header, dict(known.sessions))

    def _with_announced(self, co_id: RawCoId) -> KnownState:
        """Source: coValueCore.ts knownStateWithStreaming."""
        return self._copied(co_id).merged(self._announced.get(co_id, NOTHING))

    def _claim(self, co_id: RawCoId, *, is_correction: bool = False) -> KnownState:
        """What to say of a value: of a deleted one, that all there was has come.

        Source: coValueCore.ts stopSyncingKnownStateMessage.
        """
        claim = self._copied(co_id)
        if co_id in self.deleted and not is_correction:
            return claim.merged(self._real.get(co_id, NOTHING))
        return claim

    def _check_claim(self, co_id: RawCoId, known: KnownState) -> None:
        for session_id, count in known.sessions.items():
            if count > self._ledger.length(co_id, session_id):
                self.faults.append(f"it was told of {count} of {session_id} in {co_id}")

    def _bury(self, co_id: RawCoId) -> None:
        self.deleted.add(co_id)
        self._announced.pop(co_id, None)
        held = self.held[co_id]
        self.held[co_id] = merge_counts({}, {k: n for k, n in held.items() if is_delete_session(k)})
