"""Finding peers, and encrypted connections with many channels, as Hyperswarm's peers speak them.

    async def handler(connection):
        async with open_mux(connection) as mux:
            ...                              # open_channel, remote_opens

    async with open_swarm(key_pair, handler) as swarm:
        await swarm.join(topic)              # neighbors with the same topic, through mDNS
        swarm.add_peer("example.org", 49737) # and addresses that are known

    async with (
        open_hyperdht() as hyperdht,         # or through the network of all Hyperswarm peers
        open_swarm(key_pair, handler, hyperdht=hyperdht) as swarm,
    ):
        await swarm.join(topic)

    async for found in hyperdht.dht.lookup(topic):
        ...                                  # found.records: who announces it

    async with open_udx_endpoint() as endpoint:
        stream = endpoint.open_stream()      # a trio stream over UDP, for `open_connection`
        stream.connect(remote_id, address)

The map, from the wire up: `udx` makes byte streams of UDP; `frames`, `noise`, `stream_cipher` and
`secret_stream` make a byte stream an encrypted one; `mux` puts channels on it; `announcement`,
`known_peer` and `peer_book` decide whom to talk to, and `reach` names the ways to get there; `site`
tells apart where others come from; `dht` is a node of the distributed hash table; `blind_relay`
passes packets on, within a `relay_budget` and so many `relay_links`. All of these are pure. `io`
holds their trio shells. `errors` are what callers may catch.
"""

from swarm.dht.bootstrap import PUBLIC_BOOTSTRAP
from swarm.dht.interface import DhtStatistics
from swarm.dht.operations import PeerFound, PeersFound
from swarm.dht.payloads import MutableValue, PeerRecord, immutable_target, peer_target
from swarm.dht.reachability import Role
from swarm.errors import (
    CannotPunch,
    DhtError,
    HandshakeFailed,
    MalformedPacket,
    OutboxOverflow,
    PeerUnreachable,
    SwarmError,
)
from swarm.io.answers import Answers
from swarm.io.carrier import DatagramCarrier
from swarm.io.channel import Channel, ChannelRejected, RemoteOpen, RemoteOpens
from swarm.io.connection import Connection, ConnectionStatistics, Link, open_connection
from swarm.io.dht import Dht, Pong, Stored, open_bootstrap, open_dht
from swarm.io.hyperdht import HyperDht, open_hyperdht
from swarm.io.mux import MuxHandle, MuxStatistics, open_mux
from swarm.io.peer_server import PeerServer, PeerServerStatistics
from swarm.io.swarm import Swarm, open_swarm
from swarm.io.swarm_report import ConnectionInfo, SwarmStatistics
from swarm.io.udp import UdxEndpoint, UdxEndpointStatistics, open_udx_endpoint
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle, UdxRelayStatistics
from swarm.io.udx_transport import UdxTransport
from swarm.known_peer import PeerInfo, PeerState, Source
from swarm.reach import Reach
from swarm.udx.statistics import UdxStatistics

__all__ = [
    "PUBLIC_BOOTSTRAP",
    "Answers",
    "CannotPunch",
    "Channel",
    "ChannelRejected",
    "Connection",
    "ConnectionInfo",
    "ConnectionStatistics",
    "DatagramCarrier",
    "Dht",
    "DhtError",
    "DhtStatistics",
    "HandshakeFailed",
    "HyperDht",
    "Link",
    "MalformedPacket",
    "MutableValue",
    "MuxHandle",
    "MuxStatistics",
    "OutboxOverflow",
    "PeerFound",
    "PeerInfo",
    "PeerRecord",
    "PeerServer",
    "PeerServerStatistics",
    "PeerState",
    "PeerUnreachable",
    "PeersFound",
    "Pong",
    "Reach",
    "RelayEnd",
    "RemoteOpen",
    "RemoteOpens",
    "Role",
    "Source",
    "Stored",
    "Swarm",
    "SwarmError",
    "SwarmStatistics",
    "UdxEndpoint",
    "UdxEndpointStatistics",
    "UdxRelayHandle",
    "UdxRelayStatistics",
    "UdxStatistics",
    "UdxTransport",
    "immutable_target",
    "open_bootstrap",
    "open_connection",
    "open_dht",
    "open_hyperdht",
    "open_mux",
    "open_swarm",
    "open_udx_endpoint",
    "peer_target",
]
