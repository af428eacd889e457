"""How much a store can load: enough to tell whether two stores hold the same.

Not for any two stores, but for those of which one can only be behind the other. Values and
deletions only become more; with equally many deletions, sessions only grow.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.covalue.ids import is_delete_session
from node.covalue.store import StoredValue


@dataclass(frozen=True, slots=True)
class Totals:
    """Values, how many of them are deleted, and the transactions that can be loaded of all.

    Of a deleted value only its delete sessions count, whether the rest is erased yet or not.
    """

    values: int
    deleted: int
    transactions: int

    def is_ahead_of(self, other: Totals) -> bool:
        """Whether this holds something that the other lacks, if one is behind the other."""
        return (
            self.values > other.values
            or self.deleted > other.deleted
            or (self.deleted == other.deleted and self.transactions > other.transactions)
        )


def hidden_by_deletion(value: StoredValue) -> int:
    """How many transactions can be loaded of it now, and cannot once it is deleted."""
    return sum(
        session.count
        for session_id, session in value.sessions.items()
        if not is_delete_session(session_id)
    )
