"""When to look after the routing table: whom to ping, whom to replace, when to search anew.

Source: dht-rpc 6.27.0 index.js _ontick, _pingSome, _onfullrow,
_onwakeup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from swarm.dht.routing_table import ROW_SIZE, DhtNode, RoutingTable

TICK_SECONDS = 5.0
SLEEP_SECONDS = 3 * TICK_SECONDS
"""A tick that comes so late means that the machine was asleep."""

REFRESH_SECONDS = 300.0
RECENT_SECONDS = 60.0
OLD_SECONDS = 30 * 60.0

_PING_TICKS = 8
_SPARSE_REFRESH_TICKS = 64


@dataclass(frozen=True, slots=True)
class Chores:
    """What a tick brings."""

    check: Sequence[DhtNode] = ()
    is_refresh_due: bool = False
    has_slept: bool = False


class Upkeep:
    """The clock of a routing table."""

    def __init__(self, now: float) -> None:
        self.next_tick = now + TICK_SECONDS
        self._ticks = 0
        self._refresh_at = now + REFRESH_SECONDS

    def used(self, now: float) -> None:
        """A query ran: it refreshed the table along the way."""
        self._refresh_at = now + REFRESH_SECONDS

    def woke_up(self, table: RoutingTable, now: float) -> None:
        """Trust nothing that was known before the machine went to sleep."""
        for node in table:
            node.heard_at = node.checked_at = now - 2 * OLD_SECONDS
        self._ticks += -(self._ticks + 2) % _PING_TICKS  # pings begin in two ticks
        self._refresh_at = now + TICK_SECONDS

    def tick(self, table: RoutingTable, in_flight: int, now: float) -> Chores:
        """Call at `next_tick`."""
        has_slept = now - self.next_tick > SLEEP_SECONDS - TICK_SECONDS
        self.next_tick = now + TICK_SECONDS
        if has_slept:
            self.woke_up(table, now)
            return Chores(has_slept=True)
        self._ticks += 1
        is_ping_due = self._ticks % _PING_TICKS == 0
        is_sparse = self._ticks % _SPARSE_REFRESH_TICKS == 0 and len(table) < ROW_SIZE
        is_refresh_due = now >= self._refresh_at or is_sparse or (is_ping_due and not len(table))
        return Chores(
            self._nodes_to_check(table, in_flight, now) if is_ping_due else (), is_refresh_due
        )

    def node_to_replace(self, row: Sequence[DhtNode], now: float) -> DhtNode | None:
        """Which node of a full row has to prove itself when a newcomer wants in; None: no node."""
        idle = [node for node in row if node.checked_at < now - TICK_SECONDS]
        oldest = min(idle, key=lambda node: (node.checked_at, node.added_at), default=None)
        if oldest is None:
            return None
        is_proven = now - oldest.added_at > OLD_SECONDS
        return None if now - oldest.checked_at < RECENT_SECONDS and is_proven else oldest

    def _nodes_to_check(self, table: RoutingTable, in_flight: int, now: float) -> Sequence[DhtNode]:
        nodes = table.least_recent(5)
        if not nodes:
            return ()
        count = 3 if in_flight > 2 else 5
        if now - nodes[0].checked_at < RECENT_SECONDS:
            count = 2
        return [node for node in nodes[:count] if node.checked_at < now - TICK_SECONDS]
