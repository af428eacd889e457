"""How fast a path delivers: one sample for each batch of acknowledgements.

A sample is what was delivered between two moments, over the longer of the times that sending it
and hearing of it took. So neither a burst sent nor answers that were held up and come at once
can make a path look faster than it is.

Source: draft-cheng-iccrg-delivery-rate-estimation-00, as in libudx (udx-native 1.21.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Stamped(Protocol):
    """A packet that carries what the rate was when it was sent."""

    sent_at: float
    delivered: int
    delivered_at: float
    first_sent_at: float
    is_app_limited: bool


@dataclass(frozen=True, slots=True)
class RateSample:
    """What one batch of acknowledgements says."""

    acked: int
    """Packets that it acknowledged."""
    lost: int
    """Packets found lost with it."""
    round_trip: float | None
    """Seconds, of the packet sent last; None if it was sent more than once."""
    delivered: int
    """Packets delivered within `interval`."""
    interval: float
    """Seconds; 0 when nothing can be said."""
    prior_delivered: int
    """Packets that had been delivered when the packet sent last was sent."""
    is_app_limited: bool
    """Whether there was not enough to send, so that the path may carry more."""


class DeliveryRate:
    """Counts what was delivered, and stamps packets."""

    def __init__(self, now: float) -> None:
        self.delivered = 0
        """Packets that have arrived, in all."""
        self._delivered_at = now
        self._first_sent_at = now
        self._limited_until = 0  # a count of `delivered`; 0 while there is enough to send

    @property
    def is_app_limited(self) -> bool:
        return self._limited_until > 0

    def stamp(self, packet: Stamped, now: float, *, is_idle: bool) -> None:
        """A packet is being sent; `is_idle` when nothing else is under way."""
        if is_idle:
            self._delivered_at = self._first_sent_at = now
        packet.sent_at = now
        packet.delivered = self.delivered
        packet.delivered_at = self._delivered_at
        packet.first_sent_at = self._first_sent_at
        packet.is_app_limited = self._limited_until > 0

    def run_dry(self, in_flight: int) -> None:
        """There is room on the path, and nothing to send."""
        self._limited_until = max(1, self.delivered + in_flight)

    def sample(
        self,
        newest: Stamped | None,
        *,
        acked: int,
        lost: int,
        round_trip: float | None,
        minimum: float | None,
        now: float,
    ) -> RateSample:
        """What `acked` packets say, of which `newest` was sent last.

        An interval shorter than the `minimum` round trip comes from a packet that was sent again,
        and says nothing.
        """
        self.delivered += acked
        if self._limited_until and self.delivered > self._limited_until:
            self._limited_until = 0
        if newest is None:
            return RateSample(acked, lost, round_trip, 0, 0.0, self.delivered, is_app_limited=False)
        self._delivered_at = now
        self._first_sent_at = newest.sent_at
        interval = max(newest.sent_at - newest.first_sent_at, now - newest.delivered_at)
        if minimum is not None and interval < minimum:
            interval = 0.0
        return RateSample(
            acked=acked,
            lost=lost,
            round_trip=round_trip,
            delivered=self.delivered - newest.delivered,
            interval=interval,
            prior_delivered=newest.delivered,
            is_app_limited=newest.is_app_limited,
        )
