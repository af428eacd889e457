"""A link between two machines that delays, loses, doubles and reorders, on a virtual clock."""

from __future__ import annotations

import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

UDP_IP_BYTES = 28


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a link does to datagrams. Times in seconds, `rate` in bytes per second."""

    delay: float = 0.01
    loss: float = 0.0
    reorder: float = 0.0
    """How many are held back by up to another delay."""
    duplicate: float = 0.0
    rate: float | None = None
    queue_bytes: int = 2**17
    """What waits for a slow link; more is lost."""
    mtu: int = 65535


class LossyLink:
    """Two directions, 0 and 1, of the same conditions. The seed is printed."""

    def __init__(self, conditions: Conditions, seed: int) -> None:
        self.conditions = conditions
        self.now = 1000.0
        self.lost = 0
        self.delivered = 0
        self.passes: Callable[[int, bytes], bool] | None = None
        """Which datagrams may pass, besides those that chance takes; None lets all."""
        self._random = random.Random(seed)
        self._waiting: list[tuple[float, int, int, bytes]] = []  # a heap: when, order, direction
        self._order = 0
        self._free_at = [self.now, self.now]
        sys.stdout.write(f"{conditions}, seed {seed}\n")

    @property
    def next_at(self) -> float | None:
        """When something arrives."""
        return self._waiting[0][0] if self._waiting else None

    def send(self, direction: int, datagram: bytes) -> None:
        conditions, chance = self.conditions, self._random.random
        is_blocked = self.passes is not None and not self.passes(direction, datagram)
        is_large = len(datagram) + UDP_IP_BYTES > conditions.mtu
        if is_blocked or is_large or chance() < conditions.loss:
            self.lost += 1
            return
        leaves_at = self.now
        if conditions.rate is not None:
            start = max(self.now, self._free_at[direction])
            if (start - self.now) * conditions.rate > conditions.queue_bytes:
                self.lost += 1
                return
            leaves_at = start + (len(datagram) + UDP_IP_BYTES) / conditions.rate
            self._free_at[direction] = leaves_at
        for _ in range(2 if chance() < conditions.duplicate else 1):
            held = conditions.delay * chance() if chance() < conditions.reorder else 0.0
            self._order += 1
            arrival = (leaves_at + conditions.delay + held, self._order, direction, datagram)
            heapq.heappush(self._waiting, arrival)

    def receive(self) -> list[tuple[int, list[bytes]]]:
        """What has arrived by now: batches for each direction."""
        batches: tuple[list[bytes], list[bytes]] = ([], [])
        while self._waiting and self._waiting[0][0] <= self.now:
            _, _, direction, datagram = heapq.heappop(self._waiting)
            batches[direction].append(datagram)
            self.delivered += 1
        return [(direction, batch) for direction, batch in enumerate(batches) if batch]
