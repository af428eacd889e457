"""Connections by public key through HyperDHT, between us and the JavaScript originals.

The behavior of hyperdht 6.34.0 test/connections.js and test/firewall.js that takes no NAT: those
are in tests/swarm/nat_campaign.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair
from swarm.errors import PeerUnreachable
from swarm.io.connection import Connection
from swarm.io.hyperdht import HyperDht
from swarm.io.mux import open_mux
from swarm.io.peer_server import PeerServer
from swarm.reach import Reach
from tests.interop.dht_peer import (
    open_connectable_guest,
    open_javascript_guest,
    open_javascript_network,
    open_network,
)
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

SIZE = 40
JS_SEED = b"\x41" * 32
JS_KEY = KeyPair.from_seed(JS_SEED).public_key
JS_CALLER_SEED = b"\x42" * 32
JS_CALLER_KEY = KeyPair.from_seed(JS_CALLER_SEED).public_key
OURS = KeyPair.from_seed(b"\x43" * 32)
OUR_CALLER = KeyPair.from_seed(b"\x44" * 32)
BLOCKS = [f"block {index}" for index in range(100)]


async def replicate(store: Corestore, connection: Connection) -> None:
    async with open_mux(connection, accept=["hypercore/alpha"]) as mux:
        await store.replicate(mux)


async def read_all(core: Core) -> list[str]:
    await core.wait_length(len(BLOCKS))
    return [block.decode() for block in await core.get_many(range(len(BLOCKS)))]


async def fetch(
    hyperdht: HyperDht, key: bytes, core_key: bytes, relays: list[tuple[str, int]] | None = None
) -> tuple[list[str], Connection]:
    """All blocks of a core, from whoever serves this key."""
    async with (
        open_corestore(None) as store,
        hyperdht.connect(key, OUR_CALLER, relay_addresses=relays or ()) as connection,
        trio.open_nursery() as nursery,
    ):
        core = await store.get(key=core_key)
        nursery.start_soon(replicate, store, connection)
        blocks = await read_all(core)
        nursery.cancel_scope.cancel()
    return blocks, connection


@asynccontextmanager
async def serving(
    hyperdht: HyperDht, *, firewall: Callable[[bytes], bool] | None = None
) -> AsyncIterator[tuple[PeerServer, bytes, list[Connection]]]:
    """A core of ours on offer; its key, and the connections so far."""
    connections: list[Connection] = []
    async with open_corestore(None) as store:
        core = await store.get(name="served")
        await core.append([block.encode() for block in BLOCKS])

        async def handler(connection: Connection) -> None:
            connections.append(connection)
            await replicate(store, connection)

        async with trio.open_nursery() as nursery:
            server: PeerServer = await nursery.start(
                partial(hyperdht.serve, OURS, handler, firewall=firewall)
            )
            await server.wait_announced()
            yield server, core.key, connections
            nursery.cancel_scope.cancel()


async def check_we_connect(js: PeerProcess, hyperdht: HyperDht) -> None:
    answer = await js("serveCore", seed=JS_SEED.hex(), name="a", blocks=BLOCKS)
    core_key = bytes.fromhex(answer["core"])
    for _ in range(2):  # the second time to the relays that the server told
        blocks, connection = await fetch(hyperdht, JS_KEY, core_key)
        assert blocks == BLOCKS
        assert connection.reach is Reach.LAN
        assert connection.link.remote_public_key == JS_KEY
    await js("closeServers")


async def check_they_connect(js: PeerProcess, hyperdht: HyperDht) -> None:
    async with serving(hyperdht) as (server, core_key, connections):
        assert server.statistics().relays == 3
        for count in range(1, 3):
            answer = await js(
                "fetchCore",
                peer=OURS.public_key.hex(),
                core=core_key.hex(),
                seed=JS_CALLER_SEED.hex(),
            )
            assert answer["blocks"] == BLOCKS
            assert len(connections) == count
        assert {c.link.remote_public_key for c in connections} == {JS_CALLER_KEY}
        assert not any(connection.link.is_initiator for connection in connections)


async def check_we_connect_to_us(server: HyperDht, client: HyperDht) -> None:
    async with serving(server) as (_, core_key, connections):
        blocks, connection = await fetch(client, OURS.public_key, core_key)
        assert blocks == BLOCKS
        (accepted,) = connections
        assert accepted.link.handshake_hash == connection.link.handshake_hash
        assert accepted.link.remote_public_key == OUR_CALLER.public_key


async def check_refused(js: PeerProcess, hyperdht: HyperDht) -> None:
    """Whom a firewall refuses gets no answer at all, whichever side it is on."""
    answer = await js(
        "serveCore", seed=JS_SEED.hex(), name="b", blocks=BLOCKS, refuse=OUR_CALLER.public_key.hex()
    )

    async def fetch_in_vain() -> None:
        with pytest.raises(PeerUnreachable):
            await fetch(hyperdht, JS_KEY, bytes.fromhex(answer["core"]))

    async with (
        serving(hyperdht, firewall=lambda key: key != JS_CALLER_KEY) as (server, key, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(fetch_in_vain)
        with pytest.raises(AssertionError, match="PEER_CONNECTION_FAILED"):
            await js(
                "fetchCore", peer=OURS.public_key.hex(), core=key.hex(), seed=JS_CALLER_SEED.hex()
            )
    assert server.statistics().refused >= 1
    await js("closeServers")


async def test_on_a_network_of_the_originals() -> None:
    with trio.fail_after(180):
        async with (
            open_javascript_network(SIZE) as (js, dht),
            open_connectable_guest((await js("bootstrap"))["port"]) as hyperdht,
            open_connectable_guest((await js("bootstrap"))["port"]) as other,
        ):
            assert dht.statistics().nodes > 20
            await check_we_connect(js, hyperdht)
            await check_they_connect(js, hyperdht)
            await check_we_connect_to_us(hyperdht, other)


async def test_on_a_network_of_ours() -> None:
    with trio.fail_after(180):
        async with open_network(SIZE) as nodes:
            port = nodes[0].address[1]
            async with (
                open_javascript_guest(port) as js,
                open_connectable_guest(port) as hyperdht,
                open_connectable_guest(port) as other,
            ):
                await check_we_connect(js, hyperdht)
                await check_they_connect(js, hyperdht)
                await check_we_connect_to_us(hyperdht, other)
                await check_refused(js, hyperdht)
                assert sum(node.statistics().passed_on for node in nodes) > 4
