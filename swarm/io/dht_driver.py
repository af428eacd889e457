"""What moves the datagrams of a node of the table, and keeps its time.

One task empties each socket, and one looks at the clock. They hand everything to the engine and
carry out what it says at once, since sending a datagram never waits: one for which the system has
no room is lost, like any other.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, assert_never

import trio

from swarm.announcement import Address
from swarm.dht.bootstrap import BootstrapNode
from swarm.dht.engine import DhtEngine
from swarm.dht.interface import Bootstrapped, EngineOutput, QueryFinished, QueryReplied
from swarm.dht.messages import is_dht_datagram
from swarm.dht.payloads import PeerRecord, peer_target
from swarm.dht.query import QueryPlan, Reply
from swarm.dht.requests import Answered, Call, TimedOut, Transmit, Via
from swarm.dht.router import PeerAsked
from swarm.dht.upkeep import SLEEP_SECONDS
from swarm.errors import PeerUnreachable
from swarm.io.answers import Answers
from swarm.io.carrier import DatagramCarrier
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.io.tcp import format_address

MAX_WAITING_QUESTIONS = 256
"""Handshakes and punches for one of our keys that nobody has looked at; more are dropped."""

_ISOLATED_SECONDS = 60.0  # between looks at names of bootstrap nodes, while we know nobody

_log = logging.getLogger("beemesh.dht")

T = TypeVar("T")


class _Pending:
    """A call that somebody waits for."""

    def __init__(self) -> None:
        self.outcome: Answered | TimedOut | None = None
        self.done = trio.Event()


class PeerQuestions:
    """Handshakes and punches for one key of ours, as they come in."""

    def __init__(self) -> None:
        self.dropped = 0
        self._waiting: deque[PeerAsked] = deque()
        self._arrived = Wakeup()

    def add(self, question: PeerAsked) -> None:
        if len(self._waiting) >= MAX_WAITING_QUESTIONS:
            self.dropped += 1
            return
        self._waiting.append(question)
        self._arrived.set()

    async def receive(self) -> PeerAsked:
        """The next question. Cancel: nothing is lost."""
        while not self._waiting:
            await self._arrived.wait()
        return self._waiting.popleft()


class DhtDriver:
    """An engine and its sockets; `open_driver` makes it run."""

    def __init__(
        self,
        engine: DhtEngine,
        server: DatagramCarrier,
        client: DatagramCarrier,
        bootstrap: Sequence[BootstrapNode],
    ) -> None:
        self.engine = engine
        self._carriers = {Via.SERVER: server, Via.CLIENT: client}
        self._last_via = Via.CLIENT.number
        self._bootstrap = bootstrap
        self._queries: dict[int, Answers[Any]] = {}
        self._calls: dict[int, _Pending] = {}
        self._questions: dict[bytes, PeerQuestions] = {}
        self._bootstrapped = trio.Event()
        self._deadline = float("inf")
        self._deadline_moved = Wakeup()
        self._is_closed = self._is_stopped = False
        self._farewells: set[trio.CancelScope] = set()

    @property
    def address(self) -> Address:
        """Where the server's socket is bound; the host may be a wildcard."""
        return self._carriers[Via.SERVER].address

    async def wait_bootstrapped(self) -> None:
        await self._bootstrapped.wait()

    def query(
        self,
        plan: QueryPlan,
        read: Callable[[Reply], T | None],
        remembered: Sequence[Address] = (),
    ) -> Answers[T]:
        """Raises: trio.ClosedResourceError."""
        self._check_open()
        number, outputs = self.engine.query(plan, trio.current_time(), remembered)
        answers = Answers(read, self, number)
        self._queries[number] = answers
        self._carry_out(outputs)
        return answers

    async def call(self, call: Call) -> Answered:
        """Raises: PeerUnreachable, TooManyRequests, trio.ClosedResourceError.

        Cancel: an answer that still comes is ignored.
        """
        self._check_open()
        handle, outputs = self.engine.call(call, trio.current_time())
        pending = self._calls[handle] = _Pending()
        try:
            self._carry_out(outputs)
            await pending.done.wait()
        finally:
            self._calls.pop(handle, None)
            self.engine.cancel_call(handle)
        match pending.outcome:
            case Answered():
                return pending.outcome
            case TimedOut():
                raise PeerUnreachable(format_address(call.to), call.retries + 1)
            case None:
                raise trio.ClosedResourceError("the node was closed")

    @contextmanager
    def serving(self, record: PeerRecord) -> Iterator[PeerQuestions]:
        """Take handshakes and punches for a key of ours until the body ends.

        Raises: ValueError when it is served already, trio.ClosedResourceError.
        """
        self._check_open()
        self.engine.serve(record)
        target = peer_target(record.public_key)
        questions = self._questions[target] = PeerQuestions()
        try:
            yield questions
        finally:
            del self._questions[target]
            self.engine.stop_serving(record.public_key)

    def serves(self, public_key: bytes) -> bool:
        """Whether this node is where the key is served."""
        return peer_target(public_key) in self._questions

    def answer(self, question: PeerAsked, sealed: bytes, via: Via | None = None) -> None:
        """Answer a handshake or a punch, through `via` if given, else the socket it came to."""
        self._carry_out(self.engine.answer(question, sealed, trio.current_time(), via))

    @contextmanager
    def attached(self, carrier: DatagramCarrier) -> Iterator[Via]:
        """Have one more socket to ask and answer through; `pump` it."""
        self._last_via += 1
        via = Via(self._last_via)
        self._carriers[via] = carrier
        try:
            yield via
        finally:
            del self._carriers[via]

    async def pump(self, via: Via) -> None:
        """Hand what arrives at one of the sockets to the engine; runs until cancelled."""
        carrier = self._carriers[via]
        while True:
            for data, source in await carrier.receive():
                self.take(data, source, via)

    def take(self, data: bytes, source: Address, via: Via) -> None:
        """A datagram arrived."""
        if is_dht_datagram(data):
            self._carry_out(self.engine.receive(data, source, via, trio.current_time()))

    def wake_up(self) -> None:
        """The machine was asleep, or the network has changed."""
        self.engine.wake_up(trio.current_time())
        self._carry_out(self.engine.refresh(trio.current_time()))

    def cancel_query(self, number: int) -> None:
        """Nobody wants its answers any more."""
        self._queries.pop(number, None)
        self.engine.cancel_query(number)

    def hold_query(self, number: int) -> None:
        self.engine.hold_query(number)

    def resume_query(self, number: int) -> None:
        self._carry_out(self.engine.resume_query(number, trio.current_time()))

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("the node was closed")

    def _close(self) -> None:
        self._is_closed = True
        for answers in self._queries.values():
            answers.close()
        self._queries.clear()
        for pending in self._calls.values():
            pending.done.set()

    @contextmanager
    def farewell(self, seconds: float) -> Iterator[None]:
        """A shielded time to say goodbye in; over at once where nothing is heard any more."""
        with trio.move_on_after(seconds, shield=True) as scope:
            if self._is_stopped:
                scope.cancel()
            self._farewells.add(scope)
            try:
                yield
            finally:
                self._farewells.discard(scope)

    async def _keep_time_until_cancelled(self) -> None:
        try:
            await self._keep_time()
        finally:  # the tasks that read the sockets are cancelled, too
            self._is_stopped = True
            for scope in self._farewells:
                scope.cancel()

    async def _keep_time(self) -> None:
        awake = time.time() - trio.current_time()
        while True:
            self._deadline = self.engine.deadline
            with trio.move_on_at(self._deadline):
                await self._deadline_moved.wait()
            now = trio.current_time()
            # The monotonic clock stands still while the machine sleeps, the wall clock does not.
            clocks_apart = time.time() - now
            if clocks_apart - awake > SLEEP_SECONDS:
                _log.info("woke up after %.0f s of sleep", clocks_apart - awake)
                self.engine.wake_up(now)
            awake = clocks_apart
            if now >= self.engine.deadline:
                self._carry_out(self.engine.advance(now))

    async def _find_neighbors(self) -> None:
        """Start, and look up the names of bootstrap nodes as long as nobody is known."""
        names = [node for node in self._bootstrap if node.address is None]
        addresses = self.engine.bootstrap
        if names:
            self.engine.bootstrap = (*addresses, *await _resolve(names))
        self._carry_out(self.engine.start(trio.current_time()))
        await self._bootstrapped.wait()
        while self._bootstrap:
            if not self.engine.table:
                resolved = await _resolve(self._bootstrap)
                self.engine.bootstrap = tuple(dict.fromkeys((*addresses, *resolved)))
                self._carry_out(self.engine.refresh(trio.current_time()))
            await trio.sleep(_ISOLATED_SECONDS)

    def _carry_out(self, outputs: Sequence[EngineOutput]) -> None:
        for output in outputs:
            match output:
                case Transmit(data, to, via):
                    carrier = self._carriers.get(via)
                    if carrier is not None:  # else a punch that is over
                        carrier.send_to(data, to)
                case QueryReplied() | QueryFinished():
                    self._tell_query(output)
                case Answered() | TimedOut():
                    self._tell_caller(output)
                case PeerAsked():
                    questions = self._questions.get(output.target)
                    if questions is not None:
                        questions.add(output)
                case Bootstrapped():
                    self._bootstrapped.set()
                case _:
                    assert_never(output)
        if self.engine.deadline < self._deadline:
            self._deadline_moved.set()

    def _tell_query(self, output: QueryReplied | QueryFinished) -> None:
        match output:
            case QueryReplied(number, reply):
                if number in self._queries:
                    self._queries[number].add(reply)
            case QueryFinished(number, result):
                answers = self._queries.pop(number, None)
                if answers is not None:
                    answers.finish(result)
            case _:
                assert_never(output)

    def _tell_caller(self, outcome: Answered | TimedOut) -> None:
        pending = self._calls.get(outcome.handle)
        if pending is not None:
            pending.outcome = outcome
            pending.done.set()


async def _resolve(nodes: Sequence[BootstrapNode]) -> list[Address]:
    """The addresses that the names of these nodes have now; names without one are left out."""
    found: list[Address] = []
    for node in nodes:
        try:
            infos = await trio.socket.getaddrinfo(node.name, node.port, family=socket.AF_INET)
        except (OSError, UnicodeError) as error:  # the latter: it cannot be a name
            _log.warning("no address for bootstrap node %s: %s", node.name, error)
            continue
        found.append((str(infos[0][4][0]), node.port))
    return found


@asynccontextmanager
async def open_driver(
    engine: DhtEngine,
    server: DatagramCarrier,
    client: DatagramCarrier,
    bootstrap: Sequence[BootstrapNode],
) -> AsyncIterator[DhtDriver]:
    """Run an engine until the body ends."""
    driver = DhtDriver(engine, server, client, bootstrap)
    try:
        async with open_background_nursery() as nursery:
            nursery.start_soon(driver.pump, Via.SERVER)
            nursery.start_soon(driver.pump, Via.CLIENT)
            nursery.start_soon(driver._keep_time_until_cancelled)
            nursery.start_soon(driver._find_neighbors)
            yield driver
    finally:
        driver._close()
