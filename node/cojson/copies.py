"""What clients are told that this node holds, where that must mean more than its own disk.

With `min_copies` N a client's `known` names what is durable on N nodes: here, and on N - 1
members of the mesh, as they said themselves. Until then the client is told as much as N nodes
hold, and the rest as soon as they do. How long that takes is up to them: with fewer members
connected it waits until there are more. What was sent is stored here all the while, and served.

As long as N nodes hold nothing, a client of which everything is here is told nothing: cojson sends
all of a value that it has to a client that says it has none, and would do so each time it connects.

Pure; the host carries out what comes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import chain

from node.cojson.deletion import only_deletions
from node.cojson.messages import Known, Load, Message
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import KnownState, SessionCounts, merge_counts

MAX_HELD_BACK = 500_000
"""Acknowledgements held back in all (about 300 MB); the client of one more is sent away."""

MAX_NOTED = 1_000_000
"""Counts noted of what one member says that it holds (about 200 MB), a few for each acknowledgement
that may be held back: it may name sessions that nobody ever began."""

MAX_NOTED_IN_ALL = 2 * MAX_NOTED
"""Counts of all members together, those that went included, and one for each value of each. Beyond
that, what the member with most said last gives way to others: it is asked for it again."""


class CopyLedger:
    """Who holds how much of the values that somebody waits for."""

    def __init__(self, max_noted: int = MAX_NOTED, max_in_all: int = MAX_NOTED_IN_ALL) -> None:
        self._max_noted = max_noted
        self._max_in_all = max_in_all
        self._noted: Counter[bytes] = Counter()
        self._in_all = 0
        self._watched: dict[RawCoId, int] = {}
        self._held: dict[RawCoId, dict[bytes, dict[CoSessionId, int]]] = {}
        self._values: dict[bytes, dict[RawCoId, None]] = {}
        """Those noted of each member, in the order in which it first spoke of them."""
        self._lacking: dict[RawCoId, CoSessionId] = {}
        """A session of each value of which too few members held enough."""

    def watch(self, co_id: RawCoId) -> None:
        """Remember from now on what members say of it; ends with as many `unwatch`."""
        self._watched[co_id] = self._watched.get(co_id, 0) + 1

    def unwatch(self, co_id: RawCoId) -> None:
        self._watched[co_id] -= 1
        if not self._watched[co_id]:
            del self._watched[co_id]
            self._lacking.pop(co_id, None)
            for member_id in list(self._held.get(co_id, ())):
                self._forget(member_id, co_id)

    @property
    def watched(self) -> Iterable[RawCoId]:
        return self._watched

    def note(self, member_id: bytes, co_id: RawCoId, sessions: SessionCounts) -> bool:
        """A member holds that much, durably; whether somebody waits to hear so.

        Of a member that says too much, sessions that are new are not noted until less is watched.
        """
        if co_id not in self._watched:
            return False
        held = self._held.get(co_id, {}).get(member_id)
        counts: dict[CoSessionId, int] = {} if held is None else held
        new = len(sessions.keys() - counts.keys())
        if self._noted[member_id] + new > self._max_noted:
            new = 0
        if not self._has_room(member_id, new + (held is None)):
            if held is None:
                return True
            new = 0
        if not new:
            sessions = {key: count for key, count in sessions.items() if key in counts}
        if held is None:
            self._held.setdefault(co_id, {})[member_id] = counts
            self._values.setdefault(member_id, {})[co_id] = None
            self._in_all += 1
        merge_counts(counts, sessions)
        self._noted[member_id] += new
        self._in_all += new
        return True

    def _has_room(self, member_id: bytes, more: int) -> bool:
        """Whether so much more may be noted; what others said too much of may be forgotten for it.

        Those that have the most give way as long as they still have more than this member then.
        """
        while more and self._in_all + more > self._max_in_all:
            fullest = max(self._values, key=self._size)
            if self._size(fullest) <= self._size(member_id) + more:
                return False
            self._forget(fullest, next(reversed(self._values[fullest])))
        return True

    def _size(self, member_id: bytes) -> int:
        return self._noted[member_id] + len(self._values.get(member_id, ()))

    def _forget(self, member_id: bytes, co_id: RawCoId) -> None:
        counts = self._held[co_id].pop(member_id)
        if not self._held[co_id]:
            del self._held[co_id]
        del self._values[member_id][co_id]
        self._noted[member_id] -= len(counts)
        self._in_all -= len(counts) + 1
        if not self._values[member_id]:
            del self._values[member_id], self._noted[member_id]

    def held_by(self, co_id: RawCoId, members: int) -> KnownState:
        """How much of it at least so many members hold."""
        held = self._held.get(co_id, {})
        if len(held) < members:
            return KnownState(False)
        sessions: dict[CoSessionId, int] = {}
        for session_id in {key for counts in held.values() for key in counts}:
            counts = sorted((each.get(session_id, 0) for each in held.values()), reverse=True)
            if counts[members - 1]:
                sessions[session_id] = counts[members - 1]
        return KnownState(True, sessions)

    def are_held(self, co_id: RawCoId, members: int, wanted: KnownState) -> bool:
        """Whether `held_by` covers that.

        What was lacking last is looked at first: a value may have 20,000 sessions, and members
        say of one after the other that they hold it.
        """
        held = list(self._held.get(co_id, {}).values())
        if len(held) < members:
            return KnownState(False).covers(wanted)
        last = self._lacking.get(co_id)
        first = () if last is None or last not in wanted.sessions else (last,)
        for session_id in chain(first, wanted.sessions):
            count = wanted.sessions[session_id]
            if sum([counts.get(session_id, 0) >= count for counts in held]) < members:
                self._lacking[co_id] = session_id
                return False
        return True

    def is_ahead(self, co_id: RawCoId, state: KnownState) -> bool:
        """Whether a member holds more of it than this."""
        return any(
            count > state.sessions.get(session_id, 0)
            for counts in self._held.get(co_id, {}).values()
            for session_id, count in needed_copies(KnownState(True, counts), state).sessions.items()
        )

    def holders(self, co_id: RawCoId, wanted: KnownState) -> int:
        """How many members hold all of that."""
        return sum(
            KnownState(True, counts).covers(wanted) for counts in self._held.get(co_id, {}).values()
        )


def needed_copies(known: KnownState, durable: KnownState | None) -> KnownState:
    """What of `known` others must hold: of a deleted value the tombstone, all that anybody does.

    `durable` is what is stored here; None if that is not known: a client is told of a deletion only
    where there is one.
    """
    if durable is None:
        is_deleted = any(map(is_delete_session, known.sessions))
    else:
        is_deleted = bool(durable.sessions) and all(map(is_delete_session, durable.sessions))
    return KnownState(known.header, only_deletions(known.sessions)) if is_deleted else known


@dataclass(frozen=True, slots=True)
class Overdue:
    """A client for which more is held back than may be: send it away."""

    peer_id: str


class CopyGate:
    """Holds back what clients are told until enough nodes hold it."""

    def __init__(self, min_copies: int = 1) -> None:
        self.min_copies = min_copies
        self.ledger = CopyLedger()
        self._held_back: dict[RawCoId, dict[str, KnownState]] = {}
        self._by_peer: dict[str, set[RawCoId]] = {}
        self._exempt: set[str] = set()
        self._count = 0

    @property
    def held_back(self) -> int:
        """Acknowledgements that wait for copies."""
        return self._count

    @property
    def awaited(self) -> Collection[RawCoId]:
        """Values of which copies are waited for, the one waited for longest first."""
        return self._held_back.keys()

    def exempt(self, peer_id: str) -> None:
        """The client is the node itself."""
        self._exempt.add(peer_id)

    def screen(
        self, peer_id: str, message: Message, durable: KnownState | None, claimed: KnownState
    ) -> Message | Overdue | None:
        """What a client is told now in place of this; None: nothing.

        `durable` is what is stored here of the value that it is about; None if that is not known.
        `claimed` is what the client has of it, as far as it has said so.
        """
        if self.min_copies == 1 or peer_id in self._exempt:
            return message
        match message:
            case Known(co_id, known, _) if known.header:
                if not self._hold(peer_id, co_id, known):
                    return Overdue(peer_id)
            case Load(co_id, known) if known.header:
                pass
            case _:
                return message
        if self._is_copied(co_id, known, durable):
            self._release(peer_id, co_id)
            return message
        confirmed = self.ledger.held_by(co_id, self.min_copies - 1)
        sessions = {
            key: min(count, confirmed.sessions[key])
            for key, count in known.sessions.items()
            if key in confirmed.sessions
        }
        capped = KnownState(True, sessions)
        if isinstance(message, Load):
            return Load(co_id, capped)
        if not sessions and not message.is_correction and known.covers(claimed):
            return None
        return Known(co_id, capped, message.is_correction)

    def due(self, co_id: RawCoId, durable: KnownState | None) -> list[tuple[str, Known]]:
        """Members hold more of it now: which clients are told what because of that."""
        waiting = self._held_back.get(co_id)
        if not waiting:
            return []
        due: list[tuple[str, Known]] = []
        for peer_id, known in list(waiting.items()):
            if self._is_copied(co_id, known, durable):
                self._release(peer_id, co_id)
                due.append((peer_id, Known(co_id, known)))
        return due

    def _is_copied(self, co_id: RawCoId, known: KnownState, durable: KnownState | None) -> bool:
        wanted = needed_copies(known, durable)
        return self.ledger.are_held(co_id, self.min_copies - 1, wanted)

    def forget(self, peer_id: str) -> None:
        """The client has gone."""
        self._exempt.discard(peer_id)
        for co_id in list(self._by_peer.get(peer_id, ())):
            self._release(peer_id, co_id)

    def _hold(self, peer_id: str, co_id: RawCoId, known: KnownState) -> bool:
        waiting = self._held_back.setdefault(co_id, {})
        if peer_id not in waiting:
            if self._count >= MAX_HELD_BACK:
                return False
            self._count += 1
            self.ledger.watch(co_id)
            self._by_peer.setdefault(peer_id, set()).add(co_id)
        waiting[peer_id] = known
        return True

    def _release(self, peer_id: str, co_id: RawCoId) -> None:
        waiting = self._held_back.get(co_id, {})
        if waiting.pop(peer_id, None) is None:
            return
        if not waiting:
            del self._held_back[co_id]
        self._by_peer[peer_id].discard(co_id)
        if not self._by_peer[peer_id]:
            del self._by_peer[peer_id]
        self._count -= 1
        self.ledger.unwatch(co_id)
