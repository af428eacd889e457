"""[trio] Peers that are on their way here, or looked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Arrivals:
    """Of one core; `activity` is woken when nobody has to be waited for any more."""

    def __init__(self, activity: trio.lowlevel.ParkingLot) -> None:
        self._activity = activity
        self._opening = 0
        self._finding = 0
        self._has_anybody_come = False

    @property
    def is_opening(self) -> bool:
        """Whether a channel is being opened at this moment."""
        return self._opening > 0

    @property
    def is_awaited(self) -> bool:
        """Whether somebody comes, or is looked for and would be the first."""
        return self._opening > 0 or (self._finding > 0 and not self._has_anybody_come)

    @contextmanager
    def opening(self) -> Iterator[None]:
        """While in this block a channel is opened."""
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1
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
