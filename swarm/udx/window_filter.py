"""The best of what was measured lately."""

from __future__ import annotations

from collections import deque


class WindowedMaximum:
    """The largest value of the last `span` periods; give it negated values for the smallest.

    A period is whatever the caller counts: rounds, or minutes. At most one value is kept for
    each, so the size is bounded by `span`.
    """

    def __init__(self, span: int) -> None:
        self._span = span
        self._entries: deque[tuple[int, float]] = deque()  # periods ascending, values descending

    @property
    def value(self) -> float | None:
        """None until something was added."""
        return self._entries[0][1] if self._entries else None

    def add(self, period: int, value: float) -> None:
        """Requires a period that is not before the last one."""
        entries = self._entries
        while entries and entries[-1][1] <= value:
            entries.pop()
        if not entries or entries[-1][0] != period:
            entries.append((period, value))
        while entries[0][0] <= period - self._span:
            entries.popleft()
