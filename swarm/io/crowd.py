"""Newcomers of which nobody knows yet what they are: only so many are let in at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from swarm.site import site_of


class Place:
    """One newcomer: its block ends when others need the room, unless it has called `leave`."""

    def __init__(self, places: dict[Place, None], site: str) -> None:
        self.site = site
        self.scope = trio.CancelScope()
        self._places = places

    @property
    def is_lost(self) -> bool:
        """Whether it had to make room."""
        return self.scope.cancel_called

    def leave(self) -> None:
        """It is known what this is: it takes up no more room."""
        self._places.pop(self, None)


class Crowd:
    """One too many ends the oldest of the site that has most: a flood is in its own way.

    `most` may be changed, and counts when the next one comes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._places: dict[Place, None] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._places)

    @contextmanager
    def place(self, host: str) -> Iterator[Place]:
        """While the block lasts, one from this host is there."""
        while len(self._places) >= self.most:
            self._end_one()
        place = Place(self._places, site_of(host))
        self._places[place] = None
        try:
            with place.scope:
                yield place
        finally:
            place.leave()

    def _end_one(self) -> None:
        crowd, _ = Counter(place.site for place in self._places).most_common(1)[0]
        oldest = next(place for place in self._places if place.site == crowd)
        oldest.leave()
        oldest.scope.cancel()
