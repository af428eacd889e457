"""BBR: how many packets may be under way, and how fast they may leave.

It keeps a model of the path: the largest rate at which it delivered, and the shortest time it took.
It sends at that rate, with about as many packets under way as the path holds. A loss changes
nothing in the model: at 1 % loss a window that is halved with every loss is ten times slower.

| state           | rate         | until                                                         |
|-----------------|--------------|---------------------------------------------------------------|
| startup         | 2.89         | three rounds without a quarter more                           |
| drain           | 1 / 2.89     | no more is under way than the path holds                      |
| probe bandwidth | 1.25, .75, 1 | for ever; a phase takes one round trip, there are eight       |
| probe time      | 1            | 200 ms with 4 packets under way, if 10 s gave no shorter time |

Source: draft-cardwell-iccrg-bbr-congestion-control-00 and the values of libudx (udx-native
1.21.3).
"""

from __future__ import annotations

import enum

from swarm.udx.delivery_rate import RateSample
from swarm.udx.window_filter import WindowedMaximum

INITIAL_WINDOW_PACKETS = 10
MIN_WINDOW_PACKETS = 4

_STARTUP_GAIN = 2.88539  # 2 / ln 2: the smallest that doubles the rate in each round
_DRAIN_GAIN = 1 / _STARTUP_GAIN
_WINDOW_GAIN = 2.0
_PHASE_GAINS = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
_BANDWIDTH_ROUNDS = len(_PHASE_GAINS) + 2
_PACING_MARGIN = 0.99  # a little below what was measured, so that no queue is left standing

_FULL_GROWTH = 1.25
_FULL_ROUNDS = 3

_MIN_ROUND_TRIP_SECONDS = 10.0
_PROBE_SECONDS = 0.2

_TIMER_SECONDS = 0.001
"""Neither end wakes up more exactly than that: a shorter round trip counts as this long."""

_AGGREGATION_ROUNDS = 5
_MAX_AGGREGATION_SECONDS = 0.1
_BURSTS_UNDER_WAY = 3  # one that is being sent, one on the path, one that is being answered


class BbrState(enum.Enum):
    """What the model is being used for."""

    STARTUP = enum.auto()
    DRAIN = enum.auto()
    PROBE_BANDWIDTH = enum.auto()
    PROBE_ROUND_TRIP = enum.auto()


class Recovery(enum.IntEnum):
    """What the sender knows of losses; ordered by how bad it is."""

    OPEN = 0
    RECOVERY = 1
    LOSS = 2


