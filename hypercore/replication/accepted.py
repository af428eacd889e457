"""Blocks that were verified, until they are stored."""

from __future__ import annotations

from hypercore.replication.demand import Demand
from hypercore.replication.remote import RemotePeer


class Accepted:
    """The verified blocks of one core, from one wake-up of the receiver."""

    __slots__ = ("_demand", "_indices", "late", "unrequested")

    def __init__(self, demand: Demand) -> None:
        self._demand = demand
        self._indices: list[int] = []
        self.unrequested: list[int] = []
        """Blocks sent unasked that other peers are asked for; the replicator withdraws that."""

        self.late = 0
        """Answers to requests that were withdrawn: they make no peer count as quicker."""

    def add(self, peer: RemotePeer, index: int, size: int) -> None:
        """The peer has sent this block."""
        peer.counters.blocks_received += 1
        peer.counters.bytes_received += size
        self._indices.append(index)

    def add_unrequested(self, peer: RemotePeer, index: int, size: int) -> None:
        """The peer has sent this block, and no open request was for it."""
        if self._demand.is_asked(index):
            self.unrequested.append(index)
        self.add(peer, index, size)

    def take_unrequested(self) -> list[int]:
        """The `unrequested` ones, each only once."""
        unrequested, self.unrequested = self.unrequested, []
        return unrequested

    def settle(self, *, is_stored: bool) -> None:
        """The blocks are in the storage; or they are not, and are asked for again."""
        settle = self._demand.settle if is_stored else self._demand.put_back
        for index in self._indices:
            settle(index)
        self._indices.clear()
        self.late = 0
        if not is_stored:
            self.unrequested.clear()
