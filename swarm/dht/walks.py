"""The queries of a node that are under way: what they ask for, and what they bring; a machine.

Its users are told each answer to their queries, and the end. Its own searches, in the background,
make way for those: two visits at a time as long as anything else is asked.

Source: dht-rpc 6.27.0 index.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from swarm.announcement import Address
from swarm.dht.interface import QueryFinished, QueryReplied
from swarm.dht.messages import Internal, encode_address
from swarm.dht.purposes import Errands, ForQuery, Hint
from swarm.dht.query import (
    CONCURRENCY,
    Ask,
    Finished,
    HintDown,
    Query,
    QueryOutput,
    Replied,
)
from swarm.dht.requests import Answered, Call

BACKGROUND_CONCURRENCY = 2
MAX_HINTS_PER_TICK = 50
_QUIET_REQUESTS = 3  # fewer under way: a background query may hurry


@dataclass(frozen=True, slots=True)
class Errand:
    """Make this call; tell the walks what came of it, if it is for a query."""

    call: Call
    purpose: ForQuery | Hint


@dataclass(frozen=True, slots=True)
class SearchReplied:
    """A node answered a search of our own."""

    query: int
    source: Address


@dataclass(frozen=True, slots=True)
class SearchFinished:
    """A search of our own is over."""

    query: int


WalkOutput = Errand | QueryReplied | QueryFinished | SearchReplied | SearchFinished
"""After a finish, nobody wants what the query still has under way."""


class Walks:
    """All queries of one node, by the numbers that `errands` gives them."""

    def __init__(self, errands: Errands) -> None:
        self._errands = errands
        self._hints_this_tick = 0

    def tick(self) -> None:
        """Another few seconds: as many hints again may be given."""
        self._hints_this_tick = 0

    def start(self, query: Query, *, is_background: bool) -> tuple[int, list[WalkOutput]]:
        number = self._errands.begin_query(query, is_background=is_background)
        return number, self._run(number, query.start())

    def hold(self, number: int) -> None:
        """Let a query visit nobody else for now, nor come to an end."""
        running = self._errands.running(number)
        if running is not None:
            running.query.hold()

    def resume(self, number: int) -> list[WalkOutput]:
        """Let a held query go on."""
        running = self._errands.running(number)
        return [] if running is None else self._run(number, running.query.go_on())

    def pace(self, number: int, requests: int) -> None:
        """Let a search hurry if few `requests` are under way."""
        running = self._errands.running(number)
        if running is not None:
            is_quiet = requests < _QUIET_REQUESTS
            running.query.concurrency = CONCURRENCY if is_quiet else BACKGROUND_CONCURRENCY

    def answered(self, purpose: ForQuery, answered: Answered) -> list[WalkOutput]:
        query, response = self._query_of(purpose), answered.response
        if purpose.is_commit:
            return self._run(purpose.query, query.commit_answered(response.error))
        steps = query.answered(answered.call.to, response, answered.seconds)
        return self._run(purpose.query, steps)

    def delayed(self, purpose: ForQuery, call: Call) -> list[WalkOutput]:
        """An answer takes longer than usual."""
        if purpose.is_commit:
            return []
        return self._run(purpose.query, self._query_of(purpose).delayed(call.to))

    def timed_out(self, purpose: ForQuery, call: Call) -> list[WalkOutput]:
        query = self._query_of(purpose)
        steps = query.commit_timed_out() if purpose.is_commit else query.timed_out(call.to)
        return self._run(purpose.query, steps)

    def _query_of(self, purpose: ForQuery) -> Query:
        """The query of a request that is under way: requests end when their query does."""
        running = self._errands.running(purpose.query)
        assert running is not None
        return running.query

    def _run(self, number: int, steps: Sequence[QueryOutput]) -> list[WalkOutput]:
        running = self._errands.running(number)
        assert running is not None
        is_search = running.is_background
        outputs: list[WalkOutput] = []
        for step in steps:
            match step:
                case Ask(call, is_commit):
                    outputs.append(Errand(call, ForQuery(number, is_commit)))
                case HintDown(to, about):
                    outputs += self._hint_down(to, about)
                case Replied(reply) if is_search:
                    outputs.append(SearchReplied(number, reply.source))
                case Replied(reply):
                    outputs.append(QueryReplied(number, reply))
                case Finished() if is_search:
                    outputs.append(SearchFinished(number))
                case Finished(result):
                    outputs.append(QueryFinished(number, result))
                case _:
                    assert_never(step)
        return outputs

    def _hint_down(self, to: Address, about: Address) -> list[WalkOutput]:
        if self._hints_this_tick >= MAX_HINTS_PER_TICK:
            return []
        self._hints_this_tick += 1
        return [Errand(Call(to, Internal.DOWN_HINT, True, value=encode_address(about)), Hint())]
