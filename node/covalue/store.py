"""The seam between the sync engine and where coValues are kept.

Three backends: `BeeStore` keeps them in a bee, `SqliteStore` in a file that cojson's own SQLite
storage reads and writes, `HybridStore` in both. What is stored has been verified, so a store
checks nothing; what is read from somebody else's bee is checked again by the engine.

A *deleted* value is a tombstone: its header and its delete sessions are all that is loaded. The
rest waits to be erased (`pending_erasures`, `erase`), and is gone from the disk after that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from node.covalue.content import Content, Transaction, canonical_lines
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.session_fork import SessionFork


class SessionAppend(NamedTuple):
    """Verified transactions [after, after + len(transactions)) of one session.

    `bytes_since_checkpoint` is the session's counter after them; `is_checkpoint` says that
    `signature` is to be kept for good, since pieces will end there.
    """

    after: int
    transactions: Sequence[Transaction]
    signature: bytes
    bytes_since_checkpoint: int
    is_checkpoint: bool
    lines: str = ""
    """The transactions' `canonical_lines`, if they were made already to be hashed."""

    @property
    def numbered(self) -> Iterator[tuple[int, Transaction]]:
        """Each transaction with its index in the session."""
        return enumerate(self.transactions, self.after)

    @property
    def canonical(self) -> str:
        """The transactions' `canonical_lines`."""
        return self.lines or canonical_lines(self.transactions).decode()


class ValueAppend(NamedTuple):
    """What one message adds to one coValue: all of it becomes durable, or none."""

    co_id: RawCoId
    header: CoValueHeader | None
    sessions: Mapping[CoSessionId, SessionAppend]
    is_deletion: bool = False
    """The delete session in it was judged: from this commit on the value is a tombstone."""

    @property
    def size(self) -> int:
        """About how many bytes it will take on the disk."""
        size = 512 if self.header is not None else 0
        for part in self.sessions.values():
            size += 256 + len(part.lines)
            if not part.lines:
                size += sum([128 + len(changes) for _, changes, _, _ in part.transactions])
        return size

    @property
    def transaction_count(self) -> int:
        return sum([len(part.transactions) for part in self.sessions.values()])


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session as stored, without its transactions."""

    count: int
    signature: bytes
    bytes_since_checkpoint: int


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A coValue as stored, without its transactions."""

    header: CoValueHeader
    sessions: Mapping[CoSessionId, StoredSession]
    dependencies: frozenset[RawCoId]
    """The values that this one cannot be understood without (`dependencies.py`)."""
    is_deleted: bool = False
    """Whether this is a tombstone: `sessions` are the delete sessions then."""

    @property
    def known_state(self) -> KnownState:
        return KnownState(True, {key: session.count for key, session in self.sessions.items()})


class StoredText(NamedTuple):
    """A value that is not long, with its transactions as the text that is sent.

    `texts` are the canonical transactions of each session, commas between them; the sessions
    come sorted by id, and each ends with the signature that `value` tells.
    """

    value: StoredValue
    texts: Mapping[CoSessionId, str]


@dataclass(frozen=True, slots=True)
class LoadedPieces:
    """Pieces in the order in which they must be applied.

    `is_complete` is False when `max_bytes` cut them short: ask again with what they bring.
    """

    pieces: Sequence[Content] = field(default_factory=list)
    is_complete: bool = True
    value: StoredValue | None = None
    """What `load_value` would tell, where a load of everything came upon it on its way."""


class SessionSize(NamedTuple):
    """Transactions of one session, and the characters of their changes and meta."""

    transactions: int = 0
    characters: int = 0

    def plus(self, transactions: Sequence[Transaction]) -> SessionSize:
        characters = sum(len(item.changes) + len(item.meta or "") for item in transactions)
        return SessionSize(self.transactions + len(transactions), self.characters + characters)


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure removed, by session."""

    sessions: Mapping[CoSessionId, SessionSize] = field(default_factory=dict)

    @property
    def transactions(self) -> int:
        return sum(size.transactions for size in self.sessions.values())


class CoValueStore(Protocol):
    """Where coValues are kept. One writer at a time; readers see whole appends only."""

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        """What is stored beyond `known`; no pieces when there is nothing more, or no such value.

        Sessions come sorted by id, so that all who load a value cold agree on their order.
        At least one piece comes when there is one, however small `max_bytes` is.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        ...

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        """The whole of a value that is not long, as text; None for any other: ask `load`.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        ...

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """Header and session rows; None when the value is not stored.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        ...

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        """Store all of them in one atomic batch; returns when it is durable.

        Each must continue what is stored: the engine sees to that. Several of one value and one
        session may follow one another.

        Raises: CorruptStore when damage is in the way of one of them; nothing is stored then, and
        the others can be stored without it. StorageFailed.
        Cancel: the batch is stored whole or not at all; it is not known to be durable.
        """
        ...

    def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        """Ids of the values stored that begin with `prefix` and sort after `after`, in order."""
        ...

    def count(self) -> int:
        """How many values are stored."""
        ...

    # Who has what: for callers that keep, beside a value, what other peers have of it.

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """Note which (value, peer) are synced (True) and which are not yet (False).

        Cancel: all are noted, or none.
        """
        ...

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """Forget who still lacks something of this value.

        Cancel: it is forgotten, or not.
        """
        ...

    async def unsynced_ids(self) -> list[RawCoId]:
        """Values that some peer still lacks something of, each once.

        Cancel: nothing is changed.
        """
        ...

    async def read_lock(self, peer_id: str) -> ReconciliationLock | None:
        """The last reconciliation lock for a peer.

        Cancel: nothing is changed.
        """
        ...

    async def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        """Replace it; a caller that reads, decides and writes must not do so twice at a time.

        Cancel: it is written, or not.
        """
        ...

    # Deletion.

    async def pending_erasures(self) -> list[RawCoId]:
        """Deleted values of which more than the tombstone is still on the disk.

        Cancel: nothing is changed.
        """
        ...

    async def erase(self, co_id: RawCoId) -> Erased:
        """Remove all but the tombstone of a deleted value from the disk; returns what that was.

        Nothing is done to a value that is not deleted. Repeat it after a crash: it goes on.

        Raises: CorruptStore.
        Cancel: what is left of the value is still pending.
        """
        ...

    async def reclaim(self) -> None:
        """Give the room of what was erased back to the file system: no file holds it any more.

        May rewrite everything, beside reads and commits.

        Cancel: it is finished first.
        """
        ...

    async def recover(self) -> None:
        """Go on after a write failed, once the disk can be written again.

        Of a batch whose `store` failed all may be there, or nothing. The corestore, where there is
        one underneath, is to be recovered before.

        Raises: StorageFailed when it still cannot be written; CorruptStore.
        Cancel: it is finished first, or called again.
        """
        ...

    # Evidence.

    async def keep_fork(self, fork: SessionFork) -> None:
        """Keep evidence; of one session only the first is kept.

        Cancel: it is kept, or not.
        """
        ...

    async def forks(self) -> list[SessionFork]:
        """All evidence kept, by id.

        Cancel: nothing is changed.
        """
        ...
