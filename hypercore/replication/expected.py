"""Blocks that one peer is about to send without a request, since an extension asked it to.

A reader that asks by an extension (a bee, for all blocks that a read will look at) saves the round
trip in which it would learn which blocks to request. Meanwhile nobody else is asked for what the
peer said it would send. Blocks that do not come are requested as ever: at once when a later one
comes, since they are sent in the order in which they are announced.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import takewhile

MAX_ALLOWED = 8192
"""The most blocks that a peer may still send unasked."""

PATIENCE_SECONDS = 0.5
"""When nothing announced has come for this long, or for four round trips, it is requested."""


class ExpectedPushes:
    """How many blocks a peer may send, and which of them it has announced."""

    __slots__ = ("_allowed", "_came", "_early", "_indices", "deadline", "missed")

    def __init__(self) -> None:
        self._allowed = 0
        self._came = 0
        self._indices: dict[int, bool] = {}  # whether the peer has announced it, or we only hope
        self._early: set[int] = set()
        self.deadline = math.inf
        """When what was announced is given up."""

        self.missed = 0
        """Blocks that were expected, and did not come in time."""

    @property
    def is_kept(self) -> bool:
        """Whether the peer sends what it announces: at least four of five blocks.

        An honest peer leaves some out: those of which a request was answered and withdrawn.
        """
        return 4 * self.missed <= self._came

    def allow(self, count: int) -> None:
        """So many more blocks may come."""
        self._allowed = min(self._allowed + count, MAX_ALLOWED)

    def admit(self) -> bool:
        """Whether a block that nobody requested may be looked at; counts it."""
        if self._allowed == 0:
            return False
        self._allowed -= 1
        return True

    def still_to_come(self, indices: Sequence[int]) -> Sequence[int]:
        """Those of the announced blocks that can still come, in this order.

        Some may have come with the announcement, and have been looked at before it: what it names
        before the last of those was left out.
        """
        past = max((at for at, index in enumerate(indices, 1) if index in self._early), default=0)
        self._early.difference_update(indices)
        return indices[past:]

    def left_out_before(self, indices: Sequence[int]) -> list[int]:
        """What the peer announced before it announced these, if some of these have come.

        The earlier ones will not come any more, and are expected no longer.
        """
        if self._early.isdisjoint(indices):
            return []
        return self.drop([index for index, is_announced in self._indices.items() if is_announced])

    def expect(
        self, indices: Sequence[int], deadline: float, *, is_announced: bool = False
    ) -> None:
        """Wait for these, in this order; the first is to come before the deadline."""
        for index in indices:
            self._indices[index] = is_announced or self._indices.get(index, False)
        if self._indices:
            self.deadline = deadline

    def drop(self, indices: Iterable[int]) -> list[int]:
        """Something else comes instead of these; returns which of them were expected."""
        dropped = [index for index in indices if index in self._indices]
        for index in dropped:
            del self._indices[index]
        if not self._indices:
            self.deadline = math.inf
        return dropped

    def __contains__(self, index: int) -> bool:
        return index in self._indices

    def note_early(self, index: int) -> None:
        """A block came, usable or not, perhaps before its announcement was looked at."""
        if len(self._early) == MAX_ALLOWED:
            self._early.clear()
        self._early.add(index)

    def came(self, index: int, deadline: float) -> list[int]:
        """A block came, usable or not; the next one has until `deadline`.

        Returns what was expected before it: that was left out, and is expected no longer.
        """
        if index not in self._indices:
            return []
        self._came += 1
        left_out = list(takewhile(index.__ne__, self._indices))
        for earlier in left_out:
            del self._indices[earlier]
        del self._indices[index]
        self.deadline = deadline if self._indices else math.inf
        return left_out

    def give_up(self) -> list[int]:
        """Expect nothing any more; returns what has not come."""
        given_up = list(self._indices)
        self._indices.clear()
        self.missed += len(given_up)
        self.deadline = math.inf
        return given_up
