"""[trio] Asking the mesh for values: ids that come while questions are out share the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from node.cojson.reports import MeshReader
from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup

MAX_SEARCHES = 8
"""Questions at a time."""

MAX_SEARCH_IDS = 256


class Searches:
    """What is found beyond `known_state` goes to `hand_in`; `ended` is told then."""

    def __init__(
        self,
        known_state: Callable[[RawCoId], Awaitable[KnownState]],
        hand_in: Callable[[str, Sequence[Content]], Awaitable[object]],
        ended: Callable[[Sequence[RawCoId]], None],
    ) -> None:
        self.mesh: MeshReader | None = None
        self._known_state = known_state
        self._hand_in = hand_in
        self._ended = ended
        self._waiting: dict[RawCoId, None] = {}
        self._asked: set[RawCoId] = set()
        self._end = trio.lowlevel.ParkingLot()
        self._wake = Wakeup()

    def want(self, co_id: RawCoId) -> None:
        """Ask for it with the next question."""
        self._waiting[co_id] = None
        self._wake.set()

    async def wait_over(self, co_id: RawCoId) -> None:
        """Return when the mesh is not being asked for it: a large value comes in parts.

        Cancel: nothing is changed.
        """
        while co_id in self._asked or co_id in self._waiting:
            await self._end.park()

    async def run(self) -> None:
        """Ask what is wanted, until cancelled."""
        slots = trio.Semaphore(MAX_SEARCHES)
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                while self._waiting:
                    await slots.acquire()
                    ids = list(self._waiting)[:MAX_SEARCH_IDS]
                    for co_id in ids:
                        del self._waiting[co_id]
                    self._asked.update(ids)
                    nursery.start_soon(self._run_in_slot, ids, slots)

    async def _run_in_slot(self, ids: list[RawCoId], slots: trio.Semaphore) -> None:
        try:
            if self.mesh is not None:
                await self._search(self.mesh, ids)
        finally:
            slots.release()
        self._asked.difference_update(ids)
        self._ended(ids)
        self._end.unpark_all()

    async def _search(self, mesh: MeshReader, ids: Sequence[RawCoId]) -> None:
        known: dict[RawCoId, KnownState] = {}
        for co_id in ids:
            try:
                state = await self._known_state(co_id)
            except CorruptStore:
                continue  # others may have it whole
            if state.header:
                known[co_id] = state
        found = await mesh.find(ids, known)
        contents = [content for pieces in found.values() for content in pieces]
        if contents:
            await self._hand_in("mesh", contents)
