"""Topics through the DHT, between our swarm and Hyperswarm 4.17.2.

The behavior of its test/swarm.js, test/peer-join.js, test/dups.js and test/firewall.js that can be
seen from the other side of a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from hypercore.corestore import Corestore, open_corestore
from hypercore.crypto import KeyPair
from swarm import Connection, HyperDht, Reach, Source, Swarm, open_hyperdht, open_mux, open_swarm
from swarm.io.sessions import Handler
from tests.interop.dht_peer import LOOPBACK, open_javascript_network
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

SIZE = 24
TOPIC = b"\x51" * 32
JS_SEED = b"\x55" * 32
JS_KEY = KeyPair.from_seed(JS_SEED).public_key
LARGER = KeyPair.from_seed(b"\x53" * 32)
SMALLER = KeyPair.from_seed(b"\x56" * 32)
BLOCKS = [f"block {index}" for index in range(20)]


def replicating(store: Corestore) -> Handler:
    async def handler(connection: Connection) -> None:
        async with open_mux(connection, accept=["hypercore/alpha"]) as mux:
            await store.replicate(mux)

    return handler


@asynccontextmanager
async def open_party(
    port: int,
    store: Corestore,
    key_pair: KeyPair,
    firewall: Callable[[bytes], bool] = lambda _: True,
) -> AsyncIterator[tuple[HyperDht, Swarm]]:
    """A swarm of ours that uses the DHT and nothing else."""
    async with (
        open_hyperdht(bootstrap=[(LOOPBACK, port)], host=LOOPBACK, port=0) as hyperdht,
        open_swarm(
            key_pair,
            replicating(store),
            listen=None,
            lan=False,
            hyperdht=hyperdht,
            firewall=firewall,
        ) as swarm,
    ):
        yield hyperdht, swarm


async def wait_connected(swarm: Swarm, *keys: bytes) -> None:
    while {connection.remote_public_key for connection in swarm.connections} != set(keys):
        await swarm.wait_changed()


async def read_core(store: Corestore, key: bytes) -> list[str]:
    core = await store.get(key=key)
    await core.wait_length(len(BLOCKS))
    return [block.decode() for block in await core.get_many(range(len(BLOCKS)))]


async def write_core(store: Corestore) -> bytes:
    core = await store.get(name="ours")
    await core.append([block.encode() for block in BLOCKS])
    return core.key


async def start_javascript(js: PeerProcess) -> bytes:
    """Join the topic with a core; its key."""
    answer = await js("swarm", topic=TOPIC.hex(), seed=JS_SEED.hex(), name="js", blocks=BLOCKS)
    return bytes.fromhex(answer["core"])


@pytest.mark.parametrize("key_pair", [LARGER, SMALLER], ids=["larger", "smaller"])
async def test_whoever_joins_last_finds_the_other_and_both_read(key_pair: KeyPair) -> None:
    with trio.fail_after(180):
        async with open_javascript_network(SIZE) as (js, _), open_corestore(None) as store:
            port = (await js("bootstrap"))["port"]
            theirs = await start_javascript(js)
            async with open_party(port, store, key_pair) as (_, swarm):
                ours = await write_core(store)
                await swarm.join(TOPIC)
                await swarm.wait_announced()
                await wait_connected(swarm, JS_KEY)
                assert await read_core(store, theirs) == BLOCKS
                assert (await js("readCore", core=ours.hex()))["blocks"] == BLOCKS
                (connection,) = swarm.connections
                assert (connection.source, connection.reach) == (Source.DHT, Reach.LAN)
                assert connection.is_initiator

                swarm.suspend()
                assert swarm.statistics().is_suspended
                await wait_connected(swarm)
                swarm.resume()
                await wait_connected(swarm, JS_KEY)
                await js("leaveSwarm")
                await wait_connected(swarm)


async def test_they_find_us_and_we_find_us() -> None:
    with trio.fail_after(180):
        async with (
            open_javascript_network(SIZE) as (js, _),
            open_corestore(None) as store,
            open_corestore(None) as other_store,
        ):
            port = (await js("bootstrap"))["port"]
            async with open_party(port, store, LARGER) as (_, swarm):
                ours = await write_core(store)
                await swarm.join(TOPIC)
                await swarm.wait_announced()
                await start_javascript(js)
                await wait_connected(swarm, JS_KEY)
                (connection,) = swarm.connections
                assert (connection.source, connection.is_initiator) == (Source.INCOMING, False)
                async with open_party(port, other_store, SMALLER) as (_, other):
                    await other.join(TOPIC)
                    await wait_connected(other, JS_KEY, LARGER.public_key)
                    await wait_connected(swarm, JS_KEY, SMALLER.public_key)
                    assert await read_core(other_store, ours) == BLOCKS
                await wait_connected(swarm, JS_KEY)


async def test_a_key_is_joined_without_a_topic_and_a_firewall_keeps_others_out() -> None:
    def refuse_javascript(key: bytes) -> bool:
        return key != JS_KEY

    with trio.fail_after(180):
        async with (
            open_javascript_network(SIZE) as (js, _),
            open_corestore(None) as store,
            open_corestore(None) as other_store,
        ):
            port = (await js("bootstrap"))["port"]
            await start_javascript(js)
            async with (
                open_party(port, store, LARGER, refuse_javascript) as (hyperdht, guarded),
                open_party(port, other_store, SMALLER) as (_, swarm),
            ):
                await hyperdht.dht.wait_bootstrapped()
                await guarded.join(TOPIC)
                await guarded.wait_announced()
                swarm.add_key(JS_KEY)
                swarm.add_key(LARGER.public_key)
                await wait_connected(swarm, JS_KEY, LARGER.public_key)
                await js("joinPeer", key=LARGER.public_key.hex())
                while not guarded.statistics().refused:
                    await guarded.wait_changed()
                await wait_connected(guarded, SMALLER.public_key)
                assert LARGER.public_key.hex() not in (await js("swarmPeers"))["keys"]
