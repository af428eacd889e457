"""Topics and addresses in, connections out.

Every connection runs the caller's handler in a task of its own; there is one connection per remote
key (see `duplicates`). Peers come from the local network, from the table, and from callers that
name their address; all ways to one peer are tried at the same time, and the first that leads to it
counts. `sessions` lets connections in, `entrance` takes those that come, `dialer` makes others.

Source: hyperswarm 4.17.2 index.js.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING

import trio

from hypercore.crypto import KEY_BYTES, Entropy, KeyPair, system_entropy
from swarm.announcement import Address, NeighborLeft, NeighborSeen, create_instance_name
from swarm.io.connection import Connection
from swarm.io.dialer import MAX_DIALS, Dialer, choose_relay
from swarm.io.entrance import Entrance
from swarm.io.hyperdht import HyperDht
from swarm.io.network_watch import NetworkWatch, open_network_watch
from swarm.io.peer_server import PeerServer
from swarm.io.sessions import Changes, Firewall, Handler, Sessions
from swarm.io.swarm_report import ConnectionInfo, SwarmStatistics
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address, open_listeners
from swarm.io.topics import Interest, Topics, open_topics
from swarm.known_peer import PeerInfo, Source
from swarm.peer_book import PeerBook

if TYPE_CHECKING:
    from swarm.io.mdns import Mdns

MAX_CONNECTIONS = 256

_log = logging.getLogger("beemesh.swarm")


class Swarm:
    """Who we look for and who is connected; made by `open_swarm`."""

    def __init__(
        self,
        key_pair: KeyPair,
        listeners: Sequence[trio.SocketListener],
        book: PeerBook,
        sessions: Sessions,
        changes: Changes,
        hyperdht: HyperDht | None,
        relays: Sequence[bytes],
        entropy: Entropy,
    ) -> None:
        self.public_key = key_pair.public_key
        self._key_pair = key_pair
        self._listeners = listeners
        self._book = book
        self._sessions = sessions
        self._changes = changes
        self._hyperdht = hyperdht
        self._relays = relays
        self._entropy = entropy
        self._interests: dict[bytes, Interest] = {}
        self._mdns: Mdns | None = None
        self._table_topics: Topics | None = None
        self._server: PeerServer | None = None
        self._resumed = trio.Event()
        self._suspended = trio.Event()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where we listen, as (host, port); the host may be a wildcard."""
        return tuple(
            (str(name[0]), int(name[1]))
            for name in (listener.socket.getsockname() for listener in self._listeners)
        )

    @property
    def topics(self) -> frozenset[bytes]:
        return frozenset(self._interests)

    @property
    def connections(self) -> tuple[ConnectionInfo, ...]:
        return self._sessions.connections

    @property
    def peers(self) -> list[PeerInfo]:
        """All peers that may be dialed, connected or not."""
        return self._book.peers

    # Topics.

    async def join(
        self,
        topic: bytes,
        *,
        is_server: bool = True,
        is_client: bool = True,
        limit: int | None = None,
    ) -> None:
        """Announce a topic (32 bytes), and connect to those who announce it.

        As a server only, we are found; as a client only, we find. `limit` bounds how many peers one
        look-up in the table may bring. If joined again, the last call counts. On the local network
        all are recognized; of more than `swarm.announcement.MAX_TOPICS` those that were joined
        first are announced all the time, and the others in turns, each for an hour. Returns at
        once; `wait_announced` waits for the network.

        Raises: ValueError for neither server nor client, and for what is not a topic; TypeError for
        anything but bytes.
        Cancel: joined, or not, but never half.
        """
        if not (is_server or is_client):
            raise ValueError("a topic is joined as a server, as a client, or as both")
        _check_bytes("a topic", topic)
        await trio.lowlevel.checkpoint()
        self._interests[topic] = Interest(is_server, is_client, limit)
        if is_client:
            self._book.join(topic, trio.current_time())
        else:
            self._book.leave(topic, trio.current_time())
        self._topics_changed()

    async def leave(self, topic: bytes) -> None:
        """Take a topic back. Connections stay.

        Cancel: left, or not, but never half.
        """
        await trio.lowlevel.checkpoint()
        self._interests.pop(topic, None)
        self._book.leave(topic, trio.current_time())
        self._topics_changed()

    def refresh(self, topic: bytes) -> None:
        """Announce and look up a topic again now."""
        if self._table_topics is not None:
            self._table_topics.refresh(topic)

    async def wait_announced(self) -> None:
        """Return when the topics joined so far are announced; at once without discovery.

        Where multicast does not work that is never: `statistics().lan_error` says why.
        Cancel: nothing changes.
        """
        if self._mdns is not None:
            await self._mdns.wait_announced()
        if self._hyperdht is None:
            return
        while self._table_topics is None:
            await self._changes.wait()
        await self._table_topics.wait_announced()

    async def wait_tried(self) -> None:
        """Return when the topics are announced, and all peers found by then were dialed once.

        Cancel: nothing changes.
        """
        await self.wait_announced()
        topics = self._table_topics
        while self._book.has_untried or (topics is not None and topics.has_news):
            await self._changes.wait()

    async def wait_changed(self) -> None:
        """Return at the next change of connections, peers or the statistics about them.

        Raises: ClosedResourceError when the swarm is closed, before or meanwhile.
        Cancel: nothing changes.
        """
        await self._changes.wait()

    # Peers that are named.

    def add_peer(self, host: str, port: int, public_key: bytes | None = None) -> None:
        """Keep a connection with whoever listens there; with a key, only if they prove it.

        Raises: ValueError for what is not a port or a key; TypeError for a port that is not an int
        and a key that is not bytes.
        """
        _check_port(port, 0)
        if public_key is not None:
            _check_bytes("a public key", public_key)
        self._book.add_static(host, port, public_key, trio.current_time())
        self._changes.note()

    def remove_peer(self, host: str, port: int) -> None:
        """Do not dial it again. A connection stays."""
        self._book.remove_static(host, port)
        self._changes.note()

    def add_websocket(self, url: str, public_key: bytes | None = None) -> None:
        """Keep a connection with whoever is reached at a `ws://` or `wss://` URL.

        Other ways to the same key are given a second to lead there first.

        Raises: ValueError for any other URL.
        """
        from swarm.io.websocket import WebSocketAddress  # of use to few

        address = WebSocketAddress.parse(url)
        self._book.add_websocket(address.url, public_key, trio.current_time())
        self._changes.note()

    def suggest_peer(self, where: Address | str, public_key: bytes) -> None:
        """Another peer says that this key listens at an address, or is reached at a URL.

        It is dialed a few times; the connection is kept if it proves that key.

        Raises: ValueError for what is not an address, URL or key; TypeError for a port that is not
        an int and a key that is not bytes.
        """
        _check_bytes("a public key", public_key)
        if isinstance(where, str):
            from swarm.io.websocket import WebSocketAddress  # of use to few

            where = WebSocketAddress.parse(where).url
        else:
            _check_port(where[1], 1)
        self._book.peer_told(where, public_key, trio.current_time())
        self._changes.note()

    def remove_websocket(self, url: str) -> None:
        """Do not dial it again. A connection stays."""
        self._book.remove_websocket(url)
        self._changes.note()

    def add_key(self, public_key: bytes, relay_addresses: Sequence[Address] = ()) -> None:
        """Keep a connection with a key, wherever the DHT finds it; for a swarm that has one.

        Raises: ValueError without a DHT.
        """
        if self._hyperdht is None:
            raise ValueError("without a DHT there is no way to find a key")
        self._book.add_key(public_key, relay_addresses, trio.current_time())
        self._changes.note()

    def remove_key(self, public_key: bytes) -> None:
        """Do not dial it again. A connection stays."""
        self._book.remove_key(public_key)
        self._changes.note()

    def add_candidate(
        self, topic: bytes, public_key: bytes, relay_addresses: Sequence[Address]
    ) -> None:
        """Dial a key as if the table had told of it for this topic: it was met there before."""
        now = trio.current_time()
        self._book.peer_found(public_key, relay_addresses, frozenset((topic,)), now)
        self._changes.note()

    def refuse(self, public_key: bytes) -> None:
        """End the connection with a key, if there is one, and allow none from now on."""
        self._book.refuse(public_key)
        self._sessions.end(public_key)

    def allow(self, public_key: bytes) -> None:
        """Refuse a key no longer."""
        self._book.allow(public_key, trio.current_time())
        self._changes.note()

    # What happens to this machine.

    def suspend(self) -> None:
        """End all connections and dials; until `resume`, neither dial, announce nor let in."""
        if self._sessions.is_suspended:
            return
        self._sessions.is_suspended = True
        self._suspended.set()
        self._resumed = trio.Event()
        self._sessions.end_all()
        self._topics_changed()

    def resume(self) -> None:
        """Go on, perhaps on another network."""
        if not self._sessions.is_suspended:
            return
        self._sessions.is_suspended = False
        self._suspended = trio.Event()
        self._resumed.set()
        self._book.forget_failures(trio.current_time())
        if self._hyperdht is not None:
            self._hyperdht.wake_up()
        self._topics_changed()

    def network_changed(self) -> None:
        """Find out what is different: announce again, look up again, dial again.

        `open_swarm` notices by itself, unless it was told not to. Connections that the change has
        cut end when what is sent on them now is not acknowledged.
        """
        self._book.forget_failures(trio.current_time())
        if self._hyperdht is not None:
            self._hyperdht.wake_up()
        if self._server is not None:
            self._server.refresh()
        if self._table_topics is not None:
            self._table_topics.refresh()
        self._sessions.probe()
        self._changes.note()

    def statistics(self) -> SwarmStatistics:
        counters = self._sessions.counters
        current = [connection.statistics for connection in self._sessions.connections]
        return SwarmStatistics(
            connections=len(current),
            connections_opened=counters.connections_opened,
            dials=counters.dials,
            dials_failed=counters.dials_failed,
            refused=counters.refused,
            duplicates=counters.duplicates,
            bytes_received=counters.bytes_received + sum(s.bytes_received for s in current),
            bytes_sent=counters.bytes_sent + sum(s.bytes_sent for s in current),
            topics=len(self._interests),
            neighbors=sum(peer.source is Source.LAN for peer in self._book.peers),
            lan_error=self._mdns.error if self._mdns is not None else "",
            found=sum(peer.source is Source.DHT for peer in self._book.peers),
            network_changes=counters.network_changes,
            is_suspended=self._sessions.is_suspended,
        )

    def _topics_changed(self) -> None:
        self._changes.note()
        if self._mdns is not None:
            # Not all may fit: a node with many has begun with those that all nodes have in common.
            announced = [t for t, i in self._interests.items() if i.is_server]
            self._mdns.announce(() if self._sessions.is_suspended else announced)
        if self._table_topics is not None:
            self._table_topics.keep(self._interests)

    async def _watch_neighbors(self, mdns: Mdns) -> None:
        while True:
            for neighbor in await mdns.receive():
                match neighbor:
                    case NeighborSeen(name, addresses, announcement):
                        now = trio.current_time()
                        self._book.neighbor_seen(name, addresses, announcement, now)
                    case NeighborLeft(name):
                        self._book.neighbor_left(name)
            self._changes.note()

    async def _watch_network(self, watch: NetworkWatch) -> None:
        while True:
            await watch.wait_changed()
            self._sessions.counters.network_changes += 1
            if not self._sessions.is_suspended:
                self.network_changed()

    async def _use_table(self, hyperdht: HyperDht) -> None:
        """Be found by our key and our topics, and find others; runs until cancelled."""
        while True:
            async with open_background_nursery() as nursery:
                serve = partial(
                    hyperdht.serve,
                    self._key_pair,
                    self._accept_peer,
                    firewall=self._sessions.lets_in,
                    relay_through=partial(choose_relay, self._relays, self._entropy),
                )
                self._server = await nursery.start(serve)
                dht = hyperdht.dht
                async with open_topics(dht, self._key_pair, self._server, self._entropy) as topics:
                    self._table_topics = topics
                    self._topics_changed()
                    nursery.start_soon(self._watch_table, topics)
                    await self._suspended.wait()
                    # What is joined while these are taken back waits for the next ones.
                    self._server = self._table_topics = None
            await self._resumed.wait()

    async def _watch_table(self, topics: Topics) -> None:
        while True:
            for peer in await topics.receive():
                self._book.peer_found(
                    peer.public_key, peer.relay_addresses, peer.topics, trio.current_time()
                )
            self._changes.note()

    async def _accept_peer(self, connection: Connection) -> None:
        """Serve a connection that came by way of our key."""
        await self._sessions.admit(connection, Source.INCOMING)


