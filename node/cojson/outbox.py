"""[trio] What is to be said to one client: control messages as lines, values as a cursor.

A slow client costs some control lines and no more: of values only the ids wait here, and their
content is read when the connection can carry it; who does not read its answers is not read from.
Control lines go first, then values by
priority (groups, values, binary streams), each in the order in which they were wanted.
"""

from __future__ import annotations

from collections import deque

import trio

from node.covalue.header import GROUP_PRIORITY, STREAM_PRIORITY, VALUE_PRIORITY
from node.covalue.ids import RawCoId
from swarm.io.tasks import Wakeup

MAX_CONTROL_BYTES = 4 * 1024 * 1024
"""Unsent control lines, after which a client is sent away."""

CONTROL_BYTES = 512 * 1024
"""Unsent control lines, beyond which a client is not read from: all of them are answers to it."""


class Outbox:
    """Filled by sync code, emptied by one task, which waits with `wake`."""

    def __init__(self) -> None:
        self.wake = Wakeup()
        self._taken = trio.lowlevel.ParkingLot()
        self.end_reason: str | None = None
        """Why the connection is to end; None while it is fine."""
        self.refusals = 0
        """Messages of this client of which nothing was kept."""
        self.is_owed_room = False
        """It sent content for which there was no room, and does not send again by itself."""
        self._lines: deque[str] = deque()
        self._line_bytes = 0
        self._wanted: dict[int, dict[RawCoId, bool]] = {
            GROUP_PRIORITY: {},
            VALUE_PRIORITY: {},
            STREAM_PRIORITY: {},
        }
        """Each with whether it was wanted again since it was last looked at."""

    @property
    def control_bytes(self) -> int:
        """Of lines that wait to be sent."""
        return self._line_bytes

    def push(self, line: str) -> None:
        self._lines.append(line)
        self._line_bytes += len(line)
        if self._line_bytes > MAX_CONTROL_BYTES:
            self.end("the client does not read")
        self.wake.set()

    def want(self, co_id: RawCoId, priority: int) -> None:
        self._wanted[priority][co_id] = True
        self.wake.set()

    def end(self, reason: str) -> None:
        """Nothing further is sent."""
        if self.end_reason is None:
            self.end_reason = reason
        self._lines.clear()
        self._line_bytes = 0
        self._taken.unpark_all()
        self.wake.set()

    def take_lines(self, max_characters: int) -> list[str]:
        """Control lines for one frame: at least one if there is any."""
        taken: list[str] = []
        size = 0
        while self._lines and size < max_characters:
            line = self._lines.popleft()
            size += len(line)
            taken.append(line)
        self._line_bytes -= size
        if self._line_bytes <= CONTROL_BYTES:
            self._taken.unpark_all()
        return taken

    async def wait_room(self) -> None:
        """Return when few answers wait to be sent; at once, and without a checkpoint, if so.

        Cancel: nothing is changed.
        """
        while self._line_bytes > CONTROL_BYTES:
            await self._taken.park()

    def next_wanted(self) -> tuple[RawCoId, int] | None:
        """The value to serve next, and its priority. It stays wanted until `served`."""
        for priority, wanted in self._wanted.items():
            for co_id in wanted:
                wanted[co_id] = False
                return co_id, priority
        return None

    def is_wanted(self, co_id: RawCoId) -> bool:
        return any(co_id in wanted for wanted in self._wanted.values())

    def served(self, co_id: RawCoId, priority: int) -> None:
        """All of it was taken; it stays wanted if it grew while it was being read."""
        if not self._wanted[priority].get(co_id):
            self._wanted[priority].pop(co_id, None)
