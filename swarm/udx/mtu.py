"""How large a packet the path carries, found with packets that are padded and may be lost.

Source: RFC 8899. The original goes up in steps of 32 bytes; we try the largest size that padding
reaches and halve the distance when it is lost, which takes two round trips on ordinary links
instead of ten.
"""

from __future__ import annotations

from swarm.udx.packet import MAX_PADDING_BYTES

BASE_MTU = 1200
"""Every path carries this; smaller MTUs do not exist for us, nor for the original."""

MAX_MTU = 1500
MAX_PROBES = 3
"""Losses of one size after which it is too large. One may be chance."""

_RESOLUTION_BYTES = 16


class MtuSearch:
    """Finds the largest size up to `limit`; `mtu` is what is known to pass."""

    def __init__(self, limit: int = MAX_MTU) -> None:
        self.mtu = BASE_MTU
        self._ceiling = max(BASE_MTU, min(limit, MAX_MTU))  # the largest that may pass
        self._has_failed = False  # whether what is above the ceiling is known not to pass
        self._candidate = self._choose()
        self._is_confirmed = False  # nothing is probed before the base has passed
        self._is_under_way = False
        self._losses = 0

    @property
    def is_done(self) -> bool:
        return self._candidate == self.mtu

    @property
    def wanted(self) -> int | None:
        """The size to probe with the next full packet, if any."""
        if self._is_confirmed and not self._is_under_way and not self.is_done:
            return self._candidate
        return None

    def receive_ack(self) -> None:
        """A packet of the base size has arrived."""
        self._is_confirmed = True

    def start_probe(self) -> None:
        """A packet of the `wanted` size was sent."""
        self._is_under_way = True

    def receive_probe_ack(self, size: int) -> None:
        """A packet of `size` has arrived."""
        if size > self.mtu and size <= self._ceiling:
            self.mtu = size
            self._settle()

    def receive_probe_loss(self, size: int) -> None:
        """A packet of `size` was lost."""
        if size != self._candidate:
            return
        self._is_under_way = False
        self._losses += 1
        if self._losses == MAX_PROBES:
            self._ceiling = size - 1
            self._has_failed = True
            self._settle()

    def _settle(self) -> None:
        self._is_under_way = False
        self._losses = 0
        self._candidate = self._choose()

    def _choose(self) -> int:
        """The next size to try; `mtu` itself when nothing is left to find."""
        if not self._has_failed:
            return min(self._ceiling, self.mtu + MAX_PADDING_BYTES)
        middle = (self.mtu + self._ceiling + 1) // 2
        return middle if middle - self.mtu >= _RESOLUTION_BYTES else self.mtu
