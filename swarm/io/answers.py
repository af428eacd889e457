"""The answers to a query, as they come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import trio

from swarm.dht.query import QueryResult, Reply
from swarm.io.tasks import Wakeup

T = TypeVar("T")


class QueryRunner(Protocol):
    """What runs queries, by their numbers."""

    def cancel_query(self, number: int) -> None: ...

    def hold_query(self, number: int) -> None: ...

    def resume_query(self, number: int) -> None: ...


class Answers(Generic[T]):
    """What the nodes on the way to a target answer, as it comes in; an async iterator.

    For one task at a time. The query goes on to its end when nobody listens any more, unless it
    is cancelled: a few seconds, and at most 256 answers that wait to be taken.
    """

    def __init__(self, read: Callable[[Reply], T | None], runner: QueryRunner, number: int) -> None:
        self.result: QueryResult | None = None
        """How the query went, once it is over."""
        self._read = read
        self._runner = runner
        self._number = number
        self._replies: deque[Reply] = deque()
        self._news = Wakeup()
        self._is_closed = False

    def __aiter__(self) -> Answers[T]:
        return self

    async def __anext__(self) -> T:
        """The next answer that says something.

        Raises: trio.ClosedResourceError when the node, or this, was closed.
        Cancel: nothing is lost.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            while self._replies:
                answer = self._read(self._replies.popleft())
                if answer is not None:
                    return answer
            if self._is_closed:
                raise trio.ClosedResourceError("the query was cancelled")
            if self.result is not None:
                raise StopAsyncIteration
            await self._news.wait()

    async def wait_finished(self) -> QueryResult:
        """Let the query run to its end, and forget answers that were not taken.

        Raises: trio.ClosedResourceError when the node, or this, was closed.
        Cancel: the query goes on.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while self.result is None:
            if self._is_closed:
                raise trio.ClosedResourceError("the query was cancelled")
            await self._news.wait()
        self._replies.clear()
        return self.result

    def cancel(self) -> None:
        """Stop the query, if it still runs."""
        if self.result is None and not self._is_closed:
            self._runner.cancel_query(self._number)
            self.close()

    def hold(self) -> None:
        """Let the query ask nobody else for now, nor come to an end."""
        if self.result is None and not self._is_closed:
            self._runner.hold_query(self._number)

    def go_on(self) -> None:
        """Let it ask others again."""
        if self.result is None and not self._is_closed:
            self._runner.resume_query(self._number)

    def add(self, reply: Reply) -> None:
        """One more answer; for the node that runs the query."""
        self._replies.append(reply)
        self._news.set()

    def finish(self, result: QueryResult) -> None:
        """The query is over; for the node that runs it."""
        self.result = result
        self._news.set()

    def close(self) -> None:
        """The query will not end by itself; for the node that ran it."""
        self._is_closed = True
        self._news.set()
