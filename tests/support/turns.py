"""How often others have their turn while something works."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class Turns:
    """Those that a task has had which does nothing else."""

    count = 0

    async def take(self) -> None:
        while True:
            await trio.lowlevel.checkpoint()
            self.count += 1


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    """Count them while the block lasts."""
    turns = Turns()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(turns.take)
        await trio.lowlevel.checkpoint()
        yield turns
        nursery.cancel_scope.cancel()
