"""What a process knows to be stored, without asking the disk.

A value is *mounted* while the process holds it in memory: it was loaded from the store or brought
to it. Mounted values need not be loaded again for those that depend on them. Their states are
kept until they are unmounted; of other values only the latest asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from node.covalue.ids import RawCoId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState

MAX_UNMOUNTED = 10_000
"""States kept of values that are not mounted: a few MB."""


@dataclass(frozen=True, slots=True)
class HeldState:
    """How far one value is stored."""

    known: KnownState = NOTHING
    is_tombstone: bool = False

    def covers(self, wanted: KnownState) -> bool:
        """Whether nothing of `wanted` has yet to be stored; what was deleted never will be."""
        if self.is_tombstone:
            counts = wanted.sessions.items()
            wanted = KnownState(
                wanted.header, {key: count for key, count in counts if is_delete_session(key)}
            )
        return self.known.covers(wanted)


NOT_HELD = HeldState()


class HeldStates:
    """The states of all values that this process deals with, and which of them are mounted."""

    def __init__(self, max_unmounted: int = MAX_UNMOUNTED) -> None:
        self._max_unmounted = max_unmounted
        self._mounted: dict[RawCoId, HeldState] = {}
        self._unmounted: OrderedDict[RawCoId, HeldState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._mounted) + len(self._unmounted)

    @property
    def mounted(self) -> int:
        """How many values are mounted."""
        return len(self._mounted)

    def get(self, co_id: RawCoId) -> HeldState:
        """NOT_HELD when nothing is known of the value: it may be stored all the same."""
        return self._mounted.get(co_id) or self._unmounted.get(co_id) or NOT_HELD

    def replace(self, co_id: RawCoId, state: HeldState) -> None:
        """Take a state for what it is: the whole truth."""
        if co_id in self._mounted:
            self._mounted[co_id] = state
            return
        self._unmounted[co_id] = state
        self._unmounted.move_to_end(co_id)
        while len(self._unmounted) > self._max_unmounted:
            self._unmounted.popitem(last=False)

    def merge(self, co_id: RawCoId, state: HeldState) -> None:
        """Take a state that was read a moment ago: what was stored meanwhile counts too.

        A tombstone is never undone, and it hides all but its own sessions.
        """
        held = self.get(co_id)
        if held.is_tombstone == state.is_tombstone:
            state = HeldState(held.known.merged(state.known), state.is_tombstone)
        elif held.is_tombstone:
            state = held
        self.replace(co_id, state)

    def mount(self, co_id: RawCoId) -> None:
        """The process holds the value from now on."""
        if co_id not in self._mounted:
            self._mounted[co_id] = self._unmounted.pop(co_id, NOT_HELD)

    def is_mounted(self, co_id: RawCoId) -> bool:
        return co_id in self._mounted

    def forget(self, co_id: RawCoId) -> None:
        """The process has let go of the value; nothing is known of it any more."""
        self._mounted.pop(co_id, None)
        self._unmounted.pop(co_id, None)
