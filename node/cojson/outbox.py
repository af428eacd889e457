"""[trio] What is to be said to one client: control messages as lines, values as a cursor.

A slow client costs some control lines and no more: of values only the ids wait here, and their
content is read when the connection can carry it; a client that does not read its answers is not
read from. Messages that name sessions become lines only when they are sent: of a value with
thousands of sessions each acknowledgement is megabytes, and a newer one takes the place of the one
that waits. Control lines go first, then values by priority (groups, values, binary streams), each
in the order in which they were wanted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeGuard

import trio

from node.cojson.messages import Known, Load, encode_message
from node.covalue.header import GROUP_PRIORITY, STREAM_PRIORITY, VALUE_PRIORITY
from node.covalue.ids import RawCoId
from swarm.io.tasks import Wakeup

MAX_CONTROL_BYTES = 4 * 1024 * 1024
"""Unsent lines that were made already, after which a client is sent away."""

CONTROL_BYTES = 512 * 1024
"""Unsent control lines, beyond which a client is not read from: all of them are answers to it."""

_LINE_BYTES = 100
_COUNTER_BYTES = 60
"""Of a line that is not made yet: for the line, and for each of its counters."""


class Outbox:
    """Filled by sync code, emptied by one task, which waits with `wake`."""

    def __init__(self) -> None:
        self.wake = Wakeup()
        self._taken = trio.lowlevel.ParkingLot()
        self.end_reason: str | None = None
        """Why the connection is to end; None while it is fine."""
        self.refusals = 0
        """Messages of this client of which something was not kept."""
        self.is_owed_room = False
        """The client sent content without room for it, and will not send it again by itself."""
        self._lines: deque[str | Known | Load] = deque()
        self._line_bytes = 0
        """All that waits in `_lines`, as far as can be told."""
        self._made_bytes = 0
        """The lines among these that are made already."""
        self._acknowledgements: dict[RawCoId, Known] = {}
        """The newest of each value; an older one in `_lines` keeps the place for it."""
        self._wanted: dict[int, dict[RawCoId, bool]] = {
            GROUP_PRIORITY: {},
            VALUE_PRIORITY: {},
            STREAM_PRIORITY: {},
        }
        """Each with whether it was wanted again since it was last looked at."""
        self._ahead: list[RawCoId] = []
        """Of these, what goes before all others; the last one first."""

    @property
    def control_bytes(self) -> int:
        """The size of the lines that wait to be sent, about."""
        return self._line_bytes

    def push(self, line: str) -> None:
        self._made_bytes += len(line)
        if self._made_bytes > MAX_CONTROL_BYTES:
            self.end("the client does not read")
        self._append(line, len(line))

    def say(self, message: Known | Load) -> None:
        """Push the line of a message that may be long."""
        size = _size(message)
        if _is_acknowledgement(message):
            waiting = self._acknowledgements.get(message.co_id)
            self._acknowledgements[message.co_id] = message
            if waiting is not None:
                self._line_bytes += size - _size(waiting)
                return
        self._append(message, size)

    def _append(self, item: str | Known | Load, size: int) -> None:
        if self.end_reason is None:
            self._lines.append(item)
            self._line_bytes += size
        self.wake.set()

    def want(self, co_id: RawCoId, priority: int) -> None:
        self._wanted[priority][co_id] = True
        self.wake.set()

    def end(self, reason: str) -> None:
        """Nothing further is sent."""
        if self.end_reason is None:
            self.end_reason = reason
        self._lines.clear()
        self._acknowledgements.clear()
        self._line_bytes = self._made_bytes = 0
        self._taken.unpark_all()
        self.wake.set()

    def take_lines(self, max_characters: int) -> list[str]:
        """Control lines for one frame: at least one if there is any."""
        taken: list[str] = []
        size = 0
        while self._lines and size < max_characters:
            line = self._take_line()
            size += len(line)
            taken.append(line)
        if self._line_bytes <= CONTROL_BYTES:
            self._taken.unpark_all()
        return taken

    def _take_line(self) -> str:
        item = self._lines.popleft()
        if isinstance(item, str):
            self._line_bytes -= len(item)
            self._made_bytes -= len(item)
            return item
        message = self._acknowledgements.pop(item.co_id) if _is_acknowledgement(item) else item
        self._line_bytes -= _size(message)
        return encode_message(message)

    async def wait_room(self) -> None:
        """Return when few answers wait to be sent; at once, and without a checkpoint, if so.

        Cancel: nothing is changed.
        """
        while self._line_bytes > CONTROL_BYTES:
            await self._taken.park()

    def next_wanted(self) -> tuple[RawCoId, int] | None:
        """The value to serve next, and its priority. It stays wanted until `served`."""
        while self._ahead:
            co_id = self._ahead[-1]
            for priority, wanted in self._wanted.items():
                if co_id in wanted:
                    wanted[co_id] = False
                    return co_id, priority
            self._ahead.pop()
        for priority, wanted in self._wanted.items():
            for co_id in wanted:
                wanted[co_id] = False
                return co_id, priority
        return None

    def hurry(self, co_ids: Sequence[RawCoId]) -> None:
        """Serve these before all others, in this order."""
        for co_id in co_ids:
            if not self.is_wanted(co_id):
                self._wanted[GROUP_PRIORITY][co_id] = True
        self._ahead += reversed(co_ids)

    def is_wanted(self, co_id: RawCoId) -> bool:
        return any(co_id in wanted for wanted in self._wanted.values())

    def served(self, co_id: RawCoId, priority: int) -> None:
        """All of it was taken; it stays wanted if it grew while it was being read."""
        if not self._wanted[priority].get(co_id):
            self._wanted[priority].pop(co_id, None)


def _is_acknowledgement(message: Known | Load) -> TypeGuard[Known]:
    """Whether a newer one makes it redundant: both say what is here."""
    return isinstance(message, Known) and message.known.header and not message.is_correction


def _size(message: Known | Load) -> int:
    return _LINE_BYTES + _COUNTER_BYTES * len(message.known.sessions)
