"""[trio] Erasing what deleted values still have on the disk, when nobody needs the store."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

from node.covalue.ids import RawCoId
from node.covalue.local.erasure_schedule import ErasureSchedule, Phase
from node.covalue.local.held_states import HeldState
from node.covalue.store import CoValueStore
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup


class Eraser:
    """Removes all but the tombstones of deleted values, on demand or by its schedule.

    `turn` is the storage's lock: no value is erased while one is stored. `hold` is told what is
    left of each value.
    """

    def __init__(
        self, store: CoValueStore, turn: trio.Lock, hold: Callable[[RawCoId, HeldState], None]
    ) -> None:
        self.erased = 0
        """Values, since the beginning."""
        self.failed = 0
        """Attempts that met a damaged value."""
        self._store = store
        self._turn = turn
        self._hold = hold
        self._schedule = ErasureSchedule()
        self._due = Wakeup()
        self._interruptions = 0

    @property
    def phase(self) -> Phase:
        return self._schedule.phase

    @property
    def deadline(self) -> float | None:
        """When the next run is due, on trio's clock."""
        return self._schedule.deadline

    def enable(self) -> None:
        """Erase in the background from now on."""
        self._schedule.enable(trio.current_time())
        self._due.set()

    def value_deleted(self) -> None:
        """A value is about to become a tombstone."""
        self._schedule.value_deleted(trio.current_time())
        self._due.set()

    def make_way(self) -> None:
        """Somebody needs the store: begin no further value in the run under way."""
        self._interruptions += 1

    async def pending(self) -> list[RawCoId]:
        """Deleted values of which more than the tombstone is still on the disk.

        Cancel: nothing is changed.
        """
        return await self._store.pending_erasures()

    async def erase_pending(self) -> int:
        """Erase all that are pending, unless it has to make way; returns how many.

        Raises: CorruptStore for the first damaged value, when the others have been erased.
        Cancel: what is left is still pending.
        """
        begun = self._interruptions
        erased = 0
        damage: CorruptStore | None = None
        for co_id in await self._store.pending_erasures():
            if self._interruptions != begun:
                break
            try:
                async with self._turn:
                    await self._erase(co_id)
                erased += 1
            except CorruptStore as error:
                damage = damage or error
                self.failed += 1
        if damage is not None:
            raise damage
        return erased

    async def _erase(self, co_id: RawCoId) -> None:
        await self._store.erase(co_id)
        self.erased += 1
        value = await self._store.load_value(co_id)
        if value is not None:
            self._hold(co_id, HeldState(value.known_state, is_tombstone=True))

    async def run(self) -> None:
        """Erase by the schedule, until cancelled.

        Cancel: as `erase_pending`.
        """
        while True:
            deadline = self._schedule.deadline
            if deadline is None or trio.current_time() < deadline:
                with trio.move_on_at(math.inf if deadline is None else deadline):
                    await self._due.wait()
                continue
            self._schedule.begin()
            has_more = False
            try:
                await self.erase_pending()
                has_more = bool(await self.pending())
            except CorruptStore:
                pass  # counted; the next deletion is soon enough to try again
            self._schedule.finish(trio.current_time(), has_more=has_more)
