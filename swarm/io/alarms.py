"""One timer for many things that are due at times of their own."""

from __future__ import annotations

import heapq
import math

import trio


class Alarms:
    """When which number is due. Setting one that is set already moves it.

    One task waits. An alarm that is moved to later costs nothing until the earlier time has come,
    which is how most of them go: a stream's time-out is put off with every packet.
    """

    def __init__(self) -> None:
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []  # one entry each at most, perhaps too early
        self._queued: dict[int, float] = {}  # the time of that entry
        self._scope = trio.CancelScope()

    def set(self, number: int, at: float) -> None:
        """Make a number due at a time; `math.inf` for never."""
        if at == math.inf and number not in self._queued:
            return  # nothing is kept for what is never due
        self._due[number] = at
        if at < self._queued.get(number, math.inf):
            self._queued[number] = at
            heapq.heappush(self._heap, (at, number))
            if at < self._scope.deadline:
                self._scope.deadline = at

    def remove(self, number: int) -> None:
        """Make a number due no more."""
        self._due.pop(number, None)
        self._queued.pop(number, None)

    async def wait_due(self) -> list[int]:
        """The numbers that are due, which are not set any more; at least one.

        Cancel: nothing is lost.
        """
        while True:
            self._scope = trio.CancelScope(deadline=self._heap[0][0] if self._heap else math.inf)
            with self._scope:
                await trio.sleep_forever()
            due = self._take(trio.current_time())
            if due:
                return due

    def _take(self, now: float) -> list[int]:
        taken: list[int] = []
        while self._heap and self._heap[0][0] <= now:
            queued_at, number = heapq.heappop(self._heap)
            if self._queued.get(number) != queued_at:
                continue  # there is an earlier entry, or it was removed
            del self._queued[number]
            due_at = self._due.pop(number)
            if due_at <= now:
                taken.append(number)
            else:
                self.set(number, due_at)
        return taken
