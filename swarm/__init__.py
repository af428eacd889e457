"""Finding peers, and encrypted connections with many channels, as Hyperswarm's peers speak them.

    async def handler(connection):
        async with open_mux(connection) as mux:
            ...                              # open_channel, remote_opens

    async with open_swarm(key_pair, handler) as swarm:
        await swarm.join(topic)              # neighbors with the same topic, through mDNS
        swarm.add_peer("example.org", 49737) # and addresses that are known

The map, from the wire up: `frames`, `noise`, `stream_cipher` and `secret_stream` make a byte
stream an encrypted one; `mux` puts channels on it; `announcement` and `peer_book` decide whom to
talk to. All of these are pure. `io` holds their trio shells.
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
from swarm.peer_book import PeerInfo, PeerState, Source

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
    "RemoteOpen",
    "RemoteOpens",
    "Source",
    "Swarm",
    "SwarmError",
    "SwarmStatistics",
    "open_connection",
    "open_mux",
    "open_swarm",
]
