"""Which sequence numbers were told of: ranges come in any order, and may come again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from swarm.udx.packet import SackRange


class KnownRanges:
    """A set of numbers. Adding costs as much as is news, and a look at the ranges around it."""

    def __init__(self) -> None:
        # Ascending, and never touching one another.
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> list[SackRange]:
        """Add [start, stop); return the parts of it that are news. Requires start < stop."""
        starts, stops = self._starts, self._stops
        low = bisect_left(stops, start)
        if low == len(stops):  # beyond all of them, as most of the time
            starts.append(start)
            stops.append(stop)
            return [(start, stop)]
        known = stops[low]
        if starts[low] <= start:
            if stop <= known:
                return []
            if low + 1 == len(stops) or stop < starts[low + 1]:  # it grew
                stops[low] = stop
                return [(known, stop)]
        return self._join(low, bisect_right(starts, stop, low), start, stop)

    def _join(self, low: int, high: int, start: int, stop: int) -> list[SackRange]:
        """Join [start, stop) with the ranges low:high, which touch it."""
        starts, stops = self._starts, self._stops
        gaps: list[SackRange] = []
        at = start
        for index in range(low, high):
            if at < starts[index]:
                gaps.append((at, starts[index]))
            at = stops[index]
        if at < stop:
            gaps.append((at, stop))
        starts[low:high] = [min(start, starts[low]) if low < high else start]
        stops[low:high] = [max(at, stop)]
        return gaps

    def forget_before(self, seq: int) -> None:
        """Nobody tells of lower numbers any more."""
        if self._stops and self._stops[0] <= seq:
            index = bisect_right(self._stops, seq)
            del self._starts[:index], self._stops[:index]

    def clear(self) -> None:
        self._starts.clear()
        self._stops.clear()
