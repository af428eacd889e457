"""Cores of one writer in several stores, and connections between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from hypercore import Core, Corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.memory_mux import memory_mux_pair
from tests.support.trees import KEY_PAIR


@asynccontextmanager
async def joined(one: Core, other: Core) -> AsyncIterator[None]:
    muxes = memory_mux_pair()
    for mux in muxes:
        mux.expected.add((PROTOCOL, one.discovery_key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.serve, muxes[0])
        nursery.start_soon(other.serve, muxes[1])
        await trio.testing.wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def open_writer(store: Corestore, blocks: list[bytes]) -> Core:
    core = await store.get(key_pair=KEY_PAIR)
    if core.length < len(blocks):
        await core.append(blocks[core.length :])
    return core
