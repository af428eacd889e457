"""Peers that have gone, for those that have to know how far each had come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

MAX_DEPARTURES = 4096
"""How many wait to be taken out; beyond that the oldest are forgotten."""


class Departure(NamedTuple):
    """One peer, when it went."""

    remote_public_key: bytes
    length: int
    """The length that it claimed last; 0 if it claimed none."""
    our_length: int
    """The most that it may have got from us."""


class Departures:
    """The departures of one core's peers."""

    def __init__(self) -> None:
        self._noted: list[deque[Departure]] = []

    @contextmanager
    def noted(self) -> Iterator[deque[Departure]]:
        """While in this block, peers that go are noted in the deque: empty it now and then."""
        noted: deque[Departure] = deque(maxlen=MAX_DEPARTURES)
        self._noted.append(noted)
        try:
            yield noted
        finally:
            self._noted = [other for other in self._noted if other is not noted]

    def note(self, departure: Departure) -> None:
        for noted in self._noted:
            noted.append(departure)
