"""How fast peers answer, and which requests another peer would answer sooner.

A peer that has nothing left to be asked for takes over what slower ones still owe, newest
request first: these would be answered last, and nothing that stays depends on them. The slow
peer is told not to answer them.
"""

from __future__ import annotations

from collections.abc import Callable

from hypercore.replication.inflight import Inflight, InflightRequest

GUESS_SECONDS = 0.2
"""What a peer that has not answered anything yet is expected to take."""

GAIN = 2.0
"""How many times sooner the answer must be expected, so that requests do not wander about."""

MAX_SILENT_SECONDS = 30.0
"""For how long at most a peer's silence is expected to go on: a machine that slept for hours finds
all peers silent for hours."""

CHECK_SECONDS = 0.25
MAX_CHECK_SECONDS = 2.0
"""How often to look again while requests are open and nothing arrives: ever less often."""


class Speed:
    """What one peer has shown of its speed."""

    __slots__ = (
        "_is_first",
        "_latency_seconds",
        "_progress_at",
        "_silent_seconds",
        "seconds_per_block",
    )

    def __init__(self) -> None:
        self.seconds_per_block = 0.0
        """Between two answers while it had more to answer; smoothed."""

        self._latency_seconds = 0.0
        """How long the first answer took, the last time that nothing was owed before it."""

        self._progress_at = 0.0
        self._is_first = True
        self._silent_seconds = 0.0

    @property
    def is_unknown(self) -> bool:
        """Whether the peer has shown neither how fast it is nor that it is silent."""
        return not (self.seconds_per_block or self._silent_seconds)

    @property
    def is_silent(self) -> bool:
        """Whether the peer lost requests by its silence, and has answered nothing since."""
        return self._silent_seconds > 0

    def started(self, now: float) -> None:
        """The peer is asked for something, and owed nothing before."""
        self._progress_at = now
        self._is_first = True

    def answered(self, blocks: int, now: float) -> None:
        """That many blocks have arrived together."""
        measured = (now - self._progress_at) / blocks
        present = self.seconds_per_block
        if self._is_first:
            self._latency_seconds = now - self._progress_at
            # A round trip is in it, too: for one block it says nothing, for many it is a bound.
            if blocks > 1 and (not present or measured < present):
                self.seconds_per_block = measured
        else:
            self.seconds_per_block = present + (measured - present) / 4 if present else measured
        self._is_first = False
        self._silent_seconds = 0.0
        self._progress_at = now

    def lost(self, inflight: Inflight, now: float) -> None:
        """Requests were taken from the peer: it gets none back until it answers something."""
        self._silent_seconds = max(self._silent_seconds, self.stalled_seconds(inflight, now))

    def stalled_seconds(self, inflight: Inflight, now: float) -> float:
        """How long the peer has owed us something without a sign of life."""
        return max(now - self._progress_at, 0.0) if len(inflight) else 0.0

    def expected_seconds(self, inflight: Inflight, position: int, now: float) -> float:
        """How long an answer will take that has `position` others before it.

        A peer that has been silent for a while is expected to be so for as long again.
        """
        if not self.seconds_per_block and not inflight.round_trip_seconds:
            expected = max(GUESS_SECONDS, inflight.round_trip_guess)
        else:
            # Not the time of answers that had others before them: `position` accounts for those.
            latency = self._latency_seconds or inflight.round_trip_seconds
            expected = max((position + 1) * self.seconds_per_block, latency)
        silent = max(self._silent_seconds, self.stalled_seconds(inflight, now))
        return max(expected, min(silent, MAX_SILENT_SECONDS))


class Recheck:
    """When to look again whether another peer is the better one to ask."""

    __slots__ = ("_seconds", "at")

    def __init__(self) -> None:
        self.at = 0.0
        self._seconds = CHECK_SECONDS

    def arrived(self, now: float) -> bool:
        """Some peer has answered; True when it is time to look again.

        What one peer goes on to send does not put that off: others may be idle, or late, by now.
        """
        is_time = self.at <= now
        self.at = now + CHECK_SECONDS if is_time else min(self.at, now + CHECK_SECONDS)
        self._seconds = CHECK_SECONDS
        return is_time

    def wanted(self, now: float) -> None:
        """More is asked for: look as soon as after an answer, if not sooner."""
        self._seconds = CHECK_SECONDS
        if not now < self.at <= now + CHECK_SECONDS:
            self.at = now + CHECK_SECONDS

    def looked(self, now: float) -> None:
        """Nothing has come since the last time: take twice as long to the next."""
        self.at = now + self._seconds
        self._seconds = min(2 * self._seconds, MAX_CHECK_SECONDS)


def overdue(
    speed: Speed,
    inflight: Inflight,
    other_speed: Speed,
    other: Inflight,
    offers: Callable[[int], bool],
    room: int,
    now: float,
) -> list[InflightRequest]:
    """At most `room` open requests of `other` that the first peer would answer much sooner."""
    position = len(other)
    found: list[InflightRequest] = []
    # A peer whose speed is not known is taken to be as fast as the other.
    assumed = speed.seconds_per_block or other_speed.seconds_per_block
    stalled = other_speed.stalled_seconds(other, now)
    for request in other.newest_first():
        position -= 1
        place = len(inflight) + len(found)
        ours = max(speed.expected_seconds(inflight, place, now), (place + 1) * assumed)
        theirs = max(
            (position + 1) * other_speed.seconds_per_block,
            other.round_trip_seconds - (now - request.sent_at),
        )
        # A peer that goes on answering loses nothing to one whose answers took longer lately.
        is_sooner = GAIN * max(ours, inflight.round_trip_seconds) < theirs
        if len(found) == room or not (is_sooner or GAIN * ours < stalled):
            break
        if request.index >= 0 and request.upgrade is None and offers(request.index):
            found.append(request)
    return found
