"""Plain datagrams for the table: a seam, so that one socket can carry them and UDX.

They are told apart by their first bytes: see `swarm.dht.messages.is_dht_datagram`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Protocol

import trio

from swarm.announcement import Address
from swarm.io.udp import UdxEndpoint

_BATCH_DATAGRAMS = 128  # received before others get their turn
_MAX_DATAGRAM_BYTES = 2**16
_BUFFER_BYTES = 2**20


class DatagramCarrier(Protocol):
    """A bound UDP socket, or that part of its traffic which is not somebody else's."""

    @property
    def address(self) -> Address:
        """Where it is bound; the host may be a wildcard."""

    def send_to(self, data: bytes, address: Address) -> None:
        """Send, or lose; never waits."""

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """What has arrived, at least one datagram, and where each came from."""


class UdpSocket:
    """A carrier with a socket of its own."""

    def __init__(self, host: str, port: int) -> None:
        """Bind. Raises: OSError."""
        self.dropped_datagrams = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise

    @property
    def address(self) -> Address:
        host, port = self._socket.getsockname()
        return host, port

    def send_to(self, data: bytes, address: Address) -> None:
        try:
            self._socket.sendto(data, address)
        except OSError:  # no room, no route, no permission: as if it were lost on the way
            self.dropped_datagrams += 1

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """What has arrived.

        Cancel: nothing is lost.
        """
        received: list[tuple[bytes, Address]] = []
        while not received:
            await trio.lowlevel.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                while len(received) < _BATCH_DATAGRAMS:
                    with contextlib.suppress(ConnectionError):  # told of something sent earlier
                        received.append(self._socket.recvfrom(_MAX_DATAGRAM_BYTES))
        return received

    def close(self) -> None:
        self._socket.close()


class UdxCarrier:
    """The datagrams that are not UDX, of a socket that carries streams, too."""

    def __init__(self, endpoint: UdxEndpoint) -> None:
        self.endpoint = endpoint

    @property
    def address(self) -> Address:
        return self.endpoint.address

    def send_to(self, data: bytes, address: Address) -> None:
        with contextlib.suppress(ValueError, trio.ClosedResourceError):  # lost, like any other
            self.endpoint.send_datagram(data, address)

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        """What has arrived.

        Raises: trio.ClosedResourceError.
        Cancel: nothing is lost.
        """
        return await self.endpoint.receive_datagrams()
