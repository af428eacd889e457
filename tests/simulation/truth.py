"""What clients of a run wrote, and what nodes acknowledged to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from node.cojson.crypto import RunningHash
from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.owners import owner_in


@dataclass
class Session:
    """All that was ever written in one session of one value: the truth to compare with."""

    transactions: list[Transaction] = field(default_factory=list)
    signatures: list[bytes] = field(default_factory=list)
    """After each of them."""
    running: RunningHash = field(default_factory=RunningHash)


class Truth:
    """What clients wrote, and what nodes acknowledged to them."""

    def __init__(self) -> None:
        self.headers: dict[RawCoId, CoValueHeader] = {}
        self.sessions: dict[tuple[RawCoId, CoSessionId], Session] = {}
        self.acknowledged: dict[int, dict[tuple[RawCoId, CoSessionId], int]] = {}
        """By node."""
        self.forked: dict[tuple[RawCoId, CoSessionId], int] = {}
        """Sessions that go on in two ways, and where they part."""
        self._copies: dict[int, dict[tuple[RawCoId, CoSessionId], int]] = {}
        self.deleted: set[RawCoId] = set()
        """Of which a deletion was written."""

    def sound(self, co_id: RawCoId, session_id: CoSessionId, count: int) -> int:
        """Of so many transactions, those before the session was forked, if it was."""
        return min(count, self.forked.get((co_id, session_id), count))

    def session(self, co_id: RawCoId, session_id: CoSessionId) -> Session:
        return self.sessions.setdefault((co_id, session_id), Session())

    def copy(self, node: int) -> None:
        """Its directory is copied now."""
        self._copies[node] = dict(self.acknowledged.get(node, {}))

    def put_back(self, node: int) -> None:
        """It is put back to that: what it acknowledged since is with others, or to be sent anew."""
        self.acknowledged[node] = self._copies[node]

    def acknowledge(self, node: int, co_id: RawCoId, session_id: CoSessionId, count: int) -> bool:
        """Whether that is news."""
        counts = self.acknowledged.setdefault(node, {})
        key = (co_id, session_id)
        is_news = count > counts.get(key, 0)
        counts[key] = max(count, counts.get(key, 0))
        return is_news

    def owners(self, co_id: RawCoId) -> list[str]:
        """Who owns a value, and who owns that."""
        owners: list[str] = []
        header = self.headers.get(co_id)
        while header is not None and (owner := owner_in(header)):
            owners.append(owner)
            header = self.headers.get(RawCoId(owner))
        return owners

    def needs(self, co_id: RawCoId) -> frozenset[RawCoId]:
        """The value, and all without which nobody takes it in: its owners, who wrote in it, who
        is named in it."""
        needed = frozenset((co_id,))
        while True:
            texts = [owner for each in needed for owner in self.owners(each)]
            for (each, session_id), session in self.sessions.items():
                if each in needed:
                    texts += [session_id, *(item.changes for item in session.transactions)]
            more = needed | {id for id in self.headers if any(id in text for text in texts)}
            if more == needed:
                return needed
            needed = more
