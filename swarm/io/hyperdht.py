"""Connecting and being connected to by public key: HyperDHT as a whole.

    async with open_hyperdht(bootstrap=[...]) as hyperdht:
        await nursery.start(hyperdht.serve, key_pair, handler)     # be found by the key
        async with hyperdht.connect(public_key, other_key_pair) as connection:
            ...                                                    # as over any other stream

`hyperdht.dht` is the node of the table: lookups, announcements, small values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from hypercore.crypto import Entropy, KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP
from swarm.dht.peer_messages import NatKind
from swarm.dht.reachability import Role
from swarm.io.carrier import UdxCarrier
from swarm.io.connection import Connection, open_connection
from swarm.io.datagrams import DatagramSocket
from swarm.io.dht import DEFAULT_PORT, Dht, bind_free, open_dht
from swarm.io.peer_dial import PeerDial
from swarm.io.peer_server import ChooseRelay, PeerFirewall, PeerHandler, PeerServer
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import open_hole_punch
from swarm.io.relay_client import Connect
from swarm.io.udp import UdxEndpointStatistics, open_udx_endpoint
from swarm.stream_cipher import MAX_MESSAGE_BYTES

MAX_REMEMBERED_RELAYS = 1024
"""Keys whose relays are remembered for the next time."""


@dataclass(frozen=True, slots=True)
class NatReport:
    """What is between a socket and the world, as `samples` nodes see it."""

    kind: NatKind
    addresses: tuple[Address, ...]
    samples: int


class HyperDht:
    """A node that connects peers; made by `open_hyperdht`."""

    def __init__(self, sockets: PeerSockets) -> None:
        self._sockets = sockets
        self._relays: OrderedDict[bytes, tuple[Address, ...]] = OrderedDict()

    @property
    def dht(self) -> Dht:
        """The node of the table."""
        return self._sockets.dht

    @property
    def address(self) -> Address:
        """Where the server's socket is bound; the host may be a wildcard."""
        return self._sockets.server.address

    @property
    def relays_of_peers(self) -> Mapping[bytes, tuple[Address, ...]]:
        """Keys that were connected to, and the nodes that led to them; the latest last."""
        return dict(self._relays)

    async def examine_nat(self) -> NatReport:
        """Ask a few nodes how a fresh socket appears to them.

        Raises: OSError when there is no socket to be had.
        Cancel: closes it.
        """
        async with open_hole_punch(
            self._sockets, is_initiator=True, remote_nat=NatKind.UNKNOWN
        ) as punch:
            await punch.analyze(may_reopen=False)
            nat = punch.machine.nat
            return NatReport(nat.kind, nat.addresses or (), nat.samples)

    def socket_statistics(self) -> UdxEndpointStatistics:
        """Of the server's socket; the streams are those of both."""
        return self._sockets.server.statistics()

    async def serve(
        self,
        key_pair: KeyPair,
        handler: PeerHandler,
        *,
        firewall: PeerFirewall | None = None,
        relay_through: bytes | ChooseRelay | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        task_status: trio.TaskStatus[PeerServer] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the handler for everyone who connects to this key, until cancelled.

        `firewall` says of a remote key whether it is let in, before it gets any answer.
        `relay_through` is the key of a blind relay at which clients behind NATs are met until there
        is a better way, or chooses one for each of them. `max_message_bytes` bounds what a client
        may send in one message, and with that what is kept for it. Exceptions that the network
        causes may leave the handler.

        Raises: ValueError when the key is served already.
        Cancel: ends the connections, and takes the announcement back.
        """
        server = PeerServer(
            self._sockets,
            key_pair,
            handler,
            firewall or _everyone,
            connect=self._connect_to_relay,
            choose_relay=relay_through if callable(relay_through) else lambda: relay_through,
            max_message_bytes=max_message_bytes,
        )
        task_status.started(server)
        await server.run()

    @asynccontextmanager
    async def connect(
        self,
        public_key: bytes,
        key_pair: KeyPair,
        *,
        relay_addresses: Sequence[Address] = (),
        relay_through: bytes | None = None,
    ) -> AsyncIterator[Connection]:
        """Connect to a key until the body ends.

        `relay_addresses` are nodes that may know the way, or the remote's own address.
        `relay_through` is the key of a blind relay, to go through until there is a better way.

        Raises: PeerUnreachable, CannotPunch when only a blind relay could help, HandshakeFailed,
        trio.BrokenResourceError when the remote ends it at once, trio.ClosedResourceError, OSError
        when there is no socket to punch with.
        Cancel: hangs up.
        """
        async with self._connect(
            public_key, key_pair, relay_addresses, relay_through, self._connect_to_relay
        ) as connection:
            yield connection

    def _connect_to_relay(
        self, public_key: bytes, key_pair: KeyPair
    ) -> AbstractAsyncContextManager[Connection]:
        """By way of no other relay: else the one that answers could send us on and on."""
        return self._connect(public_key, key_pair, (), None, None)

    @asynccontextmanager
    async def _connect(
        self,
        public_key: bytes,
        key_pair: KeyPair,
        relay_addresses: Sequence[Address],
        relay_through: bytes | None,
        go_to_relay: Connect | None,
    ) -> AsyncIterator[Connection]:
        async with AsyncExitStack() as stack:
            dial = PeerDial(self._sockets, public_key, key_pair, stack, go_to_relay, relay_through)
            relays = (*relay_addresses, *self._relays.get(public_key, ()))
            stream, introduced, route = await dial.run(relays)
            self._remember(public_key, introduced.offer.relay_addresses or (introduced.relay,))
            async with open_connection(
                stream,
                key_pair,
                is_initiator=True,
                route=route,
                handshake=introduced.result,
            ) as connection:
                yield connection

    def wake_up(self) -> None:
        """The machine was asleep, or the network has changed: find out anew what we are."""
        self.dht.driver.wake_up()

    def _remember(self, public_key: bytes, relays: tuple[Address, ...]) -> None:
        self._relays[public_key] = relays
        self._relays.move_to_end(public_key)
        if len(self._relays) > MAX_REMEMBERED_RELAYS:
            self._relays.popitem(last=False)


def _everyone(_: bytes) -> bool:
    return True


@asynccontextmanager
async def open_hyperdht(
    *,
    bootstrap: Sequence[str | Address] = PUBLIC_BOOTSTRAP,
    host: str = "0.0.0.0",
    port: int = DEFAULT_PORT,
    role: Role = Role.EPHEMERAL,
    is_open: bool = False,
    nodes: Sequence[Address] = (),
    entropy: Entropy = system_entropy,
) -> AsyncIterator[HyperDht]:
    """Take part in the network until the body ends; the settings are those of `open_dht`.

    Raises: OSError when nothing can be bound, ValueError for a malformed bootstrap node.
    Cancel: ends all connections.
    """
    async with (
        open_udx_endpoint(socket=bind_free(DatagramSocket, host, port), entropy=entropy) as server,
        open_udx_endpoint(host, 0, sharing=server, entropy=entropy) as client,
        open_dht(
            bootstrap=bootstrap,
            role=role,
            is_open=is_open,
            nodes=nodes,
            carriers=(UdxCarrier(server), UdxCarrier(client)),
            entropy=entropy,
        ) as dht,
    ):
        yield HyperDht(PeerSockets(dht, server, client, entropy))
