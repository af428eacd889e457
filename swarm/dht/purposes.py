"""What a node asks others for: each of its requests, and each of its queries, until it is over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from swarm.dht.neighborhood import Check, Introduction, Swap
from swarm.dht.query import Query
from swarm.dht.reachability import Probe
from swarm.dht.requests import Call


@dataclass(frozen=True, slots=True)
class ForUser:
    """A call made from outside."""


@dataclass(frozen=True, slots=True)
class ForQuery:
    """A visit of a query, or what it commits."""

    query: int
    is_commit: bool


@dataclass(frozen=True, slots=True)
class Hint:
    """A courtesy; nobody waits for an answer."""


@dataclass(frozen=True, slots=True)
class QuickProbe:
    """Can one node reach our server socket? If so, a test is worth the trouble."""


Purpose = ForUser | ForQuery | Hint | QuickProbe | Probe | Check | Swap | Introduction


@dataclass(slots=True)
class Running:
    """A query, and the handles of its requests that are under way."""

    query: Query
    is_background: bool
    handles: set[int] = field(default_factory=set)


class Errands:
    """All purposes by the handles of their requests, and all queries by their numbers."""

    def __init__(self) -> None:
        self._purposes: dict[int, Purpose] = {}
        self._queries: dict[int, Running] = {}
        self._last_query = 0
        self._postponed: list[tuple[Call, Purpose]] = []

    @property
    def queries(self) -> int:
        """How many run now."""
        return len(self._queries)

    @property
    def next_query(self) -> int:
        """The number that the next one will have."""
        return self._last_query + 1

    def begin_query(self, query: Query, *, is_background: bool) -> int:
        self._last_query += 1
        self._queries[self._last_query] = Running(query, is_background)
        return self._last_query

    def running(self, number: int) -> Running | None:
        """A query that is not over."""
        return self._queries.get(number)

    def end_query(self, number: int) -> list[int]:
        """A query is over; returns the requests whose answers nobody wants any more."""
        running = self._queries.pop(number, None)
        return [] if running is None else list(running.handles)

    def note(self, handle: int, purpose: Purpose) -> None:
        """A request is under way."""
        self._purposes[handle] = purpose
        if isinstance(purpose, ForQuery):
            self._queries[purpose.query].handles.add(handle)

    def of(self, handle: int) -> Purpose | None:
        """What a request is for; None when nobody wants to know any more."""
        return self._purposes.get(handle)

    def postpone(self, call: Call, purpose: Purpose) -> None:
        """There is no room for a request now: it is to be tried again."""
        self._postponed.append((call, purpose))

    def take_postponed(self) -> Iterator[tuple[Call, Purpose]]:
        """Those that are still worth sending when their turn comes: their queries are not over."""
        postponed, self._postponed = self._postponed, []
        for call, purpose in postponed:
            if not isinstance(purpose, ForQuery) or purpose.query in self._queries:
                yield call, purpose

    def settle(self, handle: int) -> Purpose | None:
        """A request is over; returns what it was for."""
        purpose = self._purposes.pop(handle, None)
        if isinstance(purpose, ForQuery):
            running = self._queries.get(purpose.query)
            if running is not None:
                running.handles.discard(handle)
        return purpose
