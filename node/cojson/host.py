"""The one sync engine of a node, and its way to the store, the clients and the mesh.

(Signatures first; the body follows.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from node.covalue.content import Content
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.covalue.store import CoValueStore


class MeshReader(Protocol):
    """What the other nodes hold."""

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        """Content beyond `known` that members hold, unverified, dependencies included or not.

        `known[id]` is what this node has; an id that is not in it is not stored here. An id
        that is absent from the result is nowhere. Answers within a bound of its own.

        Cancel: the question is withdrawn.
        """
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of content that was handed in."""

    accepted: frozenset[RawCoId]
    """Stored durably, or stored already."""
    refused: Mapping[RawCoId, str]
    """Why; nothing of it was kept."""
    waiting: frozenset[RawCoId]
    """Kept aside until a group or account it depends on is here."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What one load found, for people."""

    co_id: RawCoId
    header: CoValueHeader
    sessions: Mapping[CoSessionId, int]
    source: str
    """`store`, or `mesh`."""


@dataclass(frozen=True, slots=True)
class HostStatistics:
    """Counters since the host was opened, and what it holds now."""

    clients: int
    subscribed_ids: int
    values_in_memory: int
    messages_received: int
    refused: int
    commits: int
    transactions_stored: int


class SyncHost:
    """Open it with `open_sync_host`."""

    mesh: MeshReader | None
    store: CoValueStore

    async def receive_content(self, source: str, contents: Sequence[Content]) -> Receipt:
        """Verify and store what a member sent; returns when it is durable.

        Cancel: what was accepted is stored all the same.
        """
        raise NotImplementedError

    def changes(self) -> trio.MemoryReceiveChannel[tuple[RawCoId, Mapping[CoSessionId, int]]]:
        """(id, counts of the sessions that moved) after each durable commit, merged per id."""
        raise NotImplementedError

    def subscribed_ids(self) -> frozenset[RawCoId]:
        """Ids that some client is subscribed to."""
        raise NotImplementedError

    async def wait_interest_changed(self) -> None:
        """Return when `subscribed_ids` has changed since this was last called. Cancel: nothing."""
        raise NotImplementedError

    async def load(self, co_id: RawCoId) -> LoadReport | None:
        """Load one value, from the mesh if it is not stored here; None when it is nowhere."""
        raise NotImplementedError

    async def known_state(self, co_id: RawCoId) -> KnownState:
        """What is stored durably; `NOTHING` when the value is not."""
        raise NotImplementedError

    def statistics(self) -> HostStatistics:
        raise NotImplementedError


@asynccontextmanager
async def open_sync_host(store: CoValueStore) -> AsyncIterator[SyncHost]:
    """Run the engine of a node over `store` until the block ends."""
    raise NotImplementedError
    yield
