"""The nodes we know: rows by how much of the id is shared with ours, 20 in each.

Near us the table knows everybody, far away a few of many; that is what makes a lookup halve its
distance with every step. Of a row, one party (see `hosts`) gets at most MAX_PER_PARTY places.

Source: kademlia-routing-table 1.0.6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sortedcontainers import SortedKeyList  # type: ignore[import-untyped]  # it has no types

from swarm.announcement import Address
from swarm.dht.hosts import party_of
from swarm.dht.messages import NodeId, node_id

ROW_SIZE = 20
"""Called k in the literature, and also how many nodes store a record."""

MAX_PER_PARTY = 4

_ID_BITS = 256


@dataclass(slots=True)
class DhtNode:
    """A node that answered us. Times are monotonic seconds."""

    address: Address
    id: NodeId
    number: int
    """The id, for arithmetic."""
    added_at: float
    heard_at: float
    """When it last answered or asked."""
    checked_at: float
    """When it last answered or was last asked by us."""
    down_hints: int = 0

    @classmethod
    def create(cls, address: Address, now: float) -> DhtNode:
        own_id = node_id(address)
        return cls(address, own_id, int.from_bytes(own_id, "big"), now, now, now)


def shared_bits(left: NodeId, right: NodeId) -> int:
    """How many leading bits are equal; 255 also if all are, as in the original."""
    difference = int.from_bytes(left, "big") ^ int.from_bytes(right, "big")
    return min(_ID_BITS - difference.bit_length(), _ID_BITS - 1)


def distance(left: NodeId, right: NodeId) -> int:
    return int.from_bytes(left, "big") ^ int.from_bytes(right, "big")


def _id_of(node: DhtNode) -> NodeId:
    return node.id


def _heard_at(node: DhtNode) -> float:
    return node.heard_at


class RoutingTable:
    """Rows of nodes around an id."""

    def __init__(self, own_id: NodeId) -> None:
        self.own_id = own_id
        self._rows: dict[int, SortedKeyList] = {}
        self._nodes: dict[Address, DhtNode] = {}

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[DhtNode]:
        """From the one added longest ago."""
        return iter(self._nodes.values())

    def get(self, address: Address) -> DhtNode | None:
        return self._nodes.get(address)

    def add(self, node: DhtNode) -> bool:
        """Whether the node is in the table now; False when its row is full, or it is us."""
        if node.address in self._nodes:
            return True
        if not self.has_room(node.address):
            return False
        index = shared_bits(node.id, self.own_id)
        row = self._rows.get(index)
        if row is None:
            row = self._rows[index] = SortedKeyList(key=_id_of)
        row.add(node)
        self._nodes[node.address] = node
        return True

    def remove(self, node: DhtNode) -> None:
        """Take a node out, if it is in."""
        if self._nodes.get(node.address) is node:
            del self._nodes[node.address]
            self._rows[shared_bits(node.id, self.own_id)].remove(node)

    def has_room(self, address: Address) -> bool:
        """Whether a new node at this address would get a place."""
        return self.may_hold(address) and len(self.row(address)) < ROW_SIZE

    def may_hold(self, address: Address) -> bool:
        """Whether it would get a place if its row were not full."""
        if node_id(address) == self.own_id:
            return False
        party = party_of(address[0])
        if party is None:
            return True
        rivals = sum(party_of(node.address[0]) == party for node in self.row(address))
        return rivals < MAX_PER_PARTY

    def row(self, address: Address) -> list[DhtNode]:
        """The nodes that compete with one at this address for a place."""
        return list(self._rows.get(shared_bits(node_id(address), self.own_id), ()))

    def closest(self, target: bytes, limit: int = ROW_SIZE) -> list[DhtNode]:
        """The nodes closest to a target, closest first.

        Those in the target's row share more of it than all others do; then come the rows with
        more of our own id, which all share as much of the target; then the other rows, one by one.
        The original goes on with the other rows first, and sorts none: its lists may leave out
        nodes that are closer than those they have.
        """
        start = shared_bits(target, self.own_id)
        inner: list[DhtNode] = []
        for index, row in self._rows.items():
            if index > start:
                inner.extend(row)
        groups: list[Iterable[DhtNode]] = [self._rows.get(start, ()), inner]
        groups += (self._rows[index] for index in sorted(self._rows, reverse=True) if index < start)
        number = int.from_bytes(target, "big")
        nodes: list[DhtNode] = []
        for group in groups:
            nodes += sorted(group, key=lambda node: node.number ^ number)
            if len(nodes) >= limit:
                break
        return nodes[:limit]

    def least_recent(self, limit: int) -> list[DhtNode]:
        """The nodes not heard of for longest, in that order."""
        return sorted(self._nodes.values(), key=_heard_at)[:limit]

    def most_recent(self, limit: int) -> list[DhtNode]:
        """The nodes heard of last, the latest first."""
        return sorted(self._nodes.values(), key=_heard_at, reverse=True)[:limit]
