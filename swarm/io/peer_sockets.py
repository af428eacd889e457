"""What peers are connected through: a node of the table on sockets that carry streams, too."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

import ifaddr
import trio

from hypercore.crypto import Entropy
from swarm.announcement import Address
from swarm.dht.requests import Via
from swarm.io.dht import Dht
from swarm.io.udp import UdxEndpoint

RANDOM_PUNCH_PAUSE_SECONDS = 20.0
"""Between two punches that take thousands of probes; routers do not like more."""

_ANY_HOST = "0.0.0.0"
_LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class RandomPunches:
    """Only one punch with thousands of probes runs at a time.

    Source: hyperdht 6.34.0 index.js randomPunchInterval, randomPunchLimit.
    """

    is_running: bool = False
    ended_at: float = -math.inf

    @property
    def is_free(self) -> bool:
        is_soon = trio.current_time() - self.ended_at < RANDOM_PUNCH_PAUSE_SECONDS
        return not self.is_running and not is_soon

    def begin(self) -> bool:
        """Whether one may begin now; then call `end` after it."""
        if not self.is_free:
            return False
        self.is_running = True
        return True

    def end(self) -> None:
        self.is_running = False
        self.ended_at = trio.current_time()


@dataclass(slots=True)
class PeerSockets:
    """The node, and its two sockets, which share their streams."""

    dht: Dht
    server: UdxEndpoint
    client: UdxEndpoint
    entropy: Entropy
    random_punches: RandomPunches = field(default_factory=RandomPunches)

    @property
    def asking(self) -> UdxEndpoint:
        """The socket that the node asks from: the server's, if that lets strangers in."""
        return self.endpoint(self.dht.driver.engine.asks_via)

    @property
    def public_address(self) -> Address | None:
        """Where strangers reach us; None when they do not."""
        return self.dht.public_address

    def endpoint(self, via: Via) -> UdxEndpoint:
        return self.server if via is Via.SERVER else self.client

    def local_addresses(self) -> tuple[Address, ...]:
        """Where the server's socket is reached from the networks that we are in."""
        host, port = self.server.address
        if host != _ANY_HOST:
            return ((host, port),)
        hosts = [host for host in list_hosts() if can_loop(host)]
        return tuple((host, port) for host in hosts or [_LOOPBACK])


def list_hosts() -> Sequence[str]:
    """Our IPv4 addresses, except those of loopback."""
    return [
        str(ip.ip)
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if ip.is_IPv4 and not str(ip.ip).startswith("127.")
    ]


def can_loop(host: str) -> bool:
    """Whether an address of ours is in use: others are those of interfaces without a link."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            probe.connect(probe.getsockname())
    except OSError:
        return False
    return True
