from __future__ import annotations

import pytest

from node.covalue.reconciliation_lock import (
    INTERVAL_MS,
    LOCK_TTL_MS,
    LockRefusal,
    ReconciliationLock,
    release,
    renew,
    try_acquire,
)

HELD = ReconciliationLock("ann", 1000, 300)
RELEASED = ReconciliationLock("ann", 1000, 0, 2000)


@pytest.mark.parametrize(
    ("lock", "session_id", "unix_ms", "expected"),
    [
        (None, "bob", 5, ReconciliationLock("bob", 5)),
        (HELD, "bob", 1000 + LOCK_TTL_MS, LockRefusal.LOCK_HELD),
        (HELD, "bob", 1001 + LOCK_TTL_MS, ReconciliationLock("bob", 1001 + LOCK_TTL_MS, 300)),
        (HELD, "ann", 1001, ReconciliationLock("ann", 1001, 300)),
        (RELEASED, "ann", 1999 + INTERVAL_MS, LockRefusal.NOT_DUE),
        (RELEASED, "bob", 2000 + INTERVAL_MS, ReconciliationLock("bob", 2000 + INTERVAL_MS)),
    ],
)
def test_who_gets_it(
    lock: ReconciliationLock | None,
    session_id: str,
    unix_ms: int,
    expected: ReconciliationLock | LockRefusal,
) -> None:
    assert try_acquire(lock, session_id, unix_ms) == expected


def test_only_its_holder_renews_and_releases_it() -> None:
    assert renew(HELD, "ann", 400) == ReconciliationLock("ann", 1000, 400)
    assert release(HELD, "ann", 2000) == RELEASED
    for lock in (None, RELEASED):
        assert renew(lock, "ann", 400) is None
    assert renew(HELD, "bob", 400) is None
    assert release(HELD, "bob", 2000) is None
    assert release(None, "ann", 2000) is None
