"""The seam between the sync engine and where coValues are kept.

`BeeStore` keeps them in a bee (`bee_store.py`). What is stored has been verified, so a store
checks nothing; what is read from somebody else's bee is checked again by the engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from node.covalue.content import Content, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState


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


@dataclass(frozen=True, slots=True)
class ValueAppend:
    """What one message adds to one coValue: all of it becomes durable, or none."""

    co_id: RawCoId
    header: CoValueHeader | None
    sessions: Mapping[CoSessionId, SessionAppend]


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

    @property
    def known_state(self) -> KnownState:
        return KnownState(True, {key: session.count for key, session in self.sessions.items()})


@dataclass(frozen=True, slots=True)
class LoadedPieces:
    """Pieces in the order in which they must be applied.

    `is_complete` is False when `max_bytes` cut them short: ask again with what they bring.
    """

    pieces: Sequence[Content] = field(default_factory=list)
    is_complete: bool = True


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

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """Header and session rows; None when the value is not stored.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        ...

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        """Store all of them in one atomic batch; returns when it is durable.

        Each must continue what is stored: the engine sees to that.

        Cancel: the batch is stored whole or not at all; it is not known to be durable.
        """
        ...

    def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        """Ids of the values stored that begin with `prefix` and sort behind `after`, in order."""
        ...

    def count(self) -> int:
        """How many values are stored."""
        ...

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """Note which (value, peer) are synced (True) and which are not yet (False)."""
        ...

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """Forget who still lacks something of this value."""
        ...

    def unsynced_ids(self) -> list[RawCoId]:
        """Values that some peer still lacks something of."""
        ...
