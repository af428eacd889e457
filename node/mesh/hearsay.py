"""Edits that came from a member: who hears of them without us, and how it is told all the same.

    a client of A edits   A tells all members that keep the value, in full and at once
    B and C merge it      each has heard from the other that A is its neighbor, too: so B says a
                          moment later, in brief, how far it is, if C has not said it by then; and
                          C a second later, if B has not

So an edit costs two nodes that both have it from a third a few bytes, not two announcements and
two acknowledgements. Nothing depends on what anybody says of its neighbors but the time that it
takes: each is told of every edit, by everybody of whom it has not heard that it has it. A member
that is no neighbor of where an edit comes from is told at once, and so are nodes of older versions,
which say nothing of neighbors. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from node.covalue.content import Content
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.hearsay_messages import MAX_NAMES, Neighbors, short_name
from node.mesh.messages import Sessions

FIRST_SECONDS = 0.5
"""After which the member with the smaller id says how far it is."""

SECOND_SECONDS = 1.5
"""After which the other one does, if it has heard nothing until then."""

MAX_ORIGINS = 8192
"""Sessions remembered with the member that brought them last (about 3 MB)."""

MAX_SHORT_NAMES = 16_384
"""Sessions that moved last, by their names (about 5 MB)."""

MAX_NEIGHBORS = 65_536
"""Neighbors of one member; of edits that come from any beyond these it is told in full."""

MAX_WAITING = MAX_NAMES
"""Sessions that one member is to be told of in brief; of any beyond these it is told in full."""

Origin = bytes | None
"""The id of the member that an edit came from; None is a client of our own."""


class Origins:
    """From whom edits came that are about to become durable."""

    def __init__(self) -> None:
        self._brought: OrderedDict[tuple[RawCoId, CoSessionId], tuple[int, bytes]] = OrderedDict()

    def note(self, member_id: bytes, contents: Iterable[Content]) -> None:
        """A member's log held these, and they are about to be handed in."""
        brought = self._brought
        for content in contents:
            for session_id, part in content.new.items():
                key = (content.co_id, session_id)
                brought[key] = (part.after + len(part.transactions), member_id)
                brought.move_to_end(key)
        while len(brought) > MAX_ORIGINS:
            brought.popitem(last=False)

    def split(
        self, moved: Mapping[RawCoId, Sessions]
    ) -> Mapping[Origin, Mapping[RawCoId, Sessions]]:
        """What became durable, by where it came from."""
        parts: dict[Origin, dict[RawCoId, dict[CoSessionId, int]]] = {}
        for co_id, counts in moved.items():
            if not counts:
                parts.setdefault(None, {})[co_id] = {}  # a header, which anybody may have brought
            for session_id, count in counts.items():
                most, member_id = self._brought.get((co_id, session_id), (-1, b""))
                origin = member_id if count <= most else None
                parts.setdefault(origin, {}).setdefault(co_id, {})[session_id] = count
        return parts


class ShortNames:
    """What names stand for, of sessions that moved here lately."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[bytes, tuple[RawCoId, CoSessionId, int]] = OrderedDict()

    def note(self, moved: Mapping[RawCoId, Sessions]) -> None:
        """These are durable here."""
        sessions = self._sessions
        for co_id, counts in moved.items():
            for session_id, count in counts.items():
                name = short_name(co_id, session_id)
                known = sessions.pop(name, None)
                most = count if known is None else max(count, known[2])
                sessions[name] = (co_id, session_id, most)
        while len(sessions) > MAX_SHORT_NAMES:
            sessions.popitem(last=False)

    def find(self, name: bytes) -> tuple[RawCoId, CoSessionId, int] | None:
        """The session, and how much of it is held here."""
        return self._sessions.get(name)


class Hearsay:
    """From whom one member hears, and what it is to be told in brief."""

    def __init__(self) -> None:
        self.told: frozenset[bytes] | None = None
        """Our neighbors, as far as it was told."""
        self.due_at = inf
        """When what waits is to be said."""
        self.ready: list[tuple[bytes, int]] = []
        """What is to be said when the connection can take it."""
        self._neighbors: set[bytes] | None = None
        self._waiting: dict[tuple[RawCoId, CoSessionId], int] = {}

    @property
    def is_spoken(self) -> bool:
        """Whether it has said anything of its neighbors: older nodes do not."""
        return self._neighbors is not None

    def receive(self, neighbors: Neighbors) -> None:
        """The member hears from others than before."""
        known = set() if self._neighbors is None else self._neighbors
        known.difference_update(neighbors.removed)
        known.update(neighbors.added[: MAX_NEIGHBORS - len(known)])
        self._neighbors = known

    def hears(self, origin: Origin) -> bool:
        """Whether it hears of what comes from there without us, as it says."""
        return self._neighbors is not None and origin in self._neighbors

    def add(self, co_id: RawCoId, counts: Sessions, due_at: float) -> bool:
        """Tell it of these then, or earlier with others; False when too much waits."""
        waiting = self._waiting
        if len(waiting) + len(self.ready) + len(counts) > MAX_WAITING:
            return False
        for session_id, count in counts.items():
            waiting[co_id, session_id] = max(count, waiting.get((co_id, session_id), 0))
        if waiting:
            self.due_at = min(self.due_at, due_at)
        return True

    def release(self, lacks: Callable[[RawCoId, Sessions], bool]) -> bool:
        """It is time; returns whether there is anything to say that it has not said itself."""
        waiting, self._waiting, self.due_at = self._waiting, {}, inf
        for (co_id, session_id), count in waiting.items():
            if lacks(co_id, {session_id: count}):
                self.ready.append((short_name(co_id, session_id), count))
        return bool(self.ready)

    def take(self) -> Sequence[tuple[bytes, int]]:
        """What is to be said now; it is said once."""
        ready, self.ready = self.ready, []
        return ready
