"""All ways to a peer are tried at the same time; one that is closed delays no other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from hypercore.crypto import KeyPair
from swarm import Connection, HyperDht, Reach, Source, Swarm, open_hyperdht, open_swarm
from swarm.io.dht import open_bootstrap

LOOPBACK = "127.0.0.1"
NOBODY = (LOOPBACK, 9)
TOPIC = b"\x31" * 32
ONE, TWO = (KeyPair.from_seed(bytes((index,)) * 32) for index in (0x32, 0x33))
NEIGHBORLY_SECONDS = 1.5


async def hold(connection: Connection) -> None:
    while True:
        await connection.receive()


@asynccontextmanager
async def open_one(
    key_pair: KeyPair, bootstrap: tuple[str, int] | None, *, lan: bool
) -> AsyncIterator[Swarm]:
    async with AsyncExitStack() as stack:
        hyperdht: HyperDht | None = None
        if bootstrap is not None:
            hyperdht = await stack.enter_async_context(
                open_hyperdht(bootstrap=[bootstrap], host=LOOPBACK, port=0)
            )
        opened = open_swarm(
            key_pair,
            hold,
            listen=(LOOPBACK, 0),
            lan=lan,
            interfaces=[LOOPBACK],
            hyperdht=hyperdht,
        )
        yield await stack.enter_async_context(opened)


async def meet(bootstrap: tuple[str, int] | None) -> float:
    """How long two neighbors take to find each other on the LAN."""
    started = trio.current_time()
    async with (
        open_one(ONE, bootstrap, lan=True) as first,
        open_one(TWO, bootstrap, lan=True) as second,
    ):
        await first.join(TOPIC)
        await second.join(TOPIC)
        while not (first.connections and second.connections):
            await first.wait_changed()
        assert first.connections[0].remote_public_key == TWO.public_key
        assert Source.LAN in (first.connections[0].source, second.connections[0].source)
        return trio.current_time() - started


async def test_with_the_table_out_of_reach_neighbors_meet_as_fast() -> None:
    with trio.fail_after(60):
        without_table = await meet(None)
        with_table = await meet(NOBODY)
    assert with_table < without_table + NEIGHBORLY_SECONDS


async def test_a_named_address_is_dialed_while_the_table_is_silent() -> None:
    with trio.fail_after(30):
        async with (
            open_one(ONE, NOBODY, lan=False) as first,
            open_one(TWO, NOBODY, lan=False) as second,
        ):
            first.add_key(TWO.public_key)
            first.add_peer(*second.addresses[0], TWO.public_key)
            started = trio.current_time()
            while not first.connections:
                await first.wait_changed()
            assert trio.current_time() - started < 3
            (connection,) = first.connections
            assert (connection.source, connection.reach) == (Source.STATIC, Reach.TCP)


async def test_of_several_ways_to_one_key_one_connection_comes() -> None:
    with trio.fail_after(30):
        async with (
            open_bootstrap(LOOPBACK, 0) as boot,
            open_one(ONE, boot.address, lan=False) as first,
            open_one(TWO, boot.address, lan=False) as second,
        ):
            for swarm in (first, second):
                await swarm.join(TOPIC)
                await swarm.wait_announced()
            host, port = second.addresses[0]
            first.add_key(TWO.public_key)
            first.add_peer(host, port, TWO.public_key)
            first.add_websocket(f"ws://{host}:{port}/", TWO.public_key)
            first.refresh(TOPIC)
            await first.wait_tried()
            while not (first.connections and second.connections):
                await first.wait_changed()
            assert len(first.connections) == len(second.connections) == 1
            assert first.connections[0].reach in (Reach.LAN, Reach.TCP)
