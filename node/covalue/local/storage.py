"""[trio] The storage of a cojson LocalNode, over any `CoValueStore`.

A LocalNode holds values in memory and tells its storage what it took; this layer knows what is
stored already, finds gaps, batches bookkeeping, and erases deleted values when nobody is busy:

    LocalNode -> LocalStorage -> CoValueStore (bee, SQLite or both)

It trusts its caller: a LocalNode verifies what it hands over, and judges deletions.

Messages are stored strictly one after the other, and so is everything else that reads before it
writes. Several storages may share a store when they share a `turn`.

Unlike the original it stores a message in one commit, not one for each session; knows all of
a value as soon as it stores a part of it; takes more than was wanted for enough; lets nobody wait
for a storage that was closed, nor for what was erased; and leaves nothing out between pages of ids
when values come and go.

Source: cojson 0.20.19 storage/types.ts StorageAPI, storage/storageAsync.ts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from node.covalue.content import PIECE_BYTES, Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.covalue.local.continuation import continue_value
from node.covalue.local.eraser import Eraser
from node.covalue.local.erasure_schedule import Phase
from node.covalue.local.held_states import HeldState, HeldStates
from node.covalue.local.loading import load_with_dependencies
from node.covalue.local.locks import ReconciliationLocks
from node.covalue.local.sync_tracker import SyncTracker
from node.covalue.store import CoValueStore
from node.errors import NodeError
from swarm.io.tasks import open_background_nursery

_REMEMBERED_PAGES = 16
"""Ends of pages of ids: a caller that goes through all of them asks for the next page soon."""

Correction = Callable[[KnownState], Awaitable[Sequence[Content] | None]]
"""What the caller has beyond what is stored; None when it cannot help."""


class NotCorrected(NodeError):
    """Content does not fit what is stored, and the caller did not fill the gap: its mistake.

    What fitted was stored. `is_second` says that the correction itself left a gap.
    """

    def __init__(self, co_id: RawCoId, known: KnownState, *, is_second: bool) -> None:
        what = "the correction of" if is_second else "content for"
        stored = sum(known.sessions.values())
        super().__init__(f"{what} {co_id} leaves a gap after the {stored} transactions stored")
        self.co_id = co_id
        self.known = known
        self.is_second = is_second


@dataclass(frozen=True, slots=True)
class LocalStorageStatistics:
    """What a storage is busy with, and what it has done."""

    mounted: int
    states_held: int
    waiting: int
    """Tasks that wait until something is stored."""
    notes_waiting: int
    stored: int
    """Messages, corrections included."""
    corrections: int
    erased: int
    erasures_failed: int
    erasing: Phase


class _Change:
    """The next change of one value's state, to be waited for."""

    __slots__ = ("event", "is_unmounted")

    def __init__(self) -> None:
        self.event = trio.Event()
        self.is_unmounted = False


@asynccontextmanager
async def open_local_storage(
    store: CoValueStore, unix_ms: Callable[[], int], turn: trio.Lock | None = None
) -> AsyncIterator[LocalStorage]:
    """Use a store for a LocalNode; leaving the block calls `aclose`.

    `unix_ms` is the wall clock, for reconciliation locks. `turn` is given when several storages
    share the store: they take turns then.
    """
    storage = LocalStorage(store, unix_ms, turn or trio.Lock())
    async with open_background_nursery() as nursery:
        nursery.start_soon(storage.sync.run)
        nursery.start_soon(storage.eraser.run)
        try:
            yield storage
        finally:
            await storage.aclose()


