"""[trio] Says in the log that clients wait for copies which nobody is going to make."""

from __future__ import annotations

from collections.abc import Callable

import structlog
import trio

from node.mesh.sync_state import KEEP_MORE, SyncState

LOOK_SECONDS = 3.0
"""Members that come, or a client that opens the value elsewhere, may yet make the copies."""

_log = structlog.get_logger(__name__)


async def watch_copies(unkept: Callable[[], int], state: Callable[[], SyncState]) -> None:
    """Warn, once each time, when two looks in a row find such clients; until cancelled."""
    looks = 0
    while True:
        await trio.sleep(LOOK_SECONDS)
        looks = looks + 1 if unkept() else 0
        if looks == 2:
            now = state()
            _log.warning(
                "clients wait for copies that no member makes",
                acknowledgements=now.waiting,
                min_copies=now.min_copies,
                members=len(now.members),
                hint=KEEP_MORE,
            )
