"""[trio] Makes what the sync engine wants stored durable, much of it in one append."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from hypercore.errors import StorageFailed
from node.cojson.outputs import Store
from node.cojson.room import Room, is_stored
from node.covalue.ids import RawCoId
from node.covalue.store import CoValueStore, ValueAppend
from node.errors import CorruptStore
from swarm.io.tasks import Wakeup

MAX_COMMIT_MESSAGES = 256
"""Messages in one append: more would keep everyone else waiting for tens of milliseconds."""

GATHER_MESSAGES = 64
"""So many are worth waiting for, 10 ms at most: every append writes the tree's upper nodes."""

MAX_COMMIT_BYTES = 2 * 1024 * 1024
"""An append of as much takes about 10 ms."""

_log = structlog.get_logger(__name__)


class Committer:
    """What waits for an append, in order; `stored` is told of each append when it is durable.

    `lost` is told at once of what cannot be stored, since blocks that lead to it are damaged: all
    that was added of these values, and what rests on them. The others are stored without it.
    """

    def __init__(
        self,
        store: CoValueStore,
        room: Room | None,
        stored: Callable[[Sequence[Store]], Awaitable[None]],
        lost: Callable[[Sequence[Store]], None],
    ) -> None:
        """With a `room` that somebody opens again, a failing disk is waited for."""
        self._store = store
        self._room = room
        self._stored = stored
        self._lost = lost
        self._waiting: deque[tuple[Store, int]] = deque()
        """Each with its size."""
        self._wake = Wakeup()
        self.queued_bytes = 0
        """Content that waits, and that is being appended."""
        self.commits = 0
        self.messages_stored = 0
        self.transactions_stored = 0
        self.messages_lost = 0
        """Damage kept them from being stored."""
        self._added = self._done = 0
        """Messages ever added, and those of them that are durable or lost."""
        self._progress = trio.lowlevel.ParkingLot()

    def add(self, store: Store) -> None:
        """Make it durable with the next append that has room for it."""
        size = store.append.size
        self._added += 1
        self._waiting.append((store, size))
        self.queued_bytes += size
        self._wake.set()

    async def wait_stored(self) -> None:
        """Return when all that was added before this is durable. Cancel: nothing is changed."""
        added = self._added
        while self._done < added:
            await self._progress.park()

    async def run(self) -> None:
        """Make what waits durable, as much at a time as one append may hold; until cancelled.

        Raises: StorageFailed without a room.
        Cancel: a commit under way is stored whole or not at all.
        """
        while True:
            if not self._waiting:
                await self._wake.wait()
                continue
            await self._gather()
            stores: list[Store] = []
            size = 0
            while self._waiting and len(stores) < MAX_COMMIT_MESSAGES and size < MAX_COMMIT_BYTES:
                store, store_size = self._waiting.popleft()
                stores.append(store)
                size += store_size
            taken = len(stores)
            try:
                await self._make_durable([store.append for store in stores])
            except CorruptStore:
                stores = await self._store_each(stores)
            self._done += taken
            self._progress.unpark_all()
            self.queued_bytes -= size
            self.commits += 1
            self.messages_stored += len(stores)
            self.transactions_stored += sum(store.append.transaction_count for store in stores)
            await self._stored(stores)
            await trio.lowlevel.checkpoint()

    async def _store_each(self, stores: Sequence[Store]) -> list[Store]:
        """Store one after the other, since damage stops some of them; returns the durable ones."""
        durable: list[Store] = []
        lost: list[Store] = []
        lost_ids: set[RawCoId] = set()
        for store in stores:
            co_id = store.append.co_id
            try:
                if not _is_lost_with(store, lost_ids):
                    await self._make_durable([store.append])
            except CorruptStore as error:
                _log.error("cannot store", co_id=co_id, error=str(error))
                lost_ids.add(co_id)
            (lost if co_id in lost_ids else durable).append(store)
        # What was added to these values since would leave a gap.
        for store, size in [item for item in self._waiting if _is_lost_with(item[0], lost_ids)]:
            self._waiting.remove((store, size))
            self._done += 1
            self.queued_bytes -= size
            lost.append(store)
        self.messages_lost += len(lost)
        self._lost(lost)
        return durable

    async def _gather(self) -> None:
        """Let a few more messages come, as long as each round of the other tasks brings some."""
        before = 0
        while before < len(self._waiting) < GATHER_MESSAGES:
            before = len(self._waiting)
            await trio.lowlevel.checkpoint()

    async def _make_durable(self, appends: Sequence[ValueAppend]) -> None:
        """Store it; where that fails for want of room, as soon as there is some."""
        while True:
            try:
                await self._store.store(appends)
                return
            except StorageFailed as error:
                if self._room is None:
                    raise
                self._room.close(str(error))
            await self._room.wait_open()
            if await is_stored(self._store, appends):
                return


def _is_lost_with(store: Store, lost_ids: set[RawCoId]) -> bool:
    """Whether it is lost with these values; then so is all that follows of its own."""
    co_id = store.append.co_id
    if not lost_ids.isdisjoint(store.rests_on):
        lost_ids.add(co_id)
    return co_id in lost_ids