class LocalStorage:
    """What a LocalNode asks of its storage; made by `open_local_storage`."""

    def __init__(self, store: CoValueStore, unix_ms: Callable[[], int], turn: trio.Lock) -> None:
        self.sync = SyncTracker(store)
        """Which peers have what."""
        self.locks = ReconciliationLocks(store, unix_ms)
        """Who compares all that is stored with a peer."""
        self.eraser = Eraser(store, turn, self._hold)
        """What is done about deleted values."""
        self.piece_bytes = PIECE_BYTES
        """Above this a session gets a checkpoint. It may change: what is stored stays as it is."""
        self._store = store
        self._turn = turn
        self._held = HeldStates()
        self._changes: dict[RawCoId, _Change] = {}
        """For each value that somebody waits for."""
        self._look_ups: dict[RawCoId, trio.Event] = {}
        self._valid_deletions: set[RawCoId] = set()
        self._page_ends: dict[int, RawCoId] = {}
        self._is_closed = False
        self._stored = self._corrections = self._waiting = 0

    # What is stored.

    def known_state(self, co_id: RawCoId) -> KnownState:
        """What this process knows to be stored, from what it loaded, stored or asked for."""
        return self._held.get(co_id).known

    async def load_known_state(self, co_id: RawCoId) -> KnownState | None:
        """What is stored, from memory or else from the disk; None for an unknown value.

        A call for a value that is being looked up waits for that look-up.

        Raises: CorruptStore; a LocalNode takes that for an unknown value.
        Cancel: nothing is changed; another call for the same value looks it up instead.
        """
        while True:
            known = self._held.get(co_id).known
            if known.header:
                return known
            pending = self._look_ups.get(co_id)
            if pending is None:
                return await self._look_up(co_id)
            await pending.wait()

    async def _look_up(self, co_id: RawCoId) -> KnownState | None:
        pending = self._look_ups[co_id] = trio.Event()
        try:
            value = await self._store.load_value(co_id)
        finally:
            del self._look_ups[co_id]
            pending.set()
        if value is None:
            return None
        self._hold(co_id, HeldState(value.known_state, value.is_deleted))
        return self._held.get(co_id).known

    def load(self, co_id: RawCoId) -> AsyncGenerator[Content, None]:
        """The pieces of a value, each after the values that it depends on; none if not stored.

        All that is loaded is mounted, and dependencies that were mounted before are left out.
        Of each value the first piece has the header, and announces the rest if there is one.

        Raises: CorruptStore.
        Cancel: what was loaded in part stays mounted; unmount it before it is loaded again.
        """
        self.eraser.make_way()
        return load_with_dependencies(self._store, self._held, co_id, self._hold)

    async def wait_stored(self, co_id: RawCoId, wanted: Callable[[], KnownState]) -> None:
        """Return once all that is wanted is stored, or the value is unmounted.

        `wanted` is asked again whenever the stored state changes, so that it may follow a value
        that grows. Of a deleted value only delete sessions are waited for.

        Raises: trio.ClosedResourceError.
        Cancel: nothing is changed.
        """
        self._waiting += 1
        try:
            while not self._held.get(co_id).covers(wanted()):
                self._check_open()
                if await self._wait_change(co_id):
                    return
        finally:
            self._waiting -= 1

    async def _wait_change(self, co_id: RawCoId) -> bool:
        """Wait until the value's state changes; returns whether it was unmounted."""
        change = self._changes.setdefault(co_id, _Change())
        try:
            await change.event.wait()
        finally:
            is_last = change.event.statistics().tasks_waiting == 0
            if is_last and self._changes.get(co_id) is change:
                del self._changes[co_id]
        return change.is_unmounted

    def _hold(self, co_id: RawCoId, state: HeldState) -> None:
        self._held.merge(co_id, state)
        self._announce(co_id)

    def _announce(self, co_id: RawCoId, *, is_unmounted: bool = False) -> None:
        change = self._changes.pop(co_id, None)
        if change is not None:
            change.is_unmounted = is_unmounted
            change.event.set()

    def _check_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this storage was closed")

    def unmount(self, co_id: RawCoId) -> None:
        """The LocalNode let go of the value: forget its state; the disk stays as it is."""
        self._held.forget(co_id)
        self._announce(co_id, is_unmounted=True)

    async def ids(self, limit: int, offset: int = 0) -> list[RawCoId]:
        """Ids [offset, offset + limit) of the values stored, in order.

        A page that follows the one before begins after its last id, whatever was stored or went
        away meanwhile: nothing is left out. Any other offset is counted from the beginning.

        Cancel: nothing is changed.
        """
        after = self._page_ends.get(offset)
        ids = self._store.ids(after=after or "")
        page = await _slice(ids, 0 if after is not None else offset, limit)
        if page:
            if len(self._page_ends) >= _REMEMBERED_PAGES:
                del self._page_ends[next(iter(self._page_ends))]
            self._page_ends[offset + len(page)] = page[-1]
        return page

    def count(self) -> int:
        """How many values are stored, tombstones included."""
        return self._store.count()

    # Storing.

    async def store(self, content: Content, correct: Correction) -> None:
        """Store what is new in a message; returns when it, and what it needed, is durable.

        When something before it is missing, `correct` is called with what is stored, and the
        messages that it returns are stored in its place, before anything else; it must not wait
        for another store. A header that is stored is never replaced, nor a signature by that of
        stale content.

        Raises: NotCorrected; trio.ClosedResourceError when the storage was closed before.
        Cancel: whole messages are stored, or not; it is not known which are durable.
        """
        async with self._turn:
            known = await self._store_one(content)
            if known is None:
                return
            self._corrections += 1
            correction = await correct(known)
            if correction is None:
                raise NotCorrected(content.co_id, known, is_second=False)
            for message in correction:
                known = await self._store_one(message)
                if known is not None:
                    raise NotCorrected(message.co_id, known, is_second=True)

    async def _store_one(self, content: Content) -> KnownState | None:
        """Store one message; returns what is stored if there is a gap before it, else None."""
        self._check_open()
        self.eraser.make_way()
        co_id = content.co_id
        stored = await self._store.load_value(co_id)
        plan = continue_value(
            stored,
            content,
            is_deletion_valid=co_id in self._valid_deletions,
            piece_bytes=self.piece_bytes,
        )
        if plan.append is not None:
            await self._store.store([plan.append])
            self._stored += 1
        if plan.is_tombstone:
            self._valid_deletions.discard(co_id)
        if plan.known.header:
            self._held.mount(co_id)
        self._held.replace(co_id, HeldState(plan.known, plan.is_tombstone))
        self._announce(co_id)
        return plan.known if plan.has_gap else None

    def mark_deletion_valid(self, co_id: RawCoId) -> None:
        """The delete session that is about to be stored was judged: it makes a tombstone."""
        self._valid_deletions.add(co_id)
        self.eraser.value_deleted()

    # Closing.

    async def aclose(self) -> None:
        """Store nothing more; returns when the write in flight is done and notes are written.

        A `store` that waits for its turn raises trio.ClosedResourceError, as does `wait_stored`.

        Cancel: it is closed all the same; notes may be lost.
        """
        self._is_closed = True
        self.eraser.make_way()
        for co_id in list(self._changes):
            self._announce(co_id)
        await self.sync.flush()
        async with self._turn:
            self._held = HeldStates()

    def statistics(self) -> LocalStorageStatistics:
        return LocalStorageStatistics(
            mounted=self._held.mounted,
            states_held=len(self._held),
            waiting=self._waiting,
            notes_waiting=len(self.sync),
            stored=self._stored,
            corrections=self._corrections,
            erased=self.eraser.erased,
            erasures_failed=self.eraser.failed,
            erasing=self.eraser.phase,
        )


async def _slice(ids: AsyncIterator[RawCoId], start: int, limit: int) -> list[RawCoId]:
    found: list[RawCoId] = []
    try:
        async for co_id in ids:
            if start:
                start -= 1
                continue
            found.append(co_id)
            if len(found) >= limit:
                break
    finally:
        if isinstance(ids, AsyncGenerator):
            await ids.aclose()
    return found
