"""Two cores with one connection between them, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from hypercore import Core
from tests.support.memory_mux import memory_mux_pair


@asynccontextmanager
async def replicating(one: Core, other: Core) -> AsyncIterator[None]:
    """Both serve the other one until the block ends."""
    left, right = memory_mux_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.serve, left)
        nursery.start_soon(other.serve, right)
        yield
        nursery.cancel_scope.cancel()
