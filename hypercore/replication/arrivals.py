"""[trio] Peers that are on their way here, or are being looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import trio


class Arrivals:
    """The peers of one core that may be waited for; `activity` is woken when fewer are."""

    def __init__(self, activity: trio.lowlevel.ParkingLot) -> None:
        self._activity = activity
        self._opening: list[float] = []
        self._finding = 0
        self._has_anybody_come = False

    @property
    def is_opening(self) -> bool:
        """Whether a channel is being opened at this moment."""
        return bool(self._opening)

    def is_opening_at(self, now: float) -> bool:
        """Whether a channel is being opened that may still be waited for at that time."""
        return any(end > now for end in self._opening)

    def until(self, now: float) -> float:
        """Until when to wait for peers on their way, or for the first one sought; -inf: not."""
        if self._finding > 0 and not self._has_anybody_come:
            return inf
        return min((end for end in self._opening if end > now), default=-inf)

    @contextmanager
    def opening(self, until: float) -> Iterator[None]:
        """While in this block a channel is opened, which may be waited for until then."""
        self._opening.append(until)
        try:
            yield
        finally:
            self._opening.remove(until)
            self._activity.unpark_all()

    @contextmanager
    def finding(self) -> Iterator[None]:
        """While in this block somebody looks for peers."""
        self._finding += 1
        try:
            yield
        finally:
            self._finding -= 1
            self._activity.unpark_all()

    def came(self) -> None:
        """A peer is here."""
        self._has_anybody_come = True
        self._activity.unpark_all()
