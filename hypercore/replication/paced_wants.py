"""The wants of one peer that are not answered yet; what is asked again and again has to wait.

A JavaScript reader that cannot get on at a fork takes its want back and repeats it at each answer:
a thousand times a second, with nothing new in any of them. So a want is answered at once the first
time, and again after a pause that doubles. Whoever has not asked for a second never waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hypercore.log import Head
from hypercore.replication.messages import Want
from hypercore.replication.wants import MAX_WINDOWS

FIRST_PAUSE_SECONDS = 1 / 64
MAX_PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class _Pace:
    """When a want was answered last, or will be, and how long the next such want waits then."""

    answered_at: float
    pause_seconds: float


class PacedWants:
    """A queue of wants. A machine; seconds are of any clock that goes forward."""

    def __init__(self) -> None:
        self._due: dict[Want, None] = {}
        self._put_off: dict[Want, float] = {}
        self._paces: dict[Want, _Pace] = {}
        self._history = (-1, -1)
        """The fork and length of which the peer has asked."""

        self.deadline = inf
        """When the next of those that are put off is due."""

    def __len__(self) -> int:
        """How many may be answered now."""
        return len(self._due)

    @property
    def waiting(self) -> int:
        """How many are not answered yet."""
        return len(self._due) + len(self._put_off)

    def add(self, want: Want, head: Head, now: float) -> None:
        """Queue a want for what is here of the log up to `head`."""
        if (head.fork, head.length) != self._history:
            self._history = head.fork, head.length
            self.begin_anew()
        if want in self._due or want in self._put_off:
            return
        pace = self._paces.get(want)
        if pace is None:
            if len(self._paces) == MAX_WINDOWS:
                del self._paces[next(iter(self._paces))]
            self._paces[want] = _Pace(now, FIRST_PAUSE_SECONDS)
            self._due[want] = None
            return
        due_at = max(now, pace.answered_at + pace.pause_seconds)
        pace.answered_at = due_at
        pace.pause_seconds = min(2 * pace.pause_seconds, MAX_PAUSE_SECONDS)
        if due_at > now:
            self._put_off[want] = due_at
            self.deadline = min(self.deadline, due_at)
        else:
            self._due[want] = None

    def begin_anew(self) -> None:
        """The log has changed, or the peer has: what is put off is due, and nothing is repeated."""
        self._paces.clear()
        if self._put_off:
            self._due.update(dict.fromkeys(self._put_off))
            self._put_off.clear()
            self.deadline = -inf

    def advance(self, now: float) -> bool:
        """Look at what was put off; True when something may be answered now."""
        if now < self.deadline:
            return False
        due = [want for want, due_at in self._put_off.items() if due_at <= now]
        for want in due:
            del self._put_off[want]
            self._due[want] = None
        self.deadline = min(self._put_off.values(), default=inf)
        return bool(self._due)

    def pop(self) -> Want:
        """Take out the oldest of those that may be answered now."""
        want = next(iter(self._due))
        del self._due[want]
        return want

    def clear(self) -> None:
        self._due.clear()
        self._put_off.clear()
        self.deadline = inf
