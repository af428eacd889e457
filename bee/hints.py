"""What peers said a read will need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_HINTS_PER_REQUEST = 2176
"""Seqs one request may be answered with (the original sends no more: 2,048 + 128)."""

MAX_UNANSWERED = 4
"""Questions in a row without an answer, after which hints are not waited for."""

WAITS_FOR_HINTS = 2
"""Waits of a read in which hints may still come, and little is asked for beside them."""

MAX_HINTS = 4 * MAX_HINTS_PER_REQUEST
"""Seqs remembered; the oldest are forgotten first."""


PUSHED = -1
"""In the place of a hint's number: what it names was sent along with it."""


class Hints:
    """Seqs that peers hinted at and that were therefore asked for, nobody waiting.

    A peer may name only as many as we asked for: each request gives credit, unasked hints
    are ignored.
    """

    __slots__ = ("_count", "_credit", "_numbers", "_unanswered", "_waits", "are_pushed")

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._count = 0
        self._credit = 0
        self._unanswered = 0
        self._waits = 0
        self.are_pushed = False
        """Whether some peer has sent what it hinted at."""

    def expect(self, requests: int = 1) -> None:
        """A question was sent to our peers, in so many requests."""
        self._credit = min(self._credit + requests * MAX_HINTS_PER_REQUEST, MAX_HINTS)
        self._unanswered += 1
        self._waits = WAITS_FOR_HINTS if self._unanswered <= MAX_UNANSWERED else 0

    def wait_for_more(self) -> bool:
        """Whether hints should come with what a read is about to wait for; counts that wait."""
        if self._waits == 0:
            return False
        self._waits -= 1
        return True

    def add(self, seqs: Iterable[int], length: int, *, is_pushed: bool = False) -> Sequence[int]:
        """A hint arrived; returns what of it is worth fetching from a log of that length."""
        self._unanswered = 0
        fresh = [seq for seq in seqs if 0 < seq < length][: self._credit]
        self._credit -= len(fresh)
        self._count += 1
        self.are_pushed |= is_pushed
        for seq in fresh:
            self._numbers[seq] = PUSHED if is_pushed else self._count
        for seq in list(self._numbers)[: max(0, len(self._numbers) - MAX_HINTS)]:
            del self._numbers[seq]
        return fresh

    def __contains__(self, seq: int) -> bool:
        return seq in self._numbers

    def number_of(self, seqs: Iterable[int]) -> int:
        """Number (>= 1) of the last hint that named one of these; 0 if one was never named.

        `PUSHED` if all of them follow the hint by themselves.
        """
        numbers = [self._numbers.get(seq, 0) for seq in seqs]
        return 0 if 0 in numbers else max(numbers, default=0)

    def clear(self) -> None:
        self._numbers.clear()
