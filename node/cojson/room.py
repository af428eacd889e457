"""[trio] Whether there is room for anything new: writers wait for it, and reading goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from hypercore.errors import StorageFailed
from node.covalue.store import CoValueStore, ValueAppend


class Room:
    """Closed with a reason by whoever watches the disk, or finds that it cannot be written."""

    def __init__(self) -> None:
        self.reason = ""
        """Why nothing is taken in; empty while there is room."""
        self.closures = 0
        """How often it was closed: it may be open again before a waiting task can look."""
        self._changed = trio.Event()

    @property
    def is_open(self) -> bool:
        return not self.reason

    def close(self, reason: str) -> None:
        """Take nothing in from now on. The first reason stays, until it is opened or restated."""
        if not self.reason:
            self.reason = reason
            self.closures += 1
            self._notify()

    def restate(self, reason: str) -> None:
        """Replace the reason, if it is closed."""
        if self.reason:
            self.reason = reason

    def open(self) -> None:
        if self.reason:
            self.reason = ""
            self._notify()

    async def wait_open(self) -> None:
        """Return when there is room. Cancel: nothing is changed."""
        while self.reason:
            await self._changed.wait()

    async def wait_changed(self) -> None:
        """Return when it is closed or opened the next time. Cancel: nothing is changed."""
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def run_with_room(room: Room | None, run: Callable[[], Awaitable[None]]) -> None:
    """Run what writes now and then: where that fails for want of room, it begins again later.

    Raises: StorageFailed without a room.
    """
    while True:
        try:
            await run()
            return
        except StorageFailed as error:
            if room is None:
                raise
            room.close(str(error))
        await room.wait_open()


async def is_stored(store: CoValueStore, appends: Sequence[ValueAppend]) -> bool:
    """Whether a batch whose write was reported to have failed is stored all the same.

    A batch is stored whole or not at all, so its last part tells.

    Raises: CorruptStore.
    Cancel: nothing is changed.
    """
    last = appends[-1]
    value = await store.load_value(last.co_id)
    if value is None:
        return False
    if last.is_deletion or value.is_deleted:
        return value.is_deleted
    held = value.known_state.sessions
    return all(
        held.get(session_id, 0) >= part.after + len(part.transactions)
        for session_id, part in last.sessions.items()
    )
