"""When members are asked, and asked again, for copies that somebody waits for. A machine.

What makes them hold more they say by themselves. So where an answer changes nothing, the next
question waits longer: of a value that 20,000 sessions wrote to, one question a second took up all
that two nodes may have of each other's time, and the edits that were waited for came no further.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from node.covalue.ids import RawCoId
from node.mesh.messages import MAX_QUERY_IDS

FIRST_SECONDS = 1.0
LAST_SECONDS = 60.0
"""A value is asked about after the first pause, and then after pauses twice as long each, up to
the last."""

MAX_WAITED = 10 * MAX_QUERY_IDS
"""Values that are looked at in one go, of those waited for the ones that are so for longest."""


class CopyQuestions:
    """The values waited for, each with when it is asked about next."""

    def __init__(self) -> None:
        self._next: dict[RawCoId, tuple[float, float]] = {}
        """The time, and the pause before it."""

    def take(self, wanted: Sequence[RawCoId], now: float) -> list[RawCoId]:
        """Which of the values waited for are to be asked about now."""
        earlier, self._next = self._next, {}
        asked: list[RawCoId] = []
        for co_id in islice(wanted, MAX_WAITED):
            time, pause = earlier.get(co_id, (now + FIRST_SECONDS, FIRST_SECONDS))
            if time <= now and len(asked) < MAX_QUERY_IDS:
                asked.append(co_id)
                pause = min(2 * pause, LAST_SECONDS)
                time = now + pause
            self._next[co_id] = time, pause
        return asked

    def begin_anew(self, now: float) -> None:
        """Somebody has come, or gone: all that is waited for is to be asked about at once."""
        self._next = dict.fromkeys(self._next, (now, FIRST_SECONDS))
