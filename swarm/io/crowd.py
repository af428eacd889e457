"""Those of whom nobody knows yet what they are: there may be so many at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Place:
    """One of them, whose block goes on after `leave`, and else ends when others need the room."""

    def __init__(self, places: dict[Place, None], host: str) -> None:
        self.host = host
        self.scope = trio.CancelScope()
        self._places = places

    @property
    def is_lost(self) -> bool:
        """Whether it had to make room."""
        return self.scope.cancel_called

    def leave(self) -> None:
        """It is known what this is."""
        self._places.pop(self, None)


class Crowd:
    """One more ends the oldest of the host that has most: whoever opens hundreds is in its own way.

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
        place = Place(self._places, host)
        self._places[place] = None
        try:
            with place.scope:
                yield place
        finally:
            place.leave()

    def _end_one(self) -> None:
        crowd, _ = Counter(place.host for place in self._places).most_common(1)[0]
        oldest = next(place for place in self._places if place.host == crowd)
        oldest.leave()
        oldest.scope.cancel()
