"""How much may be on its way, and how long to wait for an answer.

Source: dht-rpc 6.27.0 lib/io.js CongestionWindow for the window; RFC 6298 for the estimate, with
the original's second per attempt for a node not heard of before.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from swarm.announcement import Address

MAX_PER_INTERVAL = 80
MAX_IN_FLIGHT = 160
INTERVAL_SECONDS = 0.75
"""At most 80 unanswered requests of one interval, and 160 of four intervals."""

FIRST_TIMEOUT_SECONDS = 1.0
MIN_TIMEOUT_SECONDS = 0.3
MAX_TIMEOUT_SECONDS = 4.0

_INTERVALS = 4
_REMEMBERED = 4096


class CongestionWindow:
    """Counts what was sent and not answered in the last four intervals."""

    def __init__(self, now: float) -> None:
        self._sent = [0] * _INTERVALS
        self._current = 0
        self._next_interval = now + INTERVAL_SECONDS

    @property
    def is_full(self) -> bool:
        return self._sent[self._current] >= MAX_PER_INTERVAL or sum(self._sent) >= MAX_IN_FLIGHT

    @property
    def next_interval(self) -> float:
        """When there is room again at the latest."""
        return self._next_interval

    def advance(self, now: float) -> None:
        """Forget the intervals that have passed."""
        if now < self._next_interval:
            return
        passed = 1 + int((now - self._next_interval) / INTERVAL_SECONDS)
        for _ in range(min(passed, _INTERVALS)):
            self._current = (self._current + 1) % _INTERVALS
            self._sent[self._current] = 0
        self._next_interval += passed * INTERVAL_SECONDS

    def sent(self) -> None:
        self._sent[self._current] += 1

    def answered(self) -> None:
        """Something came back, or never will."""
        if self._sent[self._current]:
            self._sent[self._current] -= 1


@dataclass(slots=True)
class _Estimate:
    mean: float
    deviation: float


class RoundTrips:
    """Round-trip times of the nodes heard of last, at most 4096."""

    def __init__(self) -> None:
        self._estimates: OrderedDict[Address, _Estimate] = OrderedDict()

    def add(self, address: Address, seconds: float) -> None:
        """Learn from an answer to the first attempt; later ones are ambiguous."""
        estimate = self._estimates.pop(address, None)
        if estimate is None:
            estimate = _Estimate(seconds, seconds / 2)
        else:
            estimate.deviation += (abs(estimate.mean - seconds) - estimate.deviation) / 4
            estimate.mean += (seconds - estimate.mean) / 8
        self._estimates[address] = estimate
        if len(self._estimates) > _REMEMBERED:
            self._estimates.popitem(last=False)

    def round_trip(self, address: Address) -> float | None:
        estimate = self._estimates.get(address)
        return None if estimate is None else estimate.mean

    def timeout(self, address: Address, attempt: int) -> float:
        """Seconds to wait after this attempt, the first being 1; twice as long for each more."""
        estimate = self._estimates.get(address)
        if estimate is None:
            return FIRST_TIMEOUT_SECONDS
        seconds = (estimate.mean + 4 * estimate.deviation) * (1 << (attempt - 1))
        return min(max(seconds, MIN_TIMEOUT_SECONDS * attempt), MAX_TIMEOUT_SECONDS)
