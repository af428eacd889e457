"""Who was sent away for what it did, and when it may come back. A machine.

Only this node keeps it out, and for a time: whom an admin shuts out, the records say (`ledger.py`).
The first penalty is short, in case it was bad luck; each further one is four times as long, up to
an hour. After a day without any, the next is short again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FIRST_SECONDS = 10.0
FACTOR = 4
MAX_SECONDS = 3600.0
FORGIVEN_SECONDS = 86_400.0
SHOWN_SECONDS = 600.0
"""How long penalties that are over are still shown."""

MAX_PENALTIES = 1024
"""Nodes remembered; the one whose penalty was longest ago is forgotten first."""


@dataclass(frozen=True, slots=True)
class Penalty:
    """The last one of a node; times are monotonic seconds."""

    node_id: bytes
    reason: str
    times: int
    """How often it was sent away by now."""
    since: float
    until: float


class Penalties:
    """Those given, by node id."""

    def __init__(self) -> None:
        self._penalties: OrderedDict[bytes, Penalty] = OrderedDict()
        self.total = 0
        """Penalties given since the start."""
        self.turned_away = 0
        """Connections that were not let in because of one."""

    def give(
        self, node_id: bytes, reason: str, now: float, *, may_be_unlucky: bool = False
    ) -> Penalty:
        """A node goes, for this reason, and stays away for a while.

        The first time it may come back at once, where the line to it may be to blame.
        """
        before = self._penalties.pop(node_id, None)
        times = 1
        if before is not None and now - before.until < FORGIVEN_SECONDS:
            times = before.times + 1
        seconds = min(FIRST_SECONDS * FACTOR ** min(times - 1, 16), MAX_SECONDS)
        if times == 1 and may_be_unlucky:
            seconds = 0.0
        penalty = Penalty(node_id, reason, times, now, now + seconds)
        self._penalties[node_id] = penalty
        self.total += 1
        if len(self._penalties) > MAX_PENALTIES:
            self._penalties.popitem(last=False)
        return penalty

    def keeps_out(self, node_id: bytes, now: float) -> Penalty | None:
        """The penalty that a node still has to wait for; counts as an attempt to come in."""
        penalty = self._penalties.get(node_id)
        if penalty is None or now >= penalty.until:
            return None
        self.turned_away += 1
        return penalty

    def current(self, now: float) -> list[Penalty]:
        """Penalties that are not over, the last one first."""
        return [item for item in reversed(self._penalties.values()) if now < item.until]

    def recent(self, now: float) -> list[Penalty]:
        """Penalties that are not over, or have been over for a short while, the last one first."""
        penalties = reversed(self._penalties.values())
        return [item for item in penalties if now < item.until + SHOWN_SECONDS]
