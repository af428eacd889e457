"""A store that takes its time, also for what it knows at once: all may happen meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random

import trio

from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.session_fork import SessionFork
from node.covalue.store import (
    CoValueStore,
    Erased,
    LoadedPieces,
    StoredText,
    StoredValue,
    ValueAppend,
)

_DELAYS = (0.0, 0.0, 0.001, 0.01, 0.1)
"""Seconds before and after each step."""


class TardyStore:
    """A `CoValueStore` around another; with one seed it takes the same time each time."""

    def __init__(self, store: CoValueStore, seed: int) -> None:
        self._store = store
        self._random = Random(seed)

    async def _delay(self) -> None:
        await trio.sleep(self._random.choice(_DELAYS))

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        await self._delay()
        loaded = await self._store.load(co_id, known, max_bytes)
        await self._delay()
        return loaded

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        await self._delay()
        text = await self._store.load_text(co_id)
        await self._delay()
        return text

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        await self._delay()
        value = await self._store.load_value(co_id)
        await self._delay()
        return value

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        await self._delay()
        await self._store.store(appends)
        await self._delay()

    async def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        async for co_id in self._store.ids(prefix, after):
            await self._delay()
            yield co_id

    def count(self) -> int:
        return self._store.count()

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        await self._store.track_sync(changes)

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        await self._store.stop_tracking_sync(co_id)

    async def unsynced_ids(self) -> list[RawCoId]:
        return await self._store.unsynced_ids()

    async def read_lock(self, peer_id: str) -> ReconciliationLock | None:
        return await self._store.read_lock(peer_id)

    async def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        await self._store.write_lock(peer_id, lock)

    async def pending_erasures(self) -> list[RawCoId]:
        await self._delay()
        pending = await self._store.pending_erasures()
        await self._delay()
        return pending

    async def erase(self, co_id: RawCoId) -> Erased:
        await self._delay()
        erased = await self._store.erase(co_id)
        await self._delay()
        return erased

    async def reclaim(self) -> None:
        await self._delay()
        await self._store.reclaim()
        await self._delay()

    async def recover(self) -> None:
        await self._store.recover()

    async def keep_fork(self, fork: SessionFork) -> None:
        await self._delay()
        await self._store.keep_fork(fork)
        await self._delay()

    async def forks(self) -> list[SessionFork]:
        await self._delay()
        return await self._store.forks()
