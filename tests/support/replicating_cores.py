"""Two cores with one connection between them, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from hypercore import Core
from hypercore.replication.messages import PROTOCOL
from tests.support.memory_mux import memory_mux_pair


@asynccontextmanager
async def replicating(one: Core, other: Core) -> AsyncIterator[None]:
    """Both serve the other one until the block ends, which has 10 seconds."""
    left, right = memory_mux_pair()
    for mux in (left, right):
        mux.expected.add((PROTOCOL, one.discovery_key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.serve, left)
        nursery.start_soon(other.serve, right)
        with trio.fail_after(20):
            yield
        nursery.cancel_scope.cancel()
