"""Who compares everything that is stored with a peer: one session at a time, and seldom.

A lock is held per peer. It is *refused* while another session holds it and took it less than a
day ago, and for 30 days after it was released: comparing everything costs much. A session that
takes over an abandoned lock goes on where its holder stopped.

Source: cojson 0.20.19 storage/storageAsync.ts tryAcquireStorageReconciliationLock, config.ts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

LOCK_TTL_MS = 24 * 60 * 60 * 1000
INTERVAL_MS = 30 * 24 * 60 * 60 * 1000


class LockRefusal(Enum):
    """Why a lock cannot be had now."""

    NOT_DUE = "not_due"
    LOCK_HELD = "lock_held"


@dataclass(frozen=True, slots=True)
class ReconciliationLock:
    """The last lock taken for a peer; times are unix ms."""

    holder_session_id: str
    acquired_at: int
    last_processed_offset: int = 0
    released_at: int | None = None


def try_acquire(
    lock: ReconciliationLock | None,
    session_id: str,
    unix_ms: int,
    *,
    ttl_ms: int = LOCK_TTL_MS,
    interval_ms: int = INTERVAL_MS,
) -> ReconciliationLock | LockRefusal:
    """The lock that `session_id` holds from now on, or why it is refused."""
    if lock is None:
        return ReconciliationLock(session_id, unix_ms)
    if lock.released_at is not None:
        if unix_ms - lock.released_at < interval_ms:
            return LockRefusal.NOT_DUE
        return ReconciliationLock(session_id, unix_ms)
    is_fresh = unix_ms - lock.acquired_at <= ttl_ms
    if is_fresh and lock.holder_session_id != session_id:
        return LockRefusal.LOCK_HELD
    return ReconciliationLock(session_id, unix_ms, lock.last_processed_offset)


def renew(
    lock: ReconciliationLock | None, session_id: str, offset: int
) -> ReconciliationLock | None:
    """The lock with its progress noted; None when `session_id` does not hold it."""
    if lock is None or lock.holder_session_id != session_id or lock.released_at is not None:
        return None
    return replace(lock, last_processed_offset=offset)


def release(
    lock: ReconciliationLock | None, session_id: str, unix_ms: int
) -> ReconciliationLock | None:
    """The lock, released: everything was compared; None when `session_id` does not hold it."""
    if lock is None or lock.holder_session_id != session_id:
        return None
    return replace(lock, last_processed_offset=0, released_at=unix_ms)