class Bbr:
    """The model, and what follows from it. `now` is in seconds, everything else in packets.

    `first_phase` in [0, 7) spreads streams that began together over the phases.
    """

    def __init__(self, now: float, first_phase: int) -> None:
        self.state = BbrState.STARTUP
        self.window = INITIAL_WINDOW_PACKETS
        """Packets that may be under way."""
        self.pacing_rate = _STARTUP_GAIN * self.window / _TIMER_SECONDS
        """Packets per second."""
        self.burst = 1
        """Packets that leave at once; the sender sets it."""
        self._first_phase = first_phase
        self._bandwidths = WindowedMaximum(_BANDWIDTH_ROUNDS)
        self._min_round_trip: float | None = None
        self._min_round_trip_at = now
        self._has_paced_by_time = False
        self._round = 0
        self._round_ends_at = 0  # a count of delivered packets
        self._is_round_start = False
        self._full_bandwidth = 0.0
        self._full_rounds = 0
        self._is_full = False
        self._phase = 0
        self._phase_since = now
        self._probe_ends_at: float | None = None
        self._has_probe_round_passed = False
        self._is_restarting = False
        self._prior_window = 0
        self._last_recovery = Recovery.OPEN
        self._is_conserving = False
        self._epoch_since = now
        self._epoch_acked = 0
        self._extra_acked = [0, 0]
        self._extra_rounds = 0

    @property
    def bandwidth(self) -> float:
        """Packets per second that the path was seen to deliver; 0 before anything was."""
        return self._bandwidths.value or 0.0

    def receive_sample(
        self, sample: RateSample, in_flight: int, delivered: int, recovery: Recovery, now: float
    ) -> None:
        """Some packets were acknowledged; the numbers are those after it."""
        self._update_bandwidth(sample, delivered)
        self._update_aggregation(sample, now)
        self._update_phase(sample, in_flight, now)
        self._look_for_full_pipe(sample)
        self._drain(in_flight, now)
        self._update_round_trip(sample, in_flight, delivered, now)
        self._update_pacing(sample)
        self._update_window(sample, in_flight, delivered, recovery)

    def receive_idle_start(self, now: float) -> None:
        """The first packet leaves after a pause in which the application had nothing to send."""
        self._is_restarting = True
        self._epoch_since = now
        self._epoch_acked = 0
        if self.state is BbrState.PROBE_BANDWIDTH and self.bandwidth:
            self.pacing_rate = self.bandwidth * _PACING_MARGIN
        elif self.state is BbrState.PROBE_ROUND_TRIP:
            self._finish_probe(now)

    def receive_recovery_start(self) -> None:
        """A loss was found; the present window comes back when it is repaired."""
        self._save_window()

    def receive_timeout(self, in_flight: int) -> None:
        """Nothing was heard for so long that all counts as lost: begin again with one packet."""
        self._save_window()
        self._last_recovery = Recovery.LOSS
        self._full_bandwidth = 0.0
        self._is_round_start = True
        self._is_conserving = False
        self.window = in_flight + 1

    def _capacity(self, gain: float) -> int:
        """Packets that the path holds, times `gain`."""
        if self._min_round_trip is None:
            return INITIAL_WINDOW_PACKETS
        return int(self.bandwidth * self._min_round_trip * gain)

    def _update_bandwidth(self, sample: RateSample, delivered: int) -> None:
        self._is_round_start = False
        if sample.interval <= 0:
            return
        if sample.prior_delivered >= self._round_ends_at:
            self._round_ends_at = delivered
            self._round += 1
            self._is_round_start = True
            self._is_conserving = False
        bandwidth = sample.delivered / sample.interval
        if not sample.is_app_limited or bandwidth >= self.bandwidth:
            self._bandwidths.add(self._round, bandwidth)

    def _update_aggregation(self, sample: RateSample, now: float) -> None:
        """See how many more packets are acknowledged at once than the rate explains."""
        if sample.acked <= 0 or sample.interval <= 0:
            return
        extra = self._extra_acked
        if self._is_round_start:
            self._extra_rounds += 1
            if self._extra_rounds >= _AGGREGATION_ROUNDS:
                self._extra_rounds = 0
                extra.reverse()
                extra[0] = 0
        expected = int(self.bandwidth * (now - self._epoch_since))
        if self._epoch_acked <= expected:
            self._epoch_acked = 0
            self._epoch_since = now
            expected = 0
        self._epoch_acked += sample.acked
        extra[0] = max(extra[0], min(self._epoch_acked - expected, self.window))

    def _update_phase(self, sample: RateSample, in_flight: int, now: float) -> None:
        if self.state is not BbrState.PROBE_BANDWIDTH or self._min_round_trip is None:
            return
        gain = _PHASE_GAINS[self._phase]
        is_over = now - self._phase_since > self._min_round_trip
        if gain > 1:
            is_over = is_over and (sample.lost > 0 or in_flight >= self._capacity(gain))
        elif gain < 1:
            is_over = is_over or in_flight <= self._capacity(1)
        if is_over:
            self._phase = (self._phase + 1) % len(_PHASE_GAINS)
            self._phase_since = now

    def _look_for_full_pipe(self, sample: RateSample) -> None:
        if self._is_full or not self._is_round_start or sample.is_app_limited:
            return
        if self.bandwidth >= self._full_bandwidth * _FULL_GROWTH:
            self._full_bandwidth = self.bandwidth
            self._full_rounds = 0
            return
        self._full_rounds += 1
        self._is_full = self._full_rounds >= _FULL_ROUNDS

    def _drain(self, in_flight: int, now: float) -> None:
        if self.state is BbrState.STARTUP and self._is_full:
            self.state = BbrState.DRAIN
        if self.state is BbrState.DRAIN and in_flight <= self._capacity(1):
            self._probe_bandwidth(now)

    def _probe_bandwidth(self, now: float) -> None:
        self.state = BbrState.PROBE_BANDWIDTH
        # Any phase but the one that sends less, which is for what the one before it left behind.
        self._phase = (self._first_phase + 2) % len(_PHASE_GAINS)
        self._phase_since = now

    def _update_round_trip(
        self, sample: RateSample, in_flight: int, delivered: int, now: float
    ) -> None:
        seconds = sample.round_trip
        is_old = now - self._min_round_trip_at > _MIN_ROUND_TRIP_SECONDS
        if seconds is not None:
            seconds = max(seconds, _TIMER_SECONDS)
            if self._min_round_trip is None or seconds <= self._min_round_trip or is_old:
                self._min_round_trip = seconds
                self._min_round_trip_at = now
        if is_old and not self._is_restarting and self.state is not BbrState.PROBE_ROUND_TRIP:
            self.state = BbrState.PROBE_ROUND_TRIP
            self._save_window()
            self._probe_ends_at = None
        if self.state is BbrState.PROBE_ROUND_TRIP:
            if self._probe_ends_at is None:
                if in_flight <= MIN_WINDOW_PACKETS:
                    self._probe_ends_at = now + _PROBE_SECONDS
                    self._has_probe_round_passed = False
                    self._round_ends_at = delivered
            else:
                self._has_probe_round_passed |= self._is_round_start
                if self._has_probe_round_passed:
                    self._finish_probe(now)
        if sample.delivered > 0:
            self._is_restarting = False

    def _finish_probe(self, now: float) -> None:
        if self._probe_ends_at is None or now <= self._probe_ends_at:
            return
        self._min_round_trip_at = now
        self.window = max(self.window, self._prior_window)
        if self._is_full:
            self._probe_bandwidth(now)
        else:
            self.state = BbrState.STARTUP

    def _update_pacing(self, sample: RateSample) -> None:
        if not self._has_paced_by_time and sample.round_trip is not None:
            self._has_paced_by_time = True
            seconds = max(sample.round_trip, _TIMER_SECONDS)
            self.pacing_rate = _STARTUP_GAIN * self.window / seconds
        rate = self.bandwidth * self._pacing_gain() * _PACING_MARGIN
        if rate and (self._is_full or rate > self.pacing_rate):
            self.pacing_rate = rate

    def _pacing_gain(self) -> float:
        match self.state:
            case BbrState.STARTUP:
                return _STARTUP_GAIN
            case BbrState.DRAIN:
                return _DRAIN_GAIN
            case BbrState.PROBE_BANDWIDTH:
                return _PHASE_GAINS[self._phase]
            case BbrState.PROBE_ROUND_TRIP:
                return 1.0

    def _window_gain(self) -> float:
        match self.state:
            case BbrState.STARTUP | BbrState.DRAIN:
                return _STARTUP_GAIN
            case BbrState.PROBE_BANDWIDTH:
                return _WINDOW_GAIN
            case BbrState.PROBE_ROUND_TRIP:
                return 1.0

    def _update_window(
        self, sample: RateSample, in_flight: int, delivered: int, recovery: Recovery
    ) -> None:
        if sample.acked:
            window = self._recover(sample, in_flight, delivered, recovery)
            if not self._is_conserving:
                target = self._capacity(self._window_gain()) + _BURSTS_UNDER_WAY * self.burst
                if self._is_full:
                    most = int(self.bandwidth * _MAX_AGGREGATION_SECONDS)
                    target += min(max(self._extra_acked), most)
                    window = min(window + sample.acked, target)
                elif window < target or delivered < INITIAL_WINDOW_PACKETS:
                    window += sample.acked
                window = max(window, MIN_WINDOW_PACKETS)
            self.window = window
        if self.state is BbrState.PROBE_ROUND_TRIP:
            self.window = min(self.window, MIN_WINDOW_PACKETS)

    def _recover(
        self, sample: RateSample, in_flight: int, delivered: int, recovery: Recovery
    ) -> int:
        """The window after what was lost is taken off.

        In the first round after a loss one packet leaves for each that arrives.
        """
        window = max(1, self.window - sample.lost)
        last, self._last_recovery = self._last_recovery, recovery
        if recovery is Recovery.RECOVERY and last is not Recovery.RECOVERY:
            self._is_conserving = True
            self._round_ends_at = delivered
            window = in_flight + sample.acked
        elif recovery is Recovery.OPEN and last is not Recovery.OPEN:
            self._is_conserving = False
            window = max(window, self._prior_window)
        if self._is_conserving:
            window = max(window, in_flight + sample.acked)
        return window

    def _save_window(self) -> None:
        is_calm = self._last_recovery is Recovery.OPEN
        if is_calm and self.state is not BbrState.PROBE_ROUND_TRIP:
            self._prior_window = self.window
        else:
            self._prior_window = max(self._prior_window, self.window)
