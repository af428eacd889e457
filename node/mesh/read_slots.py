"""[trio] How many values are read from members at the same time: each may take 1 MiB of memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

MAX_READS = 64
"""From all members together."""

MAX_MEMBER_READS = 48
"""From one of them: it may be slow on purpose, and others are to be read meanwhile."""


class ReadSlots:
    """One is held for each value while it is read."""

    def __init__(self) -> None:
        self._all = trio.CapacityLimiter(MAX_READS)
        self._of_member: dict[bytes, trio.CapacityLimiter] = {}
        """Of members that are being read from."""

    @asynccontextmanager
    async def of(self, member_id: bytes) -> AsyncIterator[None]:
        """Wait for a slot to read from that member, and hold it. Cancel: none is held."""
        slots = self._of_member.setdefault(member_id, trio.CapacityLimiter(MAX_MEMBER_READS))
        try:
            async with slots, self._all:
                yield
        finally:
            if not slots.borrowed_tokens and not slots.statistics().tasks_waiting:
                self._of_member.pop(member_id, None)
