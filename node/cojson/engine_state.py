"""What the parts of the sync engine share: verified state, subscriptions, what is under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from node.cojson.admission import Admission
from node.cojson.appeals import Appeals
from node.cojson.cut_streams import CutStreams
from node.cojson.deletion import quenching
from node.cojson.gatekeeper import Gatekeeper
from node.cojson.hazardous_values import HazardousValues
from node.cojson.outputs import Find, LoadValue, Output
from node.cojson.peer_view import ClientBudget, PeerView, ValueView
from node.cojson.value_table import Phase, ValueEntry, ValueTable
from node.cojson.waiting_room import Delivery, WaitingRoom
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState

Step = Callable[[list[Output]], None]
"""Something to do when the store has answered; adds what it wants done."""


@dataclass(slots=True)
class Commit:
    """A store that is out, and who is to hear of it."""

    co_id: RawCoId
    counts: dict[CoSessionId, int]
    deliveries: list[Delivery]
    corrected: set[PeerView] = field(default_factory=set)
    """Senders of a gap: they get a correction instead of an acknowledgement."""
    is_deletion: bool = False
    """With this commit the value becomes a tombstone."""


class EngineState:
    """Changed by the parts of the engine; nobody else holds it."""

    def __init__(
        self, memory_bytes: int, client_bytes: int, access: Gatekeeper | None = None
    ) -> None:
        self.has_mesh = False
        self.refused = 0
        self.interest_version = 0
        self.values = ValueTable(memory_bytes)
        self.clients = ClientBudget(client_bytes)
        self.room = WaitingRoom()
        self.appeals = Appeals()
        self.admission = Admission(access, self.room, self.appeals)
        self.cut_streams = CutStreams()
        self.hazardous = HazardousValues()
        self.subscribers: dict[RawCoId, dict[PeerView, None]] = {}
        self.awaited: dict[RawCoId, None] = {}
        """Values that content was set aside for and that are not here, perhaps nowhere yet."""
        self.searching: dict[RawCoId, dict[PeerView, None]] = {}
        """Ids that the mesh was asked for, and the clients that wait for its answer."""
        self.commits: dict[int, Commit] = {}
        self.next_ticket = 1
        self.arrived: deque[RawCoId] = deque()
        """Values that were just accepted or read, for which content may have been set aside."""
        self.appealed: deque[Delivery] = deque()
        """Refused content that a group may speak for now: it is judged again."""

    def use(self, co_id: RawCoId, out: list[Output], *, is_wanted: bool = False) -> ValueEntry:
        """The entry; when it is not in memory the store is asked for it."""
        entry = self.values.use(co_id)
        if entry is None:
            entry = self.values.add(co_id)
            out.append(LoadValue(co_id, is_wanted))
        return entry

    def when_read(self, co_id: RawCoId, step: Step, out: list[Output]) -> None:
        """Do `step` now, or when the store has told what it holds of this value."""
        entry = self.use(co_id, out)
        if entry.phase is Phase.LOADING:
            entry.waiting.append(step)
        else:
            step(out)

    def resume(self, entry: ValueEntry, out: list[Output]) -> None:
        """Do what waited for the store, as far as nothing new has to be waited for."""
        for _ in range(len(entry.waiting)):
            if entry.is_busy:
                return
            entry.waiting.popleft()(out)
        if entry.phase is Phase.DAMAGED and entry.is_idle:
            self.values.discard(entry.co_id)  # a later question asks the disk again

    def claimed(self, entry: ValueEntry, view: ValueView) -> KnownState:
        """What to tell a peer that we hold of a value."""
        if entry.is_tombstone:
            return quenching(entry.durable, view.real)
        return entry.durable

    def find(self, co_id: RawCoId, out: list[Output]) -> None:
        """Ask the mesh, if there is one and it has not been asked already."""
        if self.has_mesh and co_id not in self.searching:
            self.searching[co_id] = {}
            out.append(Find(co_id))

    def await_absent(self, co_id: RawCoId) -> None:
        """Content set aside waits for this value: members are to tell when they get it."""
        if co_id not in self.awaited and self.room.is_awaited(co_id):
            self.awaited[co_id] = None
            self.interest_version += 1

    def stop_awaiting(self, co_id: RawCoId) -> None:
        if co_id in self.awaited:
            del self.awaited[co_id]
            self.interest_version += 1

    def subscribe(self, peer: PeerView, co_id: RawCoId) -> ValueView:
        view = peer.values.get(co_id)
        if view is None:
            view = peer.add(co_id)
            subscribers = self.subscribers.get(co_id)
            if subscribers is None:
                subscribers = self.subscribers[co_id] = {}
                self.interest_version += 1
            subscribers[peer] = None
        return view

    def remove(self, peer: PeerView) -> None:
        """Forget a client and what it left unfinished."""
        peer.leave()
        for co_id, view in peer.values.items():
            if view.announced is not None:
                self.cut_streams.note(co_id, view.announced)
            subscribers = self.subscribers[co_id]
            del subscribers[peer]
            if not subscribers:
                del self.subscribers[co_id]
                self.interest_version += 1
            searchers = self.searching.get(co_id)
            if searchers is not None:
                searchers.pop(peer, None)
        for co_id in self.room.forget(peer):
            if not self.room.is_awaited(co_id):
                self.stop_awaiting(co_id)
        self.appeals.forget(peer)
