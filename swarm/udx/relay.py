"""Passing on the packets of a stream between two ends that do not reach one another.

A relay has an id for each end, and knows nothing of the stream but these: it writes the id that
the other end has into each packet, and a stream that is destroyed ends it.

Source: libudx of udx-native 1.21.3, relay_to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarm.udx.outputs import Closed, CloseReason, Output, Transmit
from swarm.udx.packet import DESTROY, STREAM_ID_BYTES, STREAM_ID_OFFSET, Packet
from swarm.udx.path import Path

_ID_STOP = STREAM_ID_OFFSET + STREAM_ID_BYTES


class Budget(Protocol):
    """What relays that share it may still pass on."""

    def take(self, size: int) -> bool:
        """Count `size` bytes; False when that is more than there is."""


class UdxRelay:
    """Two paths, 0 and 1: what comes from the end of one is sent along the other.

    With a `budget` it ends when that is used up.
    """

    def __init__(self, paths: tuple[Path, Path], budget: Budget | None = None) -> None:
        self.packets = 0
        self._budget = budget
        self.bytes = 0
        self._paths = paths
        self._is_closed = False

    def receive(self, origin: int, received: Sequence[tuple[Packet, bytes]]) -> list[Output]:
        """Packets, with their datagrams, from the end of path `origin`."""
        if self._is_closed:
            return []
        path = self._paths[1 - origin]
        remote_id = path.remote_id.to_bytes(STREAM_ID_BYTES, "little")
        datagrams: list[bytes] = []
        for packet, datagram in received:
            if self._budget is not None and not self._budget.take(len(datagram)):
                self._is_closed = True
                break
            datagrams.append(datagram[:STREAM_ID_OFFSET] + remote_id + datagram[_ID_STOP:])
            self.bytes += len(datagram)
            if packet.flags & DESTROY:
                self._is_closed = True
        self.packets += len(datagrams)
        outputs: list[Output] = [Transmit(path, datagrams)]
        if self._is_closed:
            outputs.append(Closed(CloseReason.RESET))
        return outputs
