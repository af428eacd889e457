"""Finding peers, and encrypted connections with many channels, as Hyperswarm's peers speak them.

    async def handler(connection):
        async with open_mux(connection) as mux:
            ...                              # open_channel, remote_opens

    async with open_swarm(key_pair, handler) as swarm:
        await swarm.join(topic)              # neighbors with the same topic, through mDNS
        swarm.add_peer("example.org", 49737) # and addresses that are known

    async with open_udx_endpoint() as endpoint:
        stream = endpoint.open_stream()      # a trio stream over UDP, for `open_connection`
        stream.connect(remote_id, address)

The map, from the wire up: `udx` makes byte streams of UDP; `frames`, `noise`, `stream_cipher` and
`secret_stream` make a byte stream an encrypted one; `mux` puts channels on it; `announcement` and
`peer_book` decide whom to talk to. All of these are pure. `io` holds their trio shells.
"""

from swarm.errors import (
    HandshakeFailed,
    MalformedPacket,
    OutboxOverflow,
    PeerUnreachable,
    SwarmError,
)
from swarm.io.channel import Channel, ChannelRejected, RemoteOpen, RemoteOpens
from swarm.io.connection import Connection, ConnectionStatistics, Link, open_connection
from swarm.io.mux import MuxHandle, MuxStatistics, open_mux
from swarm.io.swarm import ConnectionInfo, Swarm, SwarmStatistics, open_swarm
from swarm.io.udp import UdxEndpoint, UdxEndpointStatistics, open_udx_endpoint
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle, UdxRelayStatistics
from swarm.io.udx_transport import UdxTransport
from swarm.peer_book import PeerInfo, PeerState, Source
from swarm.udx.statistics import UdxStatistics

__all__ = [
    "Channel",
    "ChannelRejected",
    "Connection",
    "ConnectionInfo",
    "ConnectionStatistics",
    "HandshakeFailed",
    "Link",
    "MalformedPacket",
    "MuxHandle",
    "MuxStatistics",
    "OutboxOverflow",
    "PeerInfo",
    "PeerState",
    "PeerUnreachable",
    "RelayEnd",
    "RemoteOpen",
    "RemoteOpens",
    "Source",
    "Swarm",
    "SwarmError",
    "SwarmStatistics",
    "UdxEndpoint",
    "UdxEndpointStatistics",
    "UdxRelayHandle",
    "UdxRelayStatistics",
    "UdxStatistics",
    "UdxTransport",
    "open_connection",
    "open_mux",
    "open_swarm",
    "open_udx_endpoint",
]
