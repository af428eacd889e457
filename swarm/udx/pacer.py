"""When packets may leave: a bucket that fills at the rate of the path."""

from __future__ import annotations

BURST_SECONDS = 0.001
"""What leaves at once is as much as the path takes in this time: a wake-up costs 50 µs, and the
time for more than a thousand of them a second is lost to the data."""

CREDIT_SECONDS = 0.1
"""How much of the time in which we did not wake up may be made up for. On a busy machine that is
tens of milliseconds, again and again; not made up for, they would look like a path that carries
less, and what is sent then would be less still. The original makes up for all of it."""

MAX_CREDIT_BYTES = 2**20
"""And no more than this at once."""

MIN_BURST_PACKETS = 2
MAX_BURST_BYTES = 2**16


class Pacer:
    """Bytes that may leave now, as a balance that may be overdrawn by one packet."""

    def __init__(self, now: float) -> None:
        self._balance = float(MAX_BURST_BYTES)
        self._filled_at = now

    def fill(self, rate: float, packet_bytes: int, now: float) -> None:
        """Add what the time since the last call brought, at `rate` bytes per second."""
        credit = min(max(rate * CREDIT_SECONDS, MIN_BURST_PACKETS * packet_bytes), MAX_CREDIT_BYTES)
        elapsed = now - self._filled_at
        self._filled_at = now
        self._balance = min(self._balance + rate * elapsed, credit)

    def rest(self, rate: float, packet_bytes: int) -> None:
        """There was nothing to send for a while, which need not be made up for."""
        self._balance = min(self._balance, burst_bytes(rate, packet_bytes))

    @property
    def may_send(self) -> bool:
        return self._balance > 0

    def spend(self, size: int) -> None:
        """A packet leaves."""
        self._balance -= size

    def ready_at(self, rate: float, packet_bytes: int) -> float:
        """When the next burst is complete."""
        return self._filled_at + (burst_bytes(rate, packet_bytes) - self._balance) / rate


def burst_bytes(rate: float, packet_bytes: int) -> float:
    """How much leaves at once, at `rate` bytes per second."""
    burst = max(rate * BURST_SECONDS, MIN_BURST_PACKETS * packet_bytes)
    return min(burst, float(MAX_BURST_BYTES))
