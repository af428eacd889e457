"""[trio] What is due with which member now: its rule, and what its budget has left.

Bytes are counted in the row `traffic:{member id}` beside our data core. Those of the last seconds
are forgotten when the process ends.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol

import trio

from hypercore.errors import StorageFailed
from node.mesh.peer_rules import (
    Direction,
    PeerRules,
    direction_now,
    is_lan_address,
    traffic_key,
)
from node.mesh.peer_rules import Traffic as Counted
from swarm.io.connection import Connection

EXCHANGE_SECONDS = 5.0
"""How often bytes are counted, and what is due is looked at."""


class LocalRows(Protocol):
    """The local key-value space of our data core."""

    def get_local_value(self, key: bytes, /) -> bytes | None: ...
    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None: ...


@dataclass(frozen=True, slots=True)
class Traffic:
    """One connection: where it goes, and what went through it so far in both directions."""

    is_lan: bool
    bytes: Callable[[], int]
    heard_at: Callable[[], float]
    """When anything came last, as the trio clock has it."""
    is_stuck: Callable[[], bool]
    """Whether what was sent does not arrive, as far as is known."""
    note_welcome: Callable[[], None] = lambda: None
    """To be called when each has let the other in."""

    def answering_at(self) -> float:
        """When anything came last from a remote that may have heard what it was asked."""
        return -inf if self.is_stuck() else self.heard_at()


def measure_traffic(connection: Connection) -> Traffic:
    """The traffic of this connection, from its start."""

    def count() -> int:
        statistics = connection.statistics()
        return statistics.bytes_received + statistics.bytes_sent

    return Traffic(
        is_lan_address(connection.remote_address),
        count,
        heard_at=lambda: connection.statistics().last_received_at,
        is_stuck=lambda: connection.is_stuck,
        note_welcome=connection.note_welcome,
    )


class Exchange:
    """`rules` may be replaced at any time; call `changed` then."""

    def __init__(self, rows: LocalRows, rules: PeerRules) -> None:
        self.rules = rules
        self._rows = rows
        self._changed = trio.Event()
        self._ended: Counter[bytes] = Counter()
        """Bytes of connections that ended, by member; written when bytes are counted next."""

    def due(self, member_id: bytes, name: str, traffic: Traffic | None = None) -> Direction:
        """What is exchanged with a member now; without `traffic` it counts as on the LAN."""
        is_lan = traffic is None or traffic.is_lan
        rule = self.rules.find(member_id, name, is_lan=is_lan)
        if rule.day_bytes is None and rule.month_bytes is None:
            return rule.direction
        return direction_now(rule, self.counted(member_id), time.time())

    def counted(self, member_id: bytes) -> Counted:
        """What was exchanged with a member this day and this month."""
        written = Counted.decode(self._rows.get_local_value(traffic_key(member_id)))
        ended = self._ended[member_id]
        return written.counted(ended, time.time()) if ended else written

    async def count(self, member_id: bytes, size: int) -> None:
        """So many more bytes; they count while any rule has a budget.

        Cancel: they may not be counted.
        """
        if size and self._has_budgets:
            counted = self.counted(member_id).counted(size, time.time())
            del self._ended[member_id]
            with suppress(StorageFailed):  # then so much is not counted
                await self._rows.write_local({traffic_key(member_id): counted.encode()})

    def count_ended(self, member_id: bytes, size: int) -> None:
        """So many more bytes, of a connection that has ended."""
        if size and self._has_budgets:
            self._ended[member_id] += size

    @property
    def _has_budgets(self) -> bool:
        rules = self.rules.named.values()
        return any(rule.day_bytes or rule.month_bytes for rule in rules)

    def changed(self) -> None:
        """The rules changed: wake those that wait for it."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Return when the rules change. Cancel: undoes nothing."""
        await self._changed.wait()
