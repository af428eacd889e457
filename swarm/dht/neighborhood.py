"""Who is in the routing table, and the pings that keep it true; a machine.

An address that answers us is real, since the answer had to carry what only our question told. One
that merely asks may be faked: it enters the table when it has answered a ping. The originals take
it on trust.

Source: dht-rpc 6.27.0 index.js _addNodeFromNetwork, _onfullrow, _repingAndSwap, _check, _onrequest.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.announcement import Address
from swarm.dht.hosts import is_usable
from swarm.dht.messages import NodeId
from swarm.dht.routing_table import DhtNode, RoutingTable
from swarm.dht.upkeep import Chores, Upkeep

MAX_CHECKS = 10
MAX_SWAPS = 3
MAX_INTRODUCTIONS = 16
"""Pings under way at once, of each kind."""


@dataclass(frozen=True, slots=True)
class Check:
    """Find out whether a node of the table is still there."""

    node: DhtNode

    @property
    def address(self) -> Address:
        return self.node.address


@dataclass(frozen=True, slots=True)
class Swap:
    """Find out whether it is still there, or a newcomer takes its place."""

    node: DhtNode
    newcomer: Address

    @property
    def address(self) -> Address:
        return self.node.address


@dataclass(frozen=True, slots=True)
class Introduction:
    """Find out whether somebody who asked us is really there."""

    address: Address


Ping = Check | Swap | Introduction
"""Ping `address`, and tell the neighborhood what came of it."""


class Neighborhood:
    """The table around `own_id`."""

    def __init__(self, own_id: NodeId, now: float) -> None:
        self.table = RoutingTable(own_id)
        self.upkeep = Upkeep(now)
        self._checks = 0
        self._swaps = 0
        self._introductions: set[Address] = set()

    def move(self, own_id: NodeId) -> None:
        """Stand somewhere else, with those of the nodes for which there is room there."""
        old, self.table = self.table, RoutingTable(own_id)
        for node in old:
            self.table.add(node)

    def introduce(self, address: Address) -> list[Ping]:
        """Somebody might belong in the table."""
        is_known = self.table.get(address) is not None or address in self._introductions
        if is_known or not is_usable(address) or not self.table.has_room(address):
            return []
        if len(self._introductions) >= MAX_INTRODUCTIONS:
            return []
        self._introductions.add(address)
        return [Introduction(address)]

    def heard_from(self, address: Address, now: float) -> list[Ping]:
        """A node that belongs in tables answered."""
        node = self.table.get(address)
        if node is not None:
            node.heard_at = node.checked_at = now
            node.down_hints = 0
            return []
        if self.table.add(DhtNode.create(address, now)):
            return []
        if self._swaps >= MAX_SWAPS or not self.table.may_hold(address):
            return []
        oldest = self.upkeep.node_to_replace(self.table.row(address), now)
        if oldest is None:
            return []
        oldest.checked_at = now
        self._swaps += 1
        return [Swap(oldest, address)]

    def silent(self, address: Address) -> None:
        """A node did not answer, whatever it was asked."""
        node = self.table.get(address)
        if node is not None:
            self.table.remove(node)

    def hinted_down(self, address: Address, now: float) -> list[Ping]:
        """Somebody says that a node is down: see for ourselves, once."""
        node = self.table.get(address)
        if node is None or node.down_hints:
            return []
        node.down_hints += 1
        return self.check(node, now)

    def check(self, node: DhtNode, now: float) -> list[Ping]:
        if self._checks >= MAX_CHECKS:
            return []
        node.checked_at = now
        self._checks += 1
        return [Check(node)]

    def ping_settled(self, ping: Ping, answered_as: NodeId | None) -> list[Ping]:
        """A ping was answered by a node with this id, or without one, or not at all."""
        match ping:
            case Check(node):
                self._checks -= 1
                if answered_as != node.id:
                    self.table.remove(node)
                return []
            case Swap(node, newcomer):
                self._swaps -= 1
                if answered_as == node.id:
                    return []
                self.table.remove(node)
                return self.introduce(newcomer)
            case Introduction(address):
                self._introductions.discard(address)
                return []

    def tick(self, in_flight: int, now: float) -> Chores:
        return self.upkeep.tick(self.table, in_flight, now)
