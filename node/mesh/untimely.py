"""Records of admins whose time is over here, where the clock may be wrong. A machine.

Nobody tells a member the same thing twice, and the ledger does not keep what does not count, lest
one that was an admin once fills it. So such records are kept aside, in memory only and up to a
bound, until they count: the clock is set, or the admin is granted more time. A node that starts
anew is told of everything anew.
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
        """Keep those of the records told that the ledger has not taken, if they may count some day.

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
        """Whether some are of admins whose time is over; all else costs next to nothing here.

        The records of an admin may follow the one that made it an admin, so `records` count, too.
        """
        names = {
            record.member
            for record in self.records
            if isinstance(record, Grant) and record.role is Role.ADMIN
        }
        return any(record.issuer in names or ledger.is_over(record.issuer) for record in refused)
