"""What clients have ever written: every session, whole, with a signature at each length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.cojson.crypto import RunningHash
from node.covalue.content import Content, SessionContent, Transaction
from node.covalue.dependencies import value_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts
from node.covalue.session_log import feed
from tests.support.authors import Author


@dataclass
class WrittenSession:
    """One session's transactions; `signatures[n]` covers the first n + 1 of them."""

    author: Author
    transactions: list[Transaction] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    running: RunningHash = field(default_factory=RunningHash)


class Ledger:
    """Clients hold counts; the transactions themselves are kept here, once."""

    def __init__(self) -> None:
        self.headers: dict[RawCoId, CoValueHeader] = {}
        self._sessions: dict[tuple[RawCoId, CoSessionId], WrittenSession] = {}

    def write(
        self,
        author: Author,
        header: CoValueHeader,
        session_id: CoSessionId,
        transactions: Sequence[Transaction],
    ) -> int:
        """Continue a session; how long it is then."""
        self.headers[header.id] = header
        session = self._sessions.setdefault((header.id, session_id), WrittenSession(author))
        for transaction in transactions:
            feed(session.running, [transaction])
            session.transactions.append(transaction)
            session.signatures.append(session.author.sign_hash(session.running))
        return len(session.transactions)

    @property
    def count(self) -> int:
        """Transactions in all sessions."""
        return sum(len(session.transactions) for session in self._sessions.values())

    def length(self, co_id: RawCoId, session_id: CoSessionId) -> int:
        session = self._sessions.get((co_id, session_id))
        return 0 if session is None else len(session.transactions)

    def content(self, co_id: RawCoId, held: SessionCounts, known: KnownState) -> Content | None:
        """What somebody who holds so much sends to somebody who knows so much; None if nothing."""
        new = {}
        for session_id, count in held.items():
            after = known.sessions.get(session_id, 0)
            if after < count:
                session = self._sessions[co_id, session_id]
                part = session.transactions[after:count]
                new[session_id] = SessionContent(after, part, session.signatures[count - 1])
        if not new and known.header:
            return None
        header = self.headers[co_id]
        return Content(co_id, None if known.header else header, new, header.priority)

    def dependencies(self, co_id: RawCoId, held: SessionCounts) -> list[RawCoId]:
        """Of so much of a value, in a fixed order."""
        header = self.headers[co_id]
        written = (
            transaction
            for session_id, count in held.items()
            if header.is_group
            for transaction in self._sessions[co_id, session_id].transactions[:count]
        )
        return sorted(value_dependencies(co_id, header, held, written))

    def is_true(self, co_id: RawCoId, session_id: CoSessionId, part: SessionContent) -> bool:
        """Whether these transactions were written, just there, and are signed."""
        session = self._sessions.get((co_id, session_id))
        return (
            session is not None
            and session.transactions[part.after : part.stop] == list(part.transactions)
            and len(session.transactions) >= part.stop > part.after
            and session.signatures[part.stop - 1] == part.signature
        )
