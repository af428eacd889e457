"""Both ends open a core's channel at once, and one of them has just turned the other down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import trio
import trio.testing

from hypercore import Core, Corestore, open_corestore
from hypercore.crypto import KeyPair
from hypercore.replication.capability import replicate_capability
from hypercore.replication.messages import PROTOCOL, Handshake
from swarm.io.channel import Channel, RemoteOpens
from swarm.io.connection import open_connection
from swarm.io.mux import MuxHandle, open_mux

US, THEM = KeyPair.from_seed(b"\x01" * 32), KeyPair.from_seed(b"\x02" * 32)


async def replicate(store: Corestore, stream: trio.abc.Stream) -> None:
    async with (
        open_connection(stream, US, is_initiator=True) as connection,
        open_mux(connection, accept=[PROTOCOL]) as mux,
    ):
        await store.replicate(mux)


@asynccontextmanager
async def open_remote(store: Corestore) -> AsyncIterator[tuple[MuxHandle, RemoteOpens]]:
    """A peer of the store that we play ourselves: its channels, and what the store offers it."""
    near, far = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(replicate, store, near)
        async with (
            open_connection(far, THEM, is_initiator=False) as connection,
            open_mux(connection, accept=[PROTOCOL]) as mux,
            aclosing(mux.remote_opens(PROTOCOL)) as opens,
        ):
            yield mux, opens
        nursery.cancel_scope.cancel()


async def open_channel(mux: MuxHandle, core: Core) -> Channel:
    capability = replicate_capability(
        is_initiator=False, key=core.key, handshake_hash=mux.link.handshake_hash
    )
    return await mux.open_channel(PROTOCOL, core.discovery_key, Handshake(capability).encode())


async def test_a_core_that_the_remote_gets_right_after_it_turned_ours_down() -> None:
    async with open_corestore(None) as store, open_remote(store) as (mux, opens):
        # Which of our tasks hears of it first is up to chance: often enough it is either.
        for number in range(20):
            core = await store.get(name=f"core {number}")
            await core.append([b"block"])
            remote_open = await anext(opens)
            remote_open.reject()
            with trio.fail_after(20):
                channel = await open_channel(mux, core)
                assert await channel.receive()
            channel.close()
            await core.close()


async def test_a_channel_that_ends_without_a_word_is_opened_again() -> None:
    """The remote's last user has closed the core, as our open was on its way."""
    async with open_corestore(None) as store, open_remote(store) as (mux, opens):
        core = await store.get(key=THEM.public_key)
        with trio.fail_after(20):
            await anext(opens)
            channel = await open_channel(mux, core)
            channel.close()
            await anext(opens)
            channel = await open_channel(mux, core)
            assert await channel.receive()
            assert len(core.replication.peers) == 1


async def test_a_core_that_is_closed_and_opened_at_once_is_offered_anew() -> None:
    async with open_corestore(None) as store, open_remote(store) as (mux, opens):
        for number in range(20):
            core = await store.get(name=f"core {number}")
            with trio.fail_after(20):
                await anext(opens)
                await core.close()
                core = await store.get(name=f"core {number}")
                await core.append([b"block"])
                await anext(opens)
                channel = await open_channel(mux, core)
                assert await channel.receive()
            channel.close()
            await core.close()
