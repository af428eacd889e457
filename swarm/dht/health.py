"""Whether the network works, from answers and timeouts of the last ticks.

Source: dht-rpc 6.27.0 lib/health.js.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

_WINDOW_TICKS = 4
_OFFLINE_TICKS = 2
_IDLE_REQUESTS = 4
_DEGRADED_RATE = 0.5


class Health(enum.Enum):
    """What became of what we asked lately."""

    ONLINE = "online"
    DEGRADED = "degraded"
    """More than half was not answered, for four ticks."""

    OFFLINE = "offline"
    """Nothing was answered, for two ticks."""


@dataclass(slots=True)
class HealthMonitor:
    """Fed at every tick; ticks with hardly any traffic say nothing."""

    state: Health = Health.ONLINE
    _answers: int = 0
    _timeouts: int = 0
    _verdicts: deque[Health] = field(default_factory=lambda: deque(maxlen=_WINDOW_TICKS))

    def tick(self, answers: int, timeouts: int) -> None:
        """Take the counts since the start."""
        answered, self._answers = answers - self._answers, answers
        lost, self._timeouts = timeouts - self._timeouts, timeouts
        if answered + lost < _IDLE_REQUESTS:
            return
        if not answered:
            verdict = Health.OFFLINE
        elif lost / (answered + lost) > _DEGRADED_RATE:
            verdict = Health.DEGRADED
        else:
            verdict = Health.ONLINE
        self._verdicts.append(verdict)
        self._judge(verdict)

    def reset(self) -> None:
        self._verdicts.clear()
        self.state = Health.ONLINE

    def _judge(self, last: Health) -> None:
        recent = list(self._verdicts)
        if recent[-_OFFLINE_TICKS:] == [Health.OFFLINE] * _OFFLINE_TICKS:
            self.state = Health.OFFLINE
        elif recent == [Health.DEGRADED] * _WINDOW_TICKS:
            self.state = Health.DEGRADED
        elif last is not Health.OFFLINE and (
            self.state is Health.OFFLINE or recent == [Health.ONLINE] * _WINDOW_TICKS
        ):
            self.state = Health.ONLINE
