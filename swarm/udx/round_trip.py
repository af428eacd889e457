"""How long a packet and its answer take.

Source: RFC 6298, with the limits of libudx (udx-native 1.21.3).
"""

from __future__ import annotations

from swarm.udx.window_filter import WindowedMaximum

MIN_TIMEOUT_SECONDS = 1.0
MAX_TIMEOUT_SECONDS = 30.0
INITIAL_TIMEOUT_SECONDS = 1.0

_OUTLIER_SECONDS = 5.0
"""A longer sample than this, and than anything expected, was measured over the sleep of a
laptop. It must not make the timeout half a minute."""

_MINIMUM_PERIOD_SECONDS = 60.0
_MINIMUM_PERIODS = 5


class RoundTrip:
    """Estimates from samples; packets that were sent twice must not be sampled."""

    def __init__(self) -> None:
        self.smoothed: float | None = None
        """None until the first sample."""
        self.latest: float | None = None
        self.timeout = INITIAL_TIMEOUT_SECONDS
        """After which a packet without an answer is lost."""
        self._variation = 0.0
        self._minimum = WindowedMaximum(_MINIMUM_PERIODS)

    @property
    def minimum(self) -> float | None:
        """The shortest of the last five minutes."""
        value = self._minimum.value
        return None if value is None else -value

    def add(self, seconds: float, now: float) -> None:
        """Take a sample."""
        smoothed = self.smoothed
        if smoothed is None:
            seconds = min(seconds, MAX_TIMEOUT_SECONDS)
            self.smoothed = seconds
            self._variation = seconds / 2
        else:
            expected = smoothed + 5 * self._variation
            if seconds > max(expected, _OUTLIER_SECONDS):
                seconds = min(expected, MAX_TIMEOUT_SECONDS)
            self._variation += (abs(seconds - smoothed) - self._variation) / 4
            self.smoothed = smoothed + (seconds - smoothed) / 8
        self.latest = seconds
        self._minimum.add(int(now // _MINIMUM_PERIOD_SECONDS), -seconds)
        timeout = self.smoothed + 4 * self._variation
        self.timeout = min(max(timeout, MIN_TIMEOUT_SECONDS), MAX_TIMEOUT_SECONDS)
