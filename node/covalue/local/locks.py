"""[trio] The reconciliation locks of a store: read, decided and written one at a time."""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.covalue.reconciliation_lock import (
    INTERVAL_MS,
    LOCK_TTL_MS,
    LockRefusal,
    ReconciliationLock,
    release,
    renew,
    try_acquire,
)
from node.covalue.store import CoValueStore


class ReconciliationLocks:
    """Who may compare all that is stored with a peer, and how far it has come.

    `unix_ms` is the wall clock: a lock outlives the process that took it.
    """

    def __init__(self, store: CoValueStore, unix_ms: Callable[[], int]) -> None:
        self._store = store
        self._unix_ms = unix_ms
        self._turn = trio.Lock()

    async def try_acquire(
        self,
        peer_id: str,
        session_id: str,
        *,
        ttl_ms: int = LOCK_TTL_MS,
        interval_ms: int = INTERVAL_MS,
    ) -> ReconciliationLock | LockRefusal:
        """Take the lock for a peer, with the offset at which its last holder stopped.

        Cancel: it is taken, or not.
        """
        async with self._turn:
            lock = try_acquire(
                await self._store.read_lock(peer_id),
                session_id,
                self._unix_ms(),
                ttl_ms=ttl_ms,
                interval_ms=interval_ms,
            )
            if isinstance(lock, ReconciliationLock):
                await self._store.write_lock(peer_id, lock)
            return lock

    async def renew(self, peer_id: str, session_id: str, offset: int) -> bool:
        """Note the progress; False when this session does not hold the lock.

        Cancel: it is noted, or not.
        """
        async with self._turn:
            lock = renew(await self._store.read_lock(peer_id), session_id, offset)
            return await self._write(peer_id, lock)

    async def release(self, peer_id: str, session_id: str) -> bool:
        """All was compared; False when this session does not hold the lock.

        Cancel: it is released, or not.
        """
        async with self._turn:
            lock = release(await self._store.read_lock(peer_id), session_id, self._unix_ms())
            return await self._write(peer_id, lock)

    async def _write(self, peer_id: str, lock: ReconciliationLock | None) -> bool:
        if lock is not None:
            await self._store.write_lock(peer_id, lock)
        return lock is not None
