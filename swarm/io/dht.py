"""A node of HyperDHT's table on two UDP sockets: what it can be asked for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from hypercore.crypto import Entropy, KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP, BootstrapNode, parse_bootstrap
from swarm.dht.engine import DhtEngine
from swarm.dht.hosts import Scope, scope_of
from swarm.dht.interface import (
    DhtStatistics,
    Settings,
)
from swarm.dht.messages import Internal, Response
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
from swarm.dht.requests import Call
from swarm.errors import DhtError
from swarm.io.answers import Answers
from swarm.io.carrier import DatagramCarrier, UdpSocket
from swarm.io.dht_driver import DhtDriver, open_driver

T = TypeVar("T")

DEFAULT_PORT = 49737

PORTS_TRIED = 5
"""From the wanted one upwards; after that, any port."""


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


class Dht:
    """A node of the table; made by `open_dht` or `open_bootstrap`."""

    def __init__(self, driver: DhtDriver) -> None:
        self.driver = driver
        """What runs it; for the modules that connect peers."""

    @property
    def address(self) -> Address:
        """Where the server's socket is bound; the host may be a wildcard."""
        return self.driver.address

    @property
    def public_address(self) -> Address | None:
        """Where strangers reach us; None when they do not."""
        return self.driver.engine.public_address

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The table. Given to `open_dht` as `nodes`, they make the next start faster."""
        return tuple(node.address for node in self.driver.engine.table)

    def statistics(self) -> DhtStatistics:
        return self.driver.engine.statistics

    async def wait_bootstrapped(self) -> None:
        """Return when the first search for neighbors is over, whatever it found.

        What is asked before goes to bootstrap nodes with known addresses.
        Cancel: nothing changes.
        """
        await self.driver.wait_bootstrapped()

    async def request(self, call: Call) -> Response:
        """Ask one node something.

        Raises: PeerUnreachable, TooManyRequests, trio.ClosedResourceError.
        Cancel: an answer that still comes is ignored.
        """
        return (await self.driver.call(call)).response

    async def ping(self, address: Address) -> Pong:
        """Ask a node for a sign of life.

        Raises: PeerUnreachable, TooManyRequests, trio.ClosedResourceError.
        Cancel: an answer that still comes is ignored.
        """
        answered = await self.driver.call(Call(address, Internal.PING, True))
        return Pong(answered.seconds, answered.response.to)

    def lookup(self, topic: bytes, *, remembered: Sequence[Address] = ()) -> Answers[PeersFound]:
        """Who announces a topic (32 bytes), as one node after the other tells."""
        return self.driver.query(plan_lookup(topic), read_lookup, remembered)

    def find_peer(
        self, public_key: bytes, *, remembered: Sequence[Address] = ()
    ) -> Answers[PeerFound]:
        """Nodes that pass handshakes on to a key that announced itself."""

        def read(reply: Reply) -> PeerFound | None:
            return read_peer(reply, public_key)

        return self.driver.query(plan_find_peer(public_key), read, remembered)

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
        """Announce a key under a topic, for 20 minutes; then do it again.

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
        answers = self.driver.query(plan_mutable_get(public_key, min_seq), read)
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

        answers = self.driver.query(plan_immutable_get(target), read)
        try:
            async for value in answers:
                return value
        finally:
            answers.cancel()
        return None

    async def _walk(self, plan: QueryPlan, remembered: Sequence[Address] = ()) -> QueryResult:
        answers: Answers[None] = self.driver.query(plan, _nothing, remembered)
        try:
            return await answers.wait_finished()
        finally:
            answers.cancel()

    async def _store(self, plan: QueryPlan, remembered: Sequence[Address] = ()) -> Stored:
        result = await self._walk(plan, remembered)
        if not result.stored:
            raise DhtError(result.refusals, result.timeouts)
        return Stored(result.stored, tuple(reply.source for reply in result.closest))


def _nothing(_: Reply) -> None:
    return None


def bind_free(bind: Callable[[str, int], T], host: str, port: int) -> T:
    """Bind the first free port of a few, or any. Raises: OSError when there is none."""
    for candidate in range(port, port + PORTS_TRIED) if port else ():
        with contextlib.suppress(OSError):
            return bind(host, candidate)
    return bind(host, 0)


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
    the address. Binds the first free of a few ports from `port` on. A node only asks, unless `role`
    says otherwise; `is_open` says that strangers can reach it, which it finds out otherwise.
    `carriers`, the server's and the client's, replace sockets of its own.

    Raises: OSError when nothing can be bound, ValueError for a malformed bootstrap node.
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

    Raises: OSError when the port is taken, ValueError for malformed addresses.
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
            socket = UdpSocket(host, port) if is_exact else bind_free(UdpSocket, host, port)
            server = sockets.enter_context(contextlib.closing(socket))
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
        async with open_driver(engine, *carriers, bootstrap) as driver:
            yield Dht(driver)
