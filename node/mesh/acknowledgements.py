"""What a member is known to hold durably of our values, and what we owe it to say of its own.

Whatever a member says that it holds (an update, an answer, a question, an acknowledgement) is
durable there: that is when nodes say so. What it was told of and has not confirmed is
*unacknowledged*. Nothing here is resent: a member that reconnects compares known states.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import has_counts, merge_counts
from node.mesh.messages import Sessions

MAX_UNACKNOWLEDGED = 100_000
"""Values that one member may leave unacknowledged (about 30 MB) before their number is a lower
bound: the oldest are forgotten."""

MAX_OWED = 100_000
"""Acknowledgements that may wait for a slow member; what does not fit it has to ask for."""

MAX_STATED = 2048
"""Values whose last statement is remembered, so that a member is not told what it told us."""

MAX_STATED_SESSIONS = 100_000
"""Counts in these statements (about 25 MB): a member may name sessions that nobody ever began."""


def holds(held: Sessions | None, wanted: Sessions) -> bool:
    """Whether nothing of `wanted` is lacking in `held`.

    Of a deleted value only a tombstone is held: its delete sessions alone count.
    """
    if held is None:
        return False
    if held and all(is_delete_session(session_id) for session_id in held):
        wanted = {key: count for key, count in wanted.items() if is_delete_session(key)}
    return has_counts(held, wanted)


MAX_TOLD_WHOLE = 32
"""Sessions of a value up to which all that is held is told: that spares updates, and costs little.
Of one that very many wrote to, each edit would be acknowledged with all of them."""


def held_of(held: Sessions, claimed: Sessions) -> Sessions:
    """What of `held` to tell a member that claimed as much; nothing that it claimed is left out."""
    if len(held) <= MAX_TOLD_WHOLE:
        return held
    told = {key: held[key] for key in claimed if key in held}
    if len(told) < len(claimed):  # of a deleted value the tombstone is held in their place
        told.update((key, count) for key, count in held.items() if is_delete_session(key))
    return told


class Acknowledgements:
    """Those of one member, in both directions. Sync and pure."""

    def __init__(self) -> None:
        self.is_compared = False
        """Whether what it holds was compared once with all that is wanted here by now."""
        self.told_length = 0
        """Length of our data core when it was welcomed: it catches up to there, if it keeps all."""
        self.is_spoken = False
        """Whether the member ever acknowledged anything: older nodes do not."""
        self.hears_everything = False
        """Whether it wants to be told of everything."""
        self.is_partial = False
        """Whether more is unacknowledged than is remembered."""
        self.merged_there = 0
        """Blocks [0, merged_there) of our data core are merged there, as the member says."""
        self.declined = 0
        """Values that it said not to take."""
        self._unacknowledged: OrderedDict[RawCoId, dict[CoSessionId, int]] = OrderedDict()
        self._stated: OrderedDict[RawCoId, dict[CoSessionId, int]] = OrderedDict()
        self._stated_sessions = 0
        self._owed: dict[RawCoId, Sessions | None] = {}
        self._merged_here = 0
        self._merged_told = -1
        """Below any length: the first word tells the member that we acknowledge at all."""

    # What the member holds of our values.

    @property
    def unacknowledged(self) -> int:
        """Values that it heard of and has not confirmed."""
        return len(self._unacknowledged)

    def lacks(self, co_id: RawCoId, sessions: Sessions) -> bool:
        """Whether it has not said lately that it holds that much."""
        return not holds(self._stated.get(co_id), sessions)

    def told(self, co_id: RawCoId, sessions: Sessions) -> None:
        """It was told that we hold that much, and wants it."""
        if not self.lacks(co_id, sessions):
            return
        merge_counts(self._unacknowledged.setdefault(co_id, {}), sessions)
        if len(self._unacknowledged) > MAX_UNACKNOWLEDGED:
            self._unacknowledged.popitem(last=False)
            self.is_partial = True

    def note(self, co_id: RawCoId, sessions: Sessions | None) -> Sessions | None:
        """It says that it holds that much; with None, not even the header.

        Returns what it has said by now, as far as that is remembered.
        """
        if sessions is None:
            return None
        stated = self._stated.pop(co_id, {})
        self._stated_sessions -= len(stated)
        merge_counts(stated, sessions)
        self._confirm(co_id, stated)
        self._stated[co_id] = stated
        self._stated_sessions += len(stated)
        while len(self._stated) > MAX_STATED or self._stated_sessions > MAX_STATED_SESSIONS:
            _, forgotten = self._stated.popitem(last=False)
            self._stated_sessions -= len(forgotten)
        return stated

    def _confirm(self, co_id: RawCoId, stated: Sessions) -> None:
        """What it holds is not waited for any more, also if its statement is forgotten soon."""
        wanted = self._unacknowledged.get(co_id)
        if wanted is None:
            return
        if holds(stated, wanted):
            self._settle(co_id)
            return
        for session_id in [key for key, count in wanted.items() if stated.get(key, 0) >= count]:
            del wanted[session_id]

    def decline(self, co_id: RawCoId) -> None:
        """It does not take this value."""
        self.declined += 1
        self._settle(co_id)

    def _settle(self, co_id: RawCoId) -> None:
        self._unacknowledged.pop(co_id, None)
        if not self._unacknowledged:
            self.is_partial = False

    def keep(self, is_wanted: Callable[[RawCoId], bool]) -> None:
        """It lost interest in all other values: its word about them is not waited for any more."""
        for co_id in [co_id for co_id in self._unacknowledged if not is_wanted(co_id)]:
            self._settle(co_id)

    # What we hold of the member's values.

    @property
    def is_owing(self) -> bool:
        return bool(self._owed) or self._merged_here > self._merged_told

    def owe(self, co_id: RawCoId, sessions: Sessions | None) -> None:
        """So much of a value is durable here; None: it is not taken."""
        earlier = self._owed.get(co_id)
        if earlier and sessions:
            sessions = merge_counts({**earlier}, sessions)
        if co_id in self._owed or len(self._owed) < MAX_OWED:
            self._owed[co_id] = sessions

    def owe_merged(self, length: int) -> None:
        """Blocks [0, length) of its data core are merged here."""
        self._merged_here = max(self._merged_here, length)

    def take(self, max_values: int) -> tuple[int, list[tuple[RawCoId, Sessions | None]]]:
        """(Blocks merged, values) to tell it now: each is told once."""
        co_ids = [co_id for co_id, _ in zip(self._owed, range(max_values), strict=False)]
        self._merged_told = self._merged_here
        return self._merged_here, [(co_id, self._owed.pop(co_id)) for co_id in co_ids]
