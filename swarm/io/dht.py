"""A node of HyperDHT's table on two UDP sockets.

One task empties each socket, and one keeps time. They hand everything to the engine and carry out
what it says at once, since sending a datagram never waits: one for which the system has no room is
lost, like any other.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, assert_never

import trio

from hypercore.crypto import Entropy, KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP, BootstrapNode, parse_bootstrap
from swarm.dht.engine import DhtEngine
from swarm.dht.hosts import Scope, scope_of
from swarm.dht.interface import (
    Bootstrapped,
    DhtStatistics,
    EngineOutput,
    QueryFinished,
    QueryReplied,
    Settings,
)
from swarm.dht.messages import Internal, Response, is_dht_datagram
from swarm.dht.operations import (
    PeerFound,
    PeersFound,
    plan_announce,
    plan_find_peer,
    plan_immutable_get,
    plan_immutable_put,
    plan_lookup,
    plan_mutable_get,
    plan_mutable_put,
    plan_unannounce,
    read_immutable,
    read_lookup,
    read_mutable,
    read_peer,
)
from swarm.dht.payloads import MutableValue
from swarm.dht.query import QueryPlan, QueryResult, Reply
from swarm.dht.reachability import Role
from swarm.dht.requests import Answered, Call, TimedOut, Transmit, Via
from swarm.dht.upkeep import SLEEP_SECONDS
from swarm.errors import DhtError, PeerUnreachable
from swarm.io.answers import Answers
from swarm.io.carrier import DatagramCarrier, UdpSocket
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.io.tcp import format_address

DEFAULT_PORT = 49737
PORTS_TRIED = 5
"""From the wanted one upwards; after that, any port."""

_ISOLATED_SECONDS = 60.0  # between looks at names of bootstrap nodes, while we know nobody

_log = logging.getLogger("beemesh.dht")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pong:
    """An answer to a ping. The node saw us at `seen_as`."""

    seconds: float
    seen_as: Address


@dataclass(frozen=True, slots=True)
class Stored:
    """How many nodes took something, and which are closest to it."""

    nodes: int
    closest: tuple[Address, ...]
    """Give them to the next query for the same target, which then starts there."""


class _Pending:
    """A call that somebody waits for."""

    def __init__(self) -> None:
        self.outcome: Answered | TimedOut | None = None
        self.done = trio.Event()


class Dht:
    """A node of the table; made by `open_dht` or `open_bootstrap`."""

    def __init__(
        self,
        engine: DhtEngine,
        server: DatagramCarrier,
        client: DatagramCarrier,
        bootstrap: Sequence[BootstrapNode],
    ) -> None:
        self._engine = engine
        self._carriers = {Via.SERVER: server, Via.CLIENT: client}
        self._bootstrap = bootstrap
        self._queries: dict[int, Answers[Any]] = {}
        self._calls: dict[int, _Pending] = {}
        self._bootstrapped = trio.Event()
        self._deadline = float("inf")
        self._deadline_moved = Wakeup()
        self._is_closed = False

    @property
    def address(self) -> Address:
        """Where the server's socket is bound; the host may be a wildcard."""
        return self._carriers[Via.SERVER].address

    @property
    def public_address(self) -> Address | None:
        """Where strangers reach us; None when they do not."""
        return self._engine.public_address

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The table. Given to `open_dht` as `nodes`, they make the next start faster."""
        return tuple(node.address for node in self._engine.table)

    def statistics(self) -> DhtStatistics:
        return self._engine.statistics

    async def wait_bootstrapped(self) -> None:
        """Return when the first search for neighbors is over, whatever it found.

        What is asked before goes to bootstrap nodes with known addresses.
        Cancel: nothing changes.
        """
        await self._bootstrapped.wait()

    async def request(self, call: Call) -> Response:
        """Ask one node something.

        Raises: PeerUnreachable, TooManyRequests, trio.ClosedResourceError.
        Cancel: an answer that still comes is ignored.
        """
        return (await self._call(call)).response

    async def ping(self, address: Address) -> Pong:
        """Ask a node for a sign of life.

        Raises: PeerUnreachable, TooManyRequests, trio.ClosedResourceError.
        Cancel: an answer that still comes is ignored.
        """
        answered = await self._call(Call(address, Internal.PING, True))
        return Pong(answered.seconds, answered.response.to)

    def lookup(self, topic: bytes, *, remembered: Sequence[Address] = ()) -> Answers[PeersFound]:
        """Who announces a topic (32 bytes), as one node after the other tells."""
        return self._query(plan_lookup(topic), read_lookup, remembered)

    def find_peer(
        self, public_key: bytes, *, remembered: Sequence[Address] = ()
    ) -> Answers[PeerFound]:
        """Nodes that pass handshakes on to a key that announced itself."""

        def read(reply: Reply) -> PeerFound | None:
            return read_peer(reply, public_key)

        return self._query(plan_find_peer(public_key), read, remembered)

    async def announce(
        self,
        target: bytes,
        key_pair: KeyPair,
        relay_addresses: Sequence[Address] = (),
        *,
        bump_unix_ms: int = 0,
        clear: bool = False,
        remembered: Sequence[Address] = (),
    ) -> Stored:
        """Tell the table that a key has to do with a topic; for 20 minutes, then say it again.

        For `peer_target` of the key itself, this is how others find a way to it. With `clear`, an
        older record is taken back first: needed when the relays have changed.

        Raises: DhtError when no node took it, trio.ClosedResourceError.
        Cancel: some nodes may have taken it.
        """
        plan = plan_announce(
            target, key_pair, relay_addresses, bump_unix_ms=bump_unix_ms, clear=clear
        )
        return await self._store(plan, remembered)

    async def unannounce(
        self, target: bytes, key_pair: KeyPair, *, remembered: Sequence[Address] = ()
    ) -> int:
        """Take announcements back; returns how many nodes had one and forgot it.

        Raises: trio.ClosedResourceError.
        Cancel: some nodes may have forgotten it.
        """
        result = await self._walk(plan_unannounce(target, key_pair), remembered)
        return result.stored

    async def mutable_put(self, key_pair: KeyPair, value: bytes, *, seq: int = 0) -> Stored:
        """Store a value that this key may replace by one with a larger `seq`; for 48 hours.

        Raises: DhtError with code 16 (another value has this `seq`) or 17 (there is a larger
        one) when nodes refuse it, trio.ClosedResourceError.
        Cancel: some nodes may have taken it.
        """
        content = MutableValue.create(key_pair, value, seq)
        return await self._store(plan_mutable_put(key_pair.public_key, content))

    async def mutable_get(
        self, public_key: bytes, *, min_seq: int = 0, latest: bool = True
    ) -> MutableValue | None:
        """The value of a key, if there is one that is not older than `min_seq`.

        With `latest` the newest that any node on the way has, else the first.

        Raises: trio.ClosedResourceError.
        Cancel: the query ends.
        """

        def read(reply: Reply) -> MutableValue | None:
            return read_mutable(reply, public_key, min_seq)

        newest: MutableValue | None = None
        answers = self._query(plan_mutable_get(public_key, min_seq), read)
        try:
            async for content in answers:
                if newest is None or content.seq > newest.seq:
                    newest = content
                if not latest:
                    break
        finally:
            answers.cancel()
        return newest

    async def immutable_put(self, value: bytes) -> Stored:
        """Store a value under its hash, `immutable_target`; for 48 hours.

        Raises: DhtError when no node took it, trio.ClosedResourceError.
        Cancel: some nodes may have taken it.
        """
        return await self._store(plan_immutable_put(value))

    async def immutable_get(self, target: bytes) -> bytes | None:
        """The value with this hash, if a node has it.

        Raises: trio.ClosedResourceError.
        Cancel: the query ends.
        """

        def read(reply: Reply) -> bytes | None:
            return read_immutable(reply, target)

        answers = self._query(plan_immutable_get(target), read)
        try:
            async for value in answers:
                return value
        finally:
            answers.cancel()
        return None

    def _query(
        self,
        plan: QueryPlan,
        read: Callable[[Reply], T | None],
        remembered: Sequence[Address] = (),
    ) -> Answers[T]:
        self._check_open()
        number, outputs = self._engine.query(plan, trio.current_time(), remembered)
        answers = Answers(read, partial(self._cancel_query, number))
        self._queries[number] = answers
        self._carry_out(outputs)
        return answers

    async def _walk(self, plan: QueryPlan, remembered: Sequence[Address] = ()) -> QueryResult:
        answers: Answers[None] = self._query(plan, _nothing, remembered)
        try:
            return await answers.wait_finished()
        finally:
            answers.cancel()

    async def _store(self, plan: QueryPlan, remembered: Sequence[Address] = ()) -> Stored:
        result = await self._walk(plan, remembered)
        if not result.stored:
            raise DhtError(result.refusals, result.timeouts)
        return Stored(result.stored, tuple(reply.source for reply in result.closest))

    async def _call(self, call: Call) -> Answered:
        self._check_open()
        handle, outputs = self._engine.call(call, trio.current_time())
        pending = self._calls[handle] = _Pending()
        try:
            self._carry_out(outputs)
            await pending.done.wait()
        finally:
            self._calls.pop(handle, None)
            self._engine.cancel_call(handle)
        match pending.outcome:
            case Answered():
                return pending.outcome
            case TimedOut():
                raise PeerUnreachable(format_address(call.to), call.retries + 1)
            case None:
                raise trio.ClosedResourceError("the node was closed")

    def _cancel_query(self, number: int) -> None:
        self._queries.pop(number, None)
        self._engine.cancel_query(number)

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

    async def _pump(self, via: Via) -> None:
        """Hand what arrives at one of the sockets to the engine."""
        carrier = self._carriers[via]
        while True:
            for data, source in await carrier.receive():
                if is_dht_datagram(data):
                    now = trio.current_time()
                    self._carry_out(self._engine.receive(data, source, via, now))

    async def _keep_time(self) -> None:
        awake = time.time() - trio.current_time()
        while True:
            self._deadline = self._engine.deadline
            with trio.move_on_at(self._deadline):
                await self._deadline_moved.wait()
            now = trio.current_time()
            # The monotonic clock stands still while the machine sleeps, that of the wall does not.
            clocks_apart = time.time() - now
            if clocks_apart - awake > SLEEP_SECONDS:
                _log.info("woke up after %.0f s of sleep", clocks_apart - awake)
                self._engine.wake_up(now)
            awake = clocks_apart
            if now >= self._engine.deadline:
                self._carry_out(self._engine.advance(now))

    async def _find_neighbors(self) -> None:
        """Start, and look up the names of bootstrap nodes as long as nobody is known."""
        names = [node for node in self._bootstrap if node.address is None]
        addresses = self._engine.bootstrap
        if names:
            self._engine.bootstrap = (*addresses, *await _resolve(names))
        self._carry_out(self._engine.start(trio.current_time()))
        await self._bootstrapped.wait()
        while self._bootstrap:
            if not self.nodes:
                resolved = await _resolve(self._bootstrap)
                self._engine.bootstrap = tuple(dict.fromkeys((*addresses, *resolved)))
                self._carry_out(self._engine.refresh(trio.current_time()))
            await trio.sleep(_ISOLATED_SECONDS)

    def _carry_out(self, outputs: Sequence[EngineOutput]) -> None:
        for output in outputs:
            match output:
                case Transmit(data, to, via):
                    self._carriers[via].send_to(data, to)
                case QueryReplied(number, reply):
                    if number in self._queries:
                        self._queries[number].add(reply)
                case QueryFinished(number, result):
                    answers = self._queries.pop(number, None)
                    if answers is not None:
                        answers.finish(result)
                case Answered(handle) | TimedOut(handle):
                    pending = self._calls.get(handle)
                    if pending is not None:
                        pending.outcome = output
                        pending.done.set()
                case Bootstrapped():
                    self._bootstrapped.set()
                case _:
                    assert_never(output)
        if self._engine.deadline < self._deadline:
            self._deadline_moved.set()


def _nothing(_: Reply) -> None:
    return None


async def _resolve(nodes: Sequence[BootstrapNode]) -> list[Address]:
    """The addresses that the names of these nodes have now; none for those that have none."""
    found: list[Address] = []
    for node in nodes:
        try:
            infos = await trio.socket.getaddrinfo(node.name, node.port, family=socket.AF_INET)
        except OSError as error:
            _log.warning("no address for bootstrap node %s: %s", node.name, error)
            continue
        found.append((str(infos[0][4][0]), node.port))
    return found


def _bind(host: str, port: int, *, is_exact: bool) -> UdpSocket:
    """Raises: OSError when the port is taken and no other will do."""
    candidates = [port] if is_exact or port == 0 else [*range(port, port + PORTS_TRIED), 0]
    for candidate in candidates[:-1]:
        with contextlib.suppress(OSError):
            return UdpSocket(host, candidate)
    return UdpSocket(host, candidates[-1])


@asynccontextmanager
async def open_dht(
    *,
    bootstrap: Sequence[str | Address] = PUBLIC_BOOTSTRAP,
    host: str = "0.0.0.0",
    port: int = DEFAULT_PORT,
    role: Role = Role.EPHEMERAL,
    is_open: bool = False,
    nodes: Sequence[Address] = (),
    carriers: tuple[DatagramCarrier, DatagramCarrier] | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Dht]:
    """Take part in the table until the body ends.

    `bootstrap` are `HOST:PORT` or `IP@NAME:PORT`, whose name is looked up when nobody answers at
    the address. Binds the first free of a few ports from `port` on. A node asks only, unless its
    `role` is another; `is_open` says that strangers can reach it, which else it finds out.
    `carriers`, the server's and the client's, replace sockets of its own.

    Raises: OSError when nothing can be bound, ValueError for a bootstrap node that is none.
    Cancel: closes the sockets.
    """
    known = [parse_bootstrap(node) for node in bootstrap]
    async with _open(
        known, host, port, role, is_open, None, nodes, carriers, entropy, is_exact=False
    ) as dht:
        yield dht


@asynccontextmanager
async def open_bootstrap(
    host: str,
    port: int = DEFAULT_PORT,
    *,
    bind_host: str | None = None,
    others: Sequence[str | Address] = (),
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Dht]:
    """Be the node that others know: the first of an isolated network, or one more of its kind.

    `host` is the IPv4 address at which they reach it, and what it binds unless `bind_host` says
    otherwise; port 0 picks a free one. `others` are bootstrap nodes that exist already.

    Raises: OSError when the port is taken, ValueError for addresses that are none.
    Cancel: closes the sockets.
    """
    if scope_of(host) is Scope.NOWHERE:
        raise ValueError(f"nobody can reach a bootstrap node at {host}")
    known = [parse_bootstrap(node) for node in others]
    bound = bind_host or host
    async with _open(
        known, bound, port, Role.PERSISTENT, True, host, (), None, entropy, is_exact=True
    ) as dht:
        yield dht


@asynccontextmanager
async def _open(
    bootstrap: Sequence[BootstrapNode],
    host: str,
    port: int,
    role: Role,
    is_open: bool,
    public_host: str | None,
    nodes: Sequence[Address],
    carriers: tuple[DatagramCarrier, DatagramCarrier] | None,
    entropy: Entropy,
    *,
    is_exact: bool,
) -> AsyncIterator[Dht]:
    with contextlib.ExitStack() as sockets:
        if carriers is None:
            server = sockets.enter_context(contextlib.closing(_bind(host, port, is_exact=is_exact)))
            client = sockets.enter_context(contextlib.closing(UdpSocket(host, 0)))
            carriers = server, client
        server_port = carriers[0].address[1]
        settings = Settings(
            server_port,
            tuple(node.address for node in bootstrap if node.address is not None),
            role=role,
            is_open=is_open,
            public_address=None if public_host is None else (public_host, server_port),
            nodes=tuple(nodes),
        )
        engine = DhtEngine(settings, entropy, trio.current_time(), time.time_ns() // 1_000_000)
        dht = Dht(engine, *carriers, bootstrap)
        try:
            async with open_background_nursery() as nursery:
                nursery.start_soon(dht._pump, Via.SERVER)
                nursery.start_soon(dht._pump, Via.CLIENT)
                nursery.start_soon(dht._keep_time)
                nursery.start_soon(dht._find_neighbors)
                yield dht
        finally:
            dht._close()
