"""[trio] Clients whose messages take far longer than others' share half of the time.

What a message takes depends on what is stored: to be the first to load a group of 4000 members
takes 20 ms where most loads take 50 us, and a client that asked for such things again and again had
nearly all of the time. It is found out by looking at the clock of our own thread, on which other
jobs on the machine do not count.

They share it fairly: whoever has used least of it is the first that may go on. So one that sends
something slow once does not wait for those that do nothing else. To have been away for long, or to
come anew, counts as having had one's share.

Source: Demers, Keshav, Shenker, "Analysis and simulation of a fair queueing algorithm", 1989.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import trio

MESSAGE_SECONDS = 0.002
"""What a message may take; on a slow machine most take 1 ms at most."""

BYTE_SECONDS = 1e-7
"""And in addition for each byte of content: checking that takes a fifth of it."""

REST = 2
"""Times as long as a message took, its client rests, if it is the only one."""

_INSTANT = 1e-6
"""What is left of a rest by the errors of floating point numbers."""


@dataclass(slots=True, order=True)
class _Rest:
    """Time that is left to others for what a client has used."""

    used: float
    """So far by its client, or what counts as that."""
    number: int
    seconds: float
    """How much is left."""


class SlowLane:
    """All slow clients of one node."""

    def __init__(self) -> None:
        self._rests: list[_Rest] = []
        """Those that are not over, in the order in which they end."""
        self._updated_at = 0.0
        self._fair_use = 0.0
        """What a client would have used by now that was always here and had its share."""
        self._number = 0

    def place(self) -> Place:
        """For one more client."""
        return Place(self)

    def begin(self, used: float, seconds: float) -> _Rest:
        """One that had used so much has had so much more: how it rests."""
        self._update()
        self._number += 1
        rest = _Rest(max(self._fair_use, used) + seconds, self._number, REST * seconds)
        insort(self._rests, rest)
        return rest

    def seconds_left(self, rest: _Rest) -> float:
        """How long it takes if nobody comes that has used less; 0 when it is over."""
        self._update()
        if not rest.seconds:
            return 0.0
        before = bisect_left(self._rests, rest)
        return sum(other.seconds for other in self._rests[: before + 1])

    def end(self, rest: _Rest) -> None:
        """It is over, or its client has left."""
        self._update()
        if rest.seconds > 0:
            self._rests.remove(rest)

    def _update(self) -> None:
        now = trio.current_time()
        elapsed, self._updated_at = now - self._updated_at, now
        while self._rests:
            rest = self._rests[0]
            passed = min(elapsed, rest.seconds)
            self._fair_use += passed / (REST * len(self._rests))
            if rest.seconds > elapsed + _INSTANT:
                rest.seconds -= elapsed
                return
            rest.seconds = 0.0
            elapsed -= passed
            del self._rests[0]


class Place:
    """That of one client."""

    def __init__(self, lane: SlowLane) -> None:
        self._lane = lane
        self._used = 0.0

    async def rest(self, seconds: float) -> None:
        """The client has just had so much time: let it be the others' turn.

        Cancel: nobody waits for it any more.
        """
        rest = self._lane.begin(self._used, seconds)
        self._used = rest.used
        try:
            left = self._lane.seconds_left(rest)
            while left:
                await trio.sleep(left)
                left = self._lane.seconds_left(rest)  # others may have come first
        finally:
            self._lane.end(rest)


def is_slow(seconds: float, messages: int, content_bytes: int) -> bool:
    """Whether these took far more time than what they are explains."""
    return seconds > MESSAGE_SECONDS * messages + BYTE_SECONDS * content_bytes
