"""[trio] Who still lacks something of which value: kept beside the values, written in batches."""

from __future__ import annotations

import math

import trio

from node.covalue.ids import RawCoId
from node.covalue.local.sync_notes import SyncNotes
from node.covalue.store import CoValueStore
from swarm.io.tasks import Wakeup


class SyncTracker:
    """Notes which peer has all of a value, so that a restart knows what is left to send."""

    def __init__(self, store: CoValueStore) -> None:
        self._store = store
        self._turn = trio.Lock()
        self._notes = SyncNotes()
        self._due = Wakeup()

    def __len__(self) -> int:
        """Notes that wait to be written."""
        return len(self._notes)

    def note(self, co_id: RawCoId, peer_id: str, *, is_synced: bool) -> None:
        """Note whether a peer has all of a value; written with others, 200 ms later."""
        self._notes.add(co_id, peer_id, trio.current_time(), is_synced=is_synced)
        self._due.set()

    async def flush(self) -> None:
        """Write the notes that wait.

        Cancel: all are written, or none; those not written wait again.
        """
        async with self._turn:
            notes = self._notes.take()
            if not notes:
                return
            try:
                await self._store.track_sync(notes)
            except BaseException:
                self._notes.put_back(notes, trio.current_time())
                raise

    async def unsynced_ids(self) -> list[RawCoId]:
        """Values that some peer still lacks something of, each once.

        Cancel: nothing is changed.
        """
        await self.flush()
        return await self._store.unsynced_ids()

    async def stop(self, co_id: RawCoId) -> None:
        """Forget who still lacks something of a value.

        Cancel: it is forgotten, or not.
        """
        async with self._turn:
            self._notes.forget(co_id)
            await self._store.stop_tracking_sync(co_id)

    async def run(self) -> None:
        """Write batches when they are due, until cancelled.

        Cancel: as `flush`.
        """
        while True:
            deadline = self._notes.deadline
            if deadline is not None and trio.current_time() >= deadline:
                await self.flush()
                continue
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await self._due.wait()
