"""Topics and addresses in, connections out.

Every connection runs the caller's handler in a task of its own; there is one connection per
remote key (see `duplicates`). Peers come from the local network, from the table, and from whoever
names their address; all ways to one peer are tried at the same time, and the first that leads to
it counts.

Source: hyperswarm 4.17.2 index.js.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from hypercore.crypto import Entropy, KeyPair, encode_id, system_entropy
from hypercore.errors import RemoteProtocolError
from swarm.announcement import Address, NeighborLeft, NeighborSeen, create_instance_name
from swarm.errors import HandshakeFailed, PeerUnreachable, SwarmError
from swarm.io.connection import Connection, open_connection
from swarm.io.duplicates import Duplicates, Session
from swarm.io.hyperdht import HyperDht
from swarm.io.peer_server import PeerServer
from swarm.io.swarm_report import ConnectionInfo, SwarmStatistics, describe
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.io.tcp import dial, format_address, open_listeners, remote_address, tune
from swarm.io.topics import Topics, open_topics
from swarm.peer_book import Dial, PeerBook, PeerInfo, Source
from swarm.reach import Reach, Route

if TYPE_CHECKING:
    from swarm.io.mdns import Mdns

MAX_CONNECTIONS = 256
MAX_UNPROVEN_CONNECTIONS = 64
"""Incoming connections that have not finished their handshake. One more ends the oldest of the
host that has most of them: who opens hundreds only gets in the way of itself."""

MAX_DIALS = 32
"""Dials under way at once: so many nodes that do not answer hold up nobody else."""

_HANDOVER_SECONDS = 5.0  # for the handler of a replaced connection to clean up

_log = logging.getLogger("beemesh.swarm")

Handler = Callable[[Connection], Awaitable[None]]
Firewall = Callable[[bytes], bool]
"""Whether a remote public key may connect."""

_NETWORK_ERRORS = (
    SwarmError,
    RemoteProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    OSError,
)


@dataclass(slots=True)
class _Counters:
    connections_opened: int = 0
    dials: int = 0
    dials_failed: int = 0
    refused: int = 0
    duplicates: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class Swarm:
    """Who we look for and who is connected; made by `open_swarm`."""

    def __init__(
        self,
        key_pair: KeyPair,
        handler: Handler,
        listeners: Sequence[trio.SocketListener],
        firewall: Firewall,
        max_connections: int,
        book: PeerBook,
        hyperdht: HyperDht | None,
        entropy: Entropy,
    ) -> None:
        self.public_key = key_pair.public_key
        self._key_pair = key_pair
        self._handler = handler
        self._listeners = listeners
        self._firewall = firewall
        self._max_connections = max_connections
        self._book = book
        self._hyperdht = hyperdht
        self._entropy = entropy
        self._mdns: Mdns | None = None
        self._table_topics: Topics | None = None
        self._server: PeerServer | None = None
        self._is_suspended = False
        self._resumed = trio.Event()
        self._suspended = trio.Event()
        self._sessions: dict[bytes, Session] = {}
        self._duplicates = Duplicates(key_pair.public_key)
        self._unproven: dict[trio.CancelScope, str] = {}  # of which host, oldest first
        self._dialing = 0
        self._wake = Wakeup()
        self._changed = trio.Event()
        self._counters = _Counters()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where we listen, as (host, port); the host may be a wildcard."""
        return tuple(
            (str(name[0]), int(name[1]))
            for name in (listener.socket.getsockname() for listener in self._listeners)
        )

    @property
    def topics(self) -> frozenset[bytes]:
        return self._book.topics

    @property
    def connections(self) -> tuple[ConnectionInfo, ...]:
        return tuple(
            ConnectionInfo(
                remote_public_key=key,
                address=session.connection.remote_address,
                source=session.source,
                reach=session.connection.reach,
                is_initiator=session.connection.link.is_initiator,
                since_unix_ms=session.since_unix_ms,
                statistics=session.connection.statistics(),
            )
            for key, session in self._sessions.items()
        )

    @property
    def peers(self) -> list[PeerInfo]:
        """Static peers and neighbors, connected or not."""
        return self._book.peers

    async def join(self, topic: bytes) -> None:
        """Announce a topic (32 bytes) to neighbors, and connect to those who announce it.

        Returns at once; `wait_announced` waits for the network.
        Cancel: joined, or not, but never half.
        """
        await trio.lowlevel.checkpoint()
        self._book.join(topic, trio.current_time())
        self._topics_changed()

    async def leave(self, topic: bytes) -> None:
        """Take a topic back. Connections stay.

        Cancel: left, or not, but never half.
        """
        await trio.lowlevel.checkpoint()
        self._book.leave(topic, trio.current_time())
        self._topics_changed()

    async def wait_announced(self) -> None:
        """Return when the topics joined so far are announced; at once without discovery.

        Where multicast does not work that is never: `statistics().lan_error` says why.
        """
        if self._mdns is not None:
            await self._mdns.wait_announced()
        if self._hyperdht is None:
            return
        while self._table_topics is None:
            await self._changed.wait()
        await self._table_topics.wait_announced()

    async def wait_changed(self) -> None:
        """Return at the next change of connections, peers or the statistics about them."""
        await self._changed.wait()

    def add_peer(self, host: str, port: int, public_key: bytes | None = None) -> None:
        """Keep a connection with whoever listens there; with a key, only if they prove it."""
        self._book.add_static(host, port, public_key, trio.current_time())
        self._note_change()

    def remove_peer(self, host: str, port: int) -> None:
        """Do not dial it again. A connection stays."""
        self._book.remove_static(host, port)
        self._note_change()

    def add_key(self, public_key: bytes, relay_addresses: Sequence[Address] = ()) -> None:
        """Keep a connection with a key, wherever the DHT finds it; for a swarm that has one.

        Raises: ValueError without a DHT.
        """
        if self._hyperdht is None:
            raise ValueError("without a DHT there is no way to find a key")
        self._book.add_key(public_key, relay_addresses, trio.current_time())
        self._note_change()

    def add_candidate(
        self, topic: bytes, public_key: bytes, relay_addresses: Sequence[Address]
    ) -> None:
        """Dial a key as if the table had told of it for this topic: it was met there before."""
        now = trio.current_time()
        self._book.peer_found(public_key, relay_addresses, frozenset((topic,)), now)
        self._note_change()

    def remove_key(self, public_key: bytes) -> None:
        """Do not dial it again. A connection stays."""
        self._book.remove_key(public_key)
        self._note_change()

    def suspend(self) -> None:
        """End all connections, and neither dial, announce nor let anybody in, until `resume`."""
        if self._is_suspended:
            return
        self._is_suspended = True
        self._suspended.set()
        self._resumed = trio.Event()
        for session in self._sessions.values():
            session.scope.cancel()
        self._note_change()

    def resume(self) -> None:
        """Go on, perhaps on another network."""
        if not self._is_suspended:
            return
        self._is_suspended = False
        self._suspended = trio.Event()
        self._resumed.set()
        self._book.forget_failures(trio.current_time())
        if self._hyperdht is not None:
            self._hyperdht.wake_up()
        self._note_change()

    def network_changed(self) -> None:
        """Find out what is different: announce again, look up again, dial again.

        Connections that the change has cut end by themselves, when nothing is acknowledged.
        """
        self._book.forget_failures(trio.current_time())
        if self._hyperdht is not None:
            self._hyperdht.wake_up()
        if self._server is not None:
            self._server.refresh()
        if self._table_topics is not None:
            self._table_topics.refresh()
        self._note_change()

    def refuse(self, public_key: bytes) -> None:
        """End the connection with a key, if there is one, and allow none from now on."""
        self._book.refuse(public_key)
        session = self._sessions.get(public_key)
        if session is not None:
            session.scope.cancel()

    def statistics(self) -> SwarmStatistics:
        counters = self._counters
        current = [session.connection.statistics() for session in self._sessions.values()]
        return SwarmStatistics(
            connections=len(current),
            connections_opened=counters.connections_opened,
            dials=counters.dials,
            dials_failed=counters.dials_failed,
            refused=counters.refused,
            duplicates=counters.duplicates,
            bytes_received=counters.bytes_received + sum(s.bytes_received for s in current),
            bytes_sent=counters.bytes_sent + sum(s.bytes_sent for s in current),
            topics=len(self._book.topics),
            neighbors=sum(peer.source is Source.LAN for peer in self._book.peers),
            lan_error=self._mdns.error if self._mdns is not None else "",
            found=sum(peer.source is Source.DHT for peer in self._book.peers),
            is_suspended=self._is_suspended,
        )

    def _topics_changed(self) -> None:
        self._note_change()
        if self._mdns is not None:
            self._mdns.announce(sorted(self._book.topics))
        if self._table_topics is not None:
            self._table_topics.announce(self._book.topics)

    def _note_change(self) -> None:
        """Wake the dialer, and whoever watches."""
        self._wake.set()
        self._changed.set()
        self._changed = trio.Event()

    async def _watch_neighbors(self, mdns: Mdns) -> None:
        while True:
            for neighbor in await mdns.receive():
                match neighbor:
                    case NeighborSeen(name, addresses, announcement):
                        now = trio.current_time()
                        self._book.neighbor_seen(name, addresses, announcement, now)
                    case NeighborLeft(name):
                        self._book.neighbor_left(name)
            self._note_change()

    async def _use_table(self, hyperdht: HyperDht) -> None:
        """Be found by our key and our topics, and find others; runs until cancelled."""
        while True:
            async with open_background_nursery() as nursery:
                serve = partial(
                    hyperdht.serve, self._key_pair, self._accept_peer, firewall=self._lets_in
                )
                self._server = await nursery.start(serve)
                dht = hyperdht.dht
                async with open_topics(dht, self._key_pair, self._server, self._entropy) as topics:
                    self._table_topics = topics
                    self._topics_changed()
                    nursery.start_soon(self._watch_table, topics)
                    await self._suspended.wait()
            self._server = self._table_topics = None
            await self._resumed.wait()

    async def _watch_table(self, topics: Topics) -> None:
        while True:
            for peer in await topics.receive():
                self._book.peer_found(
                    peer.public_key, peer.relay_addresses, peer.topics, trio.current_time()
                )
            self._note_change()

    def _lets_in(self, public_key: bytes) -> bool:
        is_full = len(self._sessions) >= self._max_connections
        is_known = public_key in self._sessions
        is_welcome = not self._book.is_refused(public_key) and self._firewall(public_key)
        if is_welcome and (is_known or not is_full):
            return True
        self._counters.refused += 1
        return False

    async def _accept_peer(self, connection: Connection) -> None:
        """Serve a connection that came by way of our key."""
        await self._admit(connection, Source.INCOMING)

    async def _dial_peers(self) -> None:
        """Start dials when they are due."""
        async with trio.open_nursery() as nursery:
            while True:
                room = min(
                    MAX_DIALS - self._dialing,
                    self._max_connections - len(self._sessions) - self._dialing,
                )
                if self._is_suspended:
                    room = 0
                for planned in self._book.plan_dials(trio.current_time(), max(room, 0)):
                    self._dialing += 1
                    nursery.start_soon(self._dial, planned)
                # Without room the end of a dial or of a connection is what wakes us.
                deadline = self._book.deadline if room > 0 else None
                with trio.move_on_at(math.inf if deadline is None else deadline):
                    await self._wake.wait()

    async def _dial(self, planned: Dial) -> None:
        """Connect to one peer and serve the connection to its end."""
        self._counters.dials += 1
        is_dialing = True
        try:
            async with self._connect(planned) as connection:
                key = connection.link.remote_public_key
                if planned.expected_key not in (None, key):
                    raise HandshakeFailed(f"{planned.name} has another key: {encode_id(key)}")
                self._dialing -= 1
                is_dialing = False
                if key == self.public_key:
                    self._book.found_ourselves(planned.name)
                    return
                self._book.dial_succeeded(planned.name, key)
                await self._admit(connection, planned.source)
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            _log.debug("dialing %s failed: %s", planned.name, error)
            self._counters.dials_failed += 1
            is_refused = isinstance(error, PeerUnreachable) and error.is_refused
            self._book.dial_failed(
                planned.name, str(error), trio.current_time(), is_refused=is_refused
            )
        finally:
            self._dialing -= is_dialing
            self._note_change()

    @asynccontextmanager
    async def _connect(self, planned: Dial) -> AsyncIterator[Connection]:
        """By way of the table, or over TCP."""
        if planned.source is Source.DHT:
            if self._hyperdht is None or planned.expected_key is None:
                raise PeerUnreachable(planned.name, 0)
            async with self._hyperdht.connect(
                planned.expected_key, self._key_pair, relay_addresses=planned.addresses
            ) as connection:
                yield connection
            return
        stream = await dial(planned.addresses)
        async with open_connection(
            stream,
            self._key_pair,
            is_initiator=True,
            route=Route(
                Reach.LAN if planned.source is Source.LAN else Reach.TCP, remote_address(stream)
            ),
        ) as connection:
            yield connection

    async def _accept(self, stream: trio.SocketStream) -> None:
        """Serve an incoming connection to its end."""
        if len(self._sessions) >= self._max_connections or self._is_suspended:
            self._counters.refused += 1
            self._note_change()
            await trio.aclose_forcefully(stream)
            return
        if len(self._unproven) >= MAX_UNPROVEN_CONNECTIONS:
            self._end_one_unproven()
        address = remote_address(stream)
        scope = trio.CancelScope()
        self._unproven[scope] = address.rpartition(":")[0]
        try:
            with scope:
                tune(stream)
                async with open_connection(
                    stream, self._key_pair, is_initiator=False, route=Route(Reach.TCP, address)
                ) as connection:
                    self._unproven.pop(scope, None)
                    await self._admit(connection, Source.INCOMING)
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            _log.debug("connection from %s failed: %s", address, error)
        finally:
            self._unproven.pop(scope, None)
            self._note_change()

    def _end_one_unproven(self) -> None:
        crowd, _ = Counter(self._unproven.values()).most_common(1)[0]
        oldest = next(scope for scope, host in self._unproven.items() if host == crowd)
        del self._unproven[oldest]
        oldest.cancel()
        self._counters.refused += 1

    async def _admit(self, connection: Connection, source: Source) -> None:
        """Let a proven connection in, if it is welcome and the one to keep; then serve it."""
        key = connection.link.remote_public_key
        if key == self.public_key:
            return
        if self._book.is_refused(key) or not self._firewall(key):
            self._counters.refused += 1
            if key not in self._sessions:
                self._book.connection_closed(key, trio.current_time())
            return
        while (existing := self._sessions.get(key)) is not None:
            if not await self._duplicates.is_better(connection, existing):
                self._counters.duplicates += 1
                return
            existing.is_replaced = True
            existing.scope.cancel()
            with trio.move_on_after(_HANDOVER_SECONDS) as scope:
                await existing.done.wait()
            if scope.cancelled_caught and self._sessions.get(key) is existing:
                del self._sessions[key]
        await self._serve(connection, source)

    async def _serve(self, connection: Connection, source: Source) -> None:
        """Run the handler; what the network does to it ends this connection only."""
        key = connection.link.remote_public_key
        session = Session(connection, source)
        self._sessions[key] = session
        self._counters.connections_opened += 1
        self._book.connection_opened(key, trio.current_time())
        self._note_change()
        try:
            with session.scope:
                await connection.send(
                    (b"",)
                )  # confirms it to the other end, and that we keep alive
                await self._handler(connection)
        except* _NETWORK_ERRORS as group:
            _log.info("connection with %s ended: %s", encode_id(key), describe(group))
        finally:
            statistics = connection.statistics()
            self._counters.bytes_received += statistics.bytes_received
            self._counters.bytes_sent += statistics.bytes_sent
            if self._sessions.get(key) is session:
                del self._sessions[key]
                if not session.is_replaced:
                    self._book.connection_closed(key, trio.current_time())
            session.done.set()
            self._note_change()


