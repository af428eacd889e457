"""Evidence that an author signed two continuations of one session.

A session is an append-only log of one author, so two transactions signed for the same place mean
that the author's device went back to an older state, or lies. The first continuation that was
verified is kept and served; the other is refused and kept beside it as evidence: both signatures
can be checked by anyone who has the transactions before the fork.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.covalue.content import SessionContent
from node.covalue.ids import CoSessionId, RawCoId

MAX_EVIDENCE_BYTES = 1024 * 1024
"""Transactions kept of each side; of a longer side its first ones and its signature."""


@dataclass(frozen=True, slots=True)
class SessionFork:
    """`kept` and `refused` both begin at the first transaction in which they differ."""

    co_id: RawCoId
    session_id: CoSessionId
    kept: SessionContent
    refused: SessionContent

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        both = (*self.kept.transactions, *self.refused.transactions)
        return 512 + sum(len(item.changes) + 128 for item in both)

    @property
    def index(self) -> int:
        """That of the first transaction that is not the same."""
        return self.kept.after
