"""How much of our time a member may take, and what it need not pay for. Machines.

Seconds are those of the clock, not of the processor: where other jobs have most of the machine,
work for a member takes longer, as all our work does, and its share is one of what we have.
"""

from __future__ import annotations

SHARE = 0.05
"""The part of our time that a member may take, for reading and for answering it together."""

MAX_CREDIT_SECONDS = 0.2
"""What it may take at once; some 50,000 values announced."""

BYTE_SECONDS = 3e-9
"""What it takes to read and decrypt a byte: that time is not measured."""

MAX_PAUSE_SECONDS = 2.0


class Effort:
    """The credit of one member: time fills it, what is done for the member empties it."""

    __slots__ = ("_credit", "_updated_at")

    def __init__(self, now: float) -> None:
        self._credit = MAX_CREDIT_SECONDS
        self._updated_at = now

    def spend(self, seconds: float, now: float, size: int = 0) -> None:
        """So long was worked for the member, which had sent `size` bytes."""
        self._update(now)
        self._credit -= seconds + size * BYTE_SECONDS

    def earn(self, seconds: float) -> None:
        """Something it said or brought was worth so much; beyond MAX_CREDIT_SECONDS it is lost."""
        self._credit += seconds

    def use_up(self, now: float) -> None:
        """Have it earn all that it spends from now on."""
        self._update(now)
        self._credit = min(self._credit, 0.0)

    def pause_seconds(self, now: float) -> float:
        """How long it has to wait from now on, at first; 0 for one that owes nothing."""
        self._update(now)
        return min(-self._credit / SHARE, MAX_PAUSE_SECONDS) if self._credit < 0 else 0.0

    def _update(self, now: float) -> None:
        earned = (now - self._updated_at) * SHARE
        self._updated_at = now
        self._credit = min(self._credit + earned, MAX_CREDIT_SECONDS)


class Quota:
    """How many of something are free: so many at once, and so many a second."""

    __slots__ = ("_is_used_up", "_left", "_most", "_per_second", "_updated_at")

    def __init__(self, most: float, per_second: float, now: float) -> None:
        self._most = self._left = most
        self._per_second = per_second
        self._updated_at = now
        self._is_used_up = False

    def take(self, number: int, now: float, most: float = 0.0) -> int:
        """How many of these are still free; they are used up now. `most` may only grow."""
        if most > self._most:
            self._left += 0.0 if self._is_used_up else most - self._most
            self._per_second *= most / self._most
            self._most = most
        earned = (now - self._updated_at) * self._per_second
        self._updated_at = now
        self._left = min(self._left + earned, self._most)
        free = min(number, int(self._left))
        self._left -= free
        return free

    def use_up(self, now: float) -> None:
        """Nothing is free now, and no more at once when there is more; it fills with time."""
        self._left, self._updated_at, self._is_used_up = 0.0, now, True
