"""A relay for the packets of two ends, as its owner sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from swarm.udx.outputs import Closed, Transmit
from swarm.udx.packet import Packet
from swarm.udx.path import Address
from swarm.udx.relay import Budget, UdxRelay

if TYPE_CHECKING:
    from swarm.io.udp import UdxEndpoint


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """One end: it sends to `local_id`, and is sent to at `address` as `remote_id`."""

    local_id: int
    remote_id: int
    address: Address
    through: UdxEndpoint | None = None
    """Which socket it is reached from, if not that of the relay."""


@dataclass(frozen=True, slots=True)
class UdxRelayStatistics:
    """What was passed on, in both directions together."""

    packets: int
    bytes: int


class UdxRelayHandle:
    """Passes packets on; made by `UdxEndpoint.open_relay`."""

    def __init__(
        self,
        endpoint: UdxEndpoint,
        left: RelayEnd,
        right: RelayEnd,
        budget: Budget | None,
    ) -> None:
        self.endpoint = endpoint
        self._machine = UdxRelay(
            (
                (left.through or endpoint).create_path(left.remote_id, left.address),
                (right.through or endpoint).create_path(right.remote_id, right.address),
            ),
            budget,
        )
        self._closed = trio.Event()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def statistics(self) -> UdxRelayStatistics:
        return UdxRelayStatistics(self._machine.packets, self._machine.bytes)

    async def wait_closed(self) -> None:
        """Return when an end has destroyed the stream, or the relay was closed here.

        Cancel: nothing changes.
        """
        await self._closed.wait()

    def close(self) -> None:
        """Pass nothing on any more. The ends are not told: they may have found another way."""
        if not self._closed.is_set():
            self._closed.set()
            self.endpoint.forget_relay(self)

    def receive(self, origin: int, packet: Packet, datagram: bytes) -> None:
        """A packet came from an end; for the endpoint."""
        for output in self._machine.receive(origin, [(packet, datagram)]):
            match output:
                case Transmit(path, datagrams):
                    self.endpoint.transmit(path, datagrams)
                case Closed():
                    self.close()
                case _:
                    raise AssertionError(f"{output} from a relay")
