"""What one commit adds to each value: the messages in it, joined.

A commit may hold many messages of one session; joined they become one row of the session, and few
runs of transactions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.store import SessionAppend, ValueAppend


@dataclass(slots=True)
class SessionRows:
    """All that one commit adds to one session; checkpoints by the index they cover."""

    parts: list[SessionAppend]
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def after(self) -> int:
        """The index of the first transaction."""
        return self.parts[0].after

    @property
    def last(self) -> SessionAppend:
        return self.parts[-1]

    @property
    def transactions(self) -> Sequence[Transaction]:
        if len(self.parts) == 1:
            return self.parts[0].transactions
        return [transaction for part in self.parts for transaction in part.transactions]

    @property
    def lines(self) -> str:
        """The transactions' `canonical_lines`."""
        if len(self.parts) == 1:
            return self.parts[0].canonical
        return "".join([part.canonical for part in self.parts])

    @property
    def count(self) -> int:
        """How many transactions the session has once this is stored."""
        return self.last.after + len(self.last.transactions)


@dataclass(slots=True)
class ValueRows:
    """All that one commit adds to one value."""

    header: CoValueHeader | None = None
    is_deletion: bool = False
    sessions: dict[CoSessionId, SessionRows] = field(default_factory=dict)

    @property
    def transaction_count(self) -> int:
        count = 0
        for session in self.sessions.values():
            count += session.count - session.after
        return count


def gather(appends: Sequence[ValueAppend]) -> dict[RawCoId, ValueRows]:
    """Join what belongs to one session."""
    rows: dict[RawCoId, ValueRows] = {}
    for append in appends:
        value = rows.setdefault(append.co_id, ValueRows())
        if append.header is not None:
            value.header = append.header
        value.is_deletion = value.is_deletion or append.is_deletion
        for session_id, part in append.sessions.items():
            session = value.sessions.get(session_id)
            if session is None:
                session = value.sessions[session_id] = SessionRows([part])
            else:
                session.parts.append(part)
            if part.is_checkpoint:
                index = part.after + len(part.transactions) - 1
                session.checkpoints.append((index, part.signature))
    return rows
