"""When deleted values are erased from the disk: seldom, and never while it matters to anyone.

| what happened                    | next run            |
|----------------------------------|---------------------|
| erasing was enabled              | STARTUP_SECONDS on  |
| a run left something over        | FOLLOW_UP_SECONDS   |
| a deletion, and nothing planned  | THROTTLE_SECONDS    |
| a run failed                     | after next deletion |

A deletion while a run is planned or under way changes nothing: that run finds it.

Source: cojson 0.20.19 storage/DeletedCoValuesEraserScheduler.ts.
"""

from __future__ import annotations

from enum import Enum

STARTUP_SECONDS = 1.0
FOLLOW_UP_SECONDS = 1.0
THROTTLE_SECONDS = 60.0


class Phase(Enum):
    """What the schedule waits for."""

    OFF = "off"
    IDLE = "idle"
    PLANNED = "planned"
    RUNNING = "running"


class ErasureSchedule:
    """A machine: `deadline` says when to `begin`, what came of the run goes to `finish`."""

    def __init__(self) -> None:
        self.phase = Phase.OFF
        self._deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        """When the next run is due; None while none is planned."""
        return self._deadline

    def enable(self, now: float) -> None:
        """Plan the first run; repeating it changes nothing."""
        if self.phase is Phase.OFF:
            self._plan(now + STARTUP_SECONDS)

    def value_deleted(self, now: float) -> None:
        """There is something to erase."""
        if self.phase is Phase.IDLE:
            self._plan(now + THROTTLE_SECONDS)

    def begin(self) -> None:
        """A run starts. Requires that one is planned."""
        if self.phase is not Phase.PLANNED:
            raise RuntimeError(f"no erasing is planned: the schedule is {self.phase.value}")
        self.phase = Phase.RUNNING
        self._deadline = None

    def finish(self, now: float, *, has_more: bool) -> None:
        """The run is over, and may have left `has_more` to erase. Requires that one was begun."""
        if self.phase is not Phase.RUNNING:
            raise RuntimeError(f"no erasing was begun: the schedule is {self.phase.value}")
        if has_more:
            self._plan(now + FOLLOW_UP_SECONDS)
        else:
            self.phase = Phase.IDLE

    def _plan(self, deadline: float) -> None:
        self.phase = Phase.PLANNED
        self._deadline = deadline
