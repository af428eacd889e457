"""What admins signed whose time is over here: it may be the clock that is wrong. A machine.

Nobody says again to a member what it was told, and what does not count is not kept by the ledger,
lest whoever was an admin once fills it. So that is kept aside, in memory only and not without a
bound, until it counts: the clock is set, or the admin is granted more time. A node that starts anew
is told of everything anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from node.mesh.ledger import Ledger
from node.mesh.ticket import Grant, Record, Role


class Untimely:
    """Records that would count if no grant ever ran out; no more than a ledger holds."""

    def __init__(self) -> None:
        self.records: frozenset[Record] = frozenset()

    def keep(self, told: Iterable[Record], ledger: Ledger, mesh_key: bytes) -> None:
        """Keep what this ledger has not taken of what it was told, if that may count some day.

        Raises: ForgedRecord, as `Ledger.taking` does.
        """
        records = self.records - ledger.records if self.records else self.records
        refused = {record for record in told if not ledger.holds(record)}
        if self._is_of_admins(refused, ledger):
            kept = Ledger(
                ledger.founders,
                ledger.grants.union(item for item in records if isinstance(item, Grant)),
                ledger.revocations.union(item for item in records if not isinstance(item, Grant)),
            )
            records = kept.taking(refused, mesh_key).records - ledger.records
        self.records = records

    def _is_of_admins(self, refused: Iterable[Record], ledger: Ledger) -> bool:
        """Whether some are of admins whose time is over; what anybody signs costs next to nothing.

        One link of a chain may have come before the next.
        """
        names = {
            record.member
            for record in self.records
            if isinstance(record, Grant) and record.role is Role.ADMIN
        }
        return any(record.issuer in names or ledger.is_over(record.issuer) for record in refused)
