"""[trio] Update groups: which cores of a topic changed, and being told when one does.

The last change of each core is on the disk (`storage.layout`), so that whoever starts later can
ask what happened meanwhile. Experimental in the original.

Source: corestore 7.12.5 index.js (notifyGroup), lib/notify.js.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio

from hypercore.errors import UsageError

GROUP_BYTES = 32
"""The length of the topic that names a group."""


def check_group(topic: bytes) -> None:
    """Raises: UsageError for what is not a group's topic."""
    if len(topic) != GROUP_BYTES:
        raise UsageError(f"a group has {GROUP_BYTES} bytes, not {len(topic)}")


@dataclass(frozen=True, slots=True)
class GroupUpdate:
    """A core of the group, as it was after its last change."""

    key: bytes
    length: int
    fork: int


class GroupWatch:
    """Changes since this was made; an iterator that may be dropped at any time.

    Of a core that changed several times before its turn only the last change is given.
    """

    def __init__(self, topic: bytes) -> None:
        """Raises: UsageError for what is not a group's topic."""
        check_group(topic)
        self.topic = topic
        self._updates: dict[bytes, GroupUpdate] = {}  # one for each core of the group at most
        self._is_over = False
        self._changed = trio.lowlevel.ParkingLot()

    def updated(self, update: GroupUpdate) -> None:
        self._updates[update.key] = update
        self._changed.unpark_all()

    def end(self) -> None:
        """The store is closed: no more will come."""
        self._is_over = True
        self._changed.unpark_all()

    def __aiter__(self) -> GroupWatch:
        return self

    async def __anext__(self) -> GroupUpdate:
        """Cancel: takes nothing."""
        while not self._updates:
            if self._is_over:
                raise StopAsyncIteration
            await self._changed.park()
        return self._updates.pop(next(iter(self._updates)))
