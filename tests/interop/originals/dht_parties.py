"""Networks of 40 nodes of either kind with guests of both, and swarms on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import trio

from hypercore.crypto import KeyPair
from swarm import Connection, HyperDht, Swarm, open_hyperdht, open_swarm
from swarm.io.peer_server import PeerHandler, PeerServer
from swarm.io.tasks import open_background_nursery
from tests.interop.dht_peer import (
    LOOPBACK,
    open_connectable_guest,
    open_javascript_guest,
    open_javascript_network,
    open_network,
)
from tests.support.peer_process import PeerProcess

SIZE = 40
LIMIT_SECONDS = 180
NETWORKS = ("originals", "ours")


@dataclass(frozen=True, slots=True)
class Guests:
    """A guest of theirs and two of ours on one network."""

    js: PeerProcess
    ours: HyperDht
    other: HyperDht
    port: int


@asynccontextmanager
async def open_guests(network: str) -> AsyncIterator[Guests]:
    """On a network of 40 nodes that are the `originals`, or `ours`."""
    with trio.fail_after(LIMIT_SECONDS):
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            if network == "originals":
                js, _ = await enter(open_javascript_network(SIZE))
                port = int((await js("bootstrap"))["port"])
            else:
                nodes = await enter(open_network(SIZE))
                port = nodes[0].address[1]
                js = await enter(open_javascript_guest(port))
            ours = await enter(open_connectable_guest(port))
            other = await enter(open_connectable_guest(port))
            yield Guests(js, ours, other, port)


@asynccontextmanager
async def serving(
    hyperdht: HyperDht, key_pair: KeyPair, handler: PeerHandler, relay: bytes | None = None
) -> AsyncIterator[PeerServer]:
    async with open_background_nursery() as nursery:
        server: PeerServer = await nursery.start(
            partial(hyperdht.serve, key_pair, handler, relay_through=relay)
        )
        await server.wait_announced()
        yield server


async def echo(connection: Connection) -> None:
    while True:
        await connection.send(await connection.receive())


async def hold(connection: Connection) -> None:
    """Say a word, then listen to the end."""
    await connection.send([b"a word"])
    while True:
        await connection.receive()


@asynccontextmanager
async def open_our_swarm(port: int, key_pair: KeyPair) -> AsyncIterator[Swarm]:
    """One that uses the table and nothing else."""
    async with (
        open_hyperdht(bootstrap=[(LOOPBACK, port)], host=LOOPBACK, port=0) as hyperdht,
        open_swarm(key_pair, hold, listen=None, lan=False, hyperdht=hyperdht) as swarm,
    ):
        await hyperdht.dht.wait_bootstrapped()
        yield swarm


def keys_of(swarm: Swarm) -> set[bytes]:
    return {connection.remote_public_key for connection in swarm.connections}


async def wait_connected(swarm: Swarm, *keys: bytes) -> None:
    while keys_of(swarm) != set(keys):
        await swarm.wait_changed()


async def wait_their_connections(js: PeerProcess, name: str, *keys: bytes) -> None:
    while set((await js("swarmState", name=name))["keys"]) != {key.hex() for key in keys}:
        await trio.lowlevel.checkpoint()
