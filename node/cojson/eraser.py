"""[trio] Erasing deleted values in the background, one at a time, so that nobody waits long.

A deletion is judged once more before anything is removed: transactions of its group may have
come late. A value whose deletion is no longer valid stays as it is, a tombstone with its content on
the disk, and is looked at again the next time.

Source: cojson 0.20.19 storage/DeletedCoValuesEraserScheduler.ts has the same pace.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import structlog
import trio

from node.cojson.gatekeeper import Gatekeeper
from node.covalue.ids import RawCoId
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup

START_SECONDS = 1.0
"""After the node has started; what an earlier run left is erased then."""

PAUSE_SECONDS = 60.0
"""Between two runs, however much is deleted: erasing many together costs less."""

RECLAIM_SHARE = 100
"""Rewriting the store's files takes at most one part in so many of the time."""

_log = structlog.get_logger(__name__)


class Eraser:
    """Run `run` in a task; `wake` it when something was deleted. `access` is told what went.

    `begin_judging` gives what tells of each value of one run whether it may be erased.
    """

    def __init__(
        self,
        store: CoValueStore,
        begin_judging: Callable[[], Callable[[RawCoId], Awaitable[bool]]],
        *,
        access: Gatekeeper | None = None,
    ) -> None:
        self.erased_values = 0
        self._store = store
        self._begin_judging = begin_judging
        self._access = access
        self._reclaims_at = -math.inf
        self._is_unreclaimed = False
        self._wake = Wakeup()

    def wake(self) -> None:
        """There is something to erase."""
        self._wake.set()

    async def run(self) -> None:
        """Erase what is pending, now and whenever woken, until cancelled.

        Cancel: a value that is being erased is pending still, and taken up by the next run.
        """
        await trio.sleep(START_SECONDS)
        while True:
            await self.erase_pending()
            with trio.move_on_at(self._reclaims_at if self._is_unreclaimed else math.inf):
                await self._wake.wait()
            await trio.sleep(PAUSE_SECONDS)

    async def erase_pending(self) -> None:
        """One run over all that is pending now; gives the room back if that is due.

        Cancel: as for `run`.
        """
        may_erase = self._begin_judging()
        for co_id in await self._store.pending_erasures():
            try:
                if not await may_erase(co_id):
                    _log.warning("not erased", co_id=co_id, reason="its deletion no longer holds")
                    continue
                erased = await self._store.erase(co_id)
            except CorruptStore as error:
                _log.error("cannot erase", error=str(error))
                continue
            self.erased_values += 1
            if self._access is not None:
                self._access.erased(erased.sessions)
            _log.info("erased", co_id=co_id, transactions=erased.transactions)
            self._is_unreclaimed = True
            await trio.lowlevel.checkpoint()
        started = trio.current_time()
        if self._is_unreclaimed and started >= self._reclaims_at:
            await self._store.reclaim()
            self._is_unreclaimed = False
            took = trio.current_time() - started
            self._reclaims_at = trio.current_time() + RECLAIM_SHARE * took