def _check_bytes(what: str, value: bytes) -> None:
    """Raises: TypeError, ValueError."""
    if not isinstance(value, bytes):
        raise TypeError(f"{what} is bytes, not {type(value).__name__}")
    if len(value) != KEY_BYTES:
        raise ValueError(f"{what} has {KEY_BYTES} bytes, not {len(value)}")


def _check_port(port: int, first: int) -> None:
    """Raises: TypeError, ValueError."""
    if type(port) is not int:
        raise TypeError(f"a port is int, not {type(port).__name__}")
    if not first <= port < 65536:
        raise ValueError(f"{port} is not a port")


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
    max_dials: int = MAX_DIALS,
    hyperdht: HyperDht | None = None,
    relays: Sequence[bytes] = (),
    watches_network: bool = True,
    entropy: Entropy = system_entropy,
) -> AsyncIterator[Swarm]:
    """Find peers and be found, until the body ends; then all connections end.

    `handler` is run for each connection, which ends when it returns. Exceptions that the network
    causes may leave it; any other ends the swarm. `listen` None accepts nobody, and port 0 picks a
    free one; WebSockets are accepted there, too. `lan` says whether to announce and look for topics
    through mDNS, on the interfaces with these IPv4 addresses (None: all). With a `hyperdht` topics
    are announced and looked up there, too, and our key can be connected to; `relays` are the keys
    of blind relays to meet at where NATs are in the way. `firewall` tells whether a remote public
    key may connect, before the handler sees it. With `watches_network` all is found out anew when
    this machine gets another address, or wakes up.

    Raises: OSError when the port is taken.
    Cancel: ends all connections.
    """
    listeners = [] if listen is None else await open_listeners(*listen)
    name = create_instance_name(entropy)
    book, changes = PeerBook(name, entropy), Changes()
    sessions = Sessions(key_pair.public_key, handler, firewall, max_connections, book, changes)
    entrance = Entrance(key_pair, sessions, changes)
    dialer = Dialer(key_pair, book, sessions, changes, hyperdht, relays, max_dials, entropy)
    swarm = Swarm(key_pair, listeners, book, sessions, changes, hyperdht, relays, entropy)
    with closing(changes):
        async with open_background_nursery() as nursery:
            if listen is not None:
                _log.debug("listening on %s", ", ".join(map(format_address, swarm.addresses)))
                nursery.start_soon(partial(trio.serve_listeners, entrance.accept, listeners))
            nursery.start_soon(sessions.run)
            nursery.start_soon(dialer.run)
            if watches_network:
                watch = await nursery.start(_run_network_watch)
                nursery.start_soon(swarm._watch_network, watch)
            if hyperdht is not None:
                nursery.start_soon(swarm._use_table, hyperdht)
            if lan and listen is not None:
                from swarm.io.mdns import open_mdns  # costs 60 ms, for nothing without the LAN

                host, port = swarm.addresses[0]
                async with open_mdns(
                    name, host, port, interfaces=interfaces, entropy=entropy
                ) as mdns:
                    swarm._mdns = mdns
                    nursery.start_soon(swarm._watch_neighbors, mdns)
                    yield swarm
            else:
                yield swarm


async def _run_network_watch(
    task_status: trio.TaskStatus[NetworkWatch] = trio.TASK_STATUS_IGNORED,
) -> None:
    async with open_network_watch() as watch:
        task_status.started(watch)
        await trio.sleep_forever()