def _everyone(_: bytes) -> bool:
    return True


@asynccontextmanager
async def open_swarm(
    key_pair: KeyPair,
    handler: Handler,
    *,
    listen: Address | None = ("0.0.0.0", 0),
    lan: bool = True,
    interfaces: Sequence[str] | None = None,
    firewall: Firewall = _everyone,
    max_connections: int = MAX_CONNECTIONS,
    hyperdht: HyperDht | None = None,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Swarm]:
    """Find peers and be found, until the body ends; then all connections end.

    `handler` is run for each connection, which ends when it returns. What the network does to it
    may leave it as an exception; anything else ends the swarm. `listen` None accepts nobody, and
    port 0 picks a free one. `lan` says whether to announce and look for topics through mDNS, on
    the interfaces with these IPv4 addresses (None: all). With a `hyperdht` topics are announced and
    looked up there, too, and our key can be connected to. `firewall` tells whether a remote public
    key may connect, before the handler sees it.

    Raises: OSError when the port is taken.
    Cancel: ends all connections.
    """
    listeners = [] if listen is None else await open_listeners(*listen)
    name = create_instance_name(entropy)
    book = PeerBook(name, entropy)
    swarm = Swarm(key_pair, handler, listeners, firewall, max_connections, book, hyperdht, entropy)
    async with open_background_nursery() as nursery:
        if listen is not None:
            _log.debug("listening on %s", ", ".join(map(format_address, swarm.addresses)))
            nursery.start_soon(partial(trio.serve_listeners, swarm._accept, listeners))
        nursery.start_soon(swarm._dial_peers)
        if hyperdht is not None:
            nursery.start_soon(swarm._use_table, hyperdht)
        if lan and listen is not None:
            from swarm.io.mdns import open_mdns  # costs 60 ms, for nothing without the LAN

            host, port = swarm.addresses[0]
            async with open_mdns(name, host, port, interfaces=interfaces, entropy=entropy) as mdns:
                swarm._mdns = mdns
                nursery.start_soon(swarm._watch_neighbors, mdns)
                yield swarm
        else:
            yield swarm
