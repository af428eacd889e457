"""Peers that say how far they are, or nothing, and show nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import trio
import trio.testing

from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import PROTOCOL, Handshake, MessageType, Sync
from hypercore.replication.session import CoreReplication
from tests.support.memory_mux import MemoryChannel, MemoryMux, memory_mux_pair

FAR_AHEAD = Sync(0, 1000, 0, True, True, True, True, False)
NEVER_HEARS = Sync(0, 1000, 5, True, True, True, True, False)


class ReplicatedCore(Protocol):
    @property
    def key(self) -> bytes: ...
    @property
    def discovery_key(self) -> bytes: ...
    @property
    def replication(self) -> CoreReplication: ...


def pair_for(core: ReplicatedCore) -> tuple[MemoryMux, MemoryMux]:
    one, other = memory_mux_pair()
    for mux in (one, other):
        mux.expected.add((PROTOCOL, core.discovery_key))
    return one, other


@asynccontextmanager
async def stranger(core: ReplicatedCore, says: Sync | None = None) -> AsyncIterator[MemoryChannel]:
    """A peer that says this and nothing else, unless the test speaks for it on its channel."""
    ours, theirs = pair_for(core)
    capability = replicate_capability(
        is_initiator=theirs.link.is_initiator,
        key=core.key,
        handshake_hash=theirs.link.handshake_hash,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, ours)
        channel = await theirs.open_channel(
            PROTOCOL, core.discovery_key, Handshake(capability).encode()
        )
        if says is not None:
            channel.send(MessageType.SYNC, says.encode())
        await trio.testing.wait_all_tasks_blocked()
        yield channel
        nursery.cancel_scope.cancel()
