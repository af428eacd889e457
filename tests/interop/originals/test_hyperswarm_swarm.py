"""What hyperswarm's test/swarm.js checks, with one side ours.

Not followed: `no default error handler` and `unslabbed` (matters of JavaScript), `topics returns
peer-discovery objects` and sessions of one topic (here the last `join` counts), `port opt`, and
counters of its own. That a peer is forgotten when its connection closes: `test_peer_book.py`.
"""

from __future__ import annotations

import pytest
import trio

from hypercore.crypto import KeyPair
from tests.interop.originals.dht_parties import (
    Guests,
    keys_of,
    open_guests,
    open_our_swarm,
    wait_connected,
    wait_their_connections,
)
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

TOPICS = [bytes((0x90 + index,)) * 32 for index in range(6)]
OURS, OTHER = (KeyPair.from_seed(bytes((index,)) * 32) for index in (0xA1, 0xA2))
SEEDS = [bytes((0xB0 + index,)) * 32 for index in range(3)]
THEIRS, THEIR_OTHER, _ = (KeyPair.from_seed(seed).public_key for seed in SEEDS)


async def open_theirs(js: PeerProcess, name: str, seed: bytes) -> None:
    await js("openSwarm", name=name, seed=seed.hex())


async def join(js: PeerProcess, name: str, topic: bytes, *, server: bool, client: bool) -> None:
    await js("joinTopic", name=name, topic=topic.hex(), server=server, client=client)


async def check_one_server_one_client(guests: Guests) -> None:
    """`one server, one client - first connection`, and `single reconnect`, both ways round."""
    js, topic = guests.js, TOPICS[0]
    async with open_our_swarm(guests.port, OURS) as swarm:
        await join(js, "first", topic, server=True, client=False)
        await swarm.join(topic, is_server=False)
        await wait_connected(swarm, THEIRS)
        await js("hangUp", name="first", key=OURS.public_key.hex())
        while swarm.statistics().connections_opened < 2:
            await swarm.wait_changed()
        await wait_connected(swarm, THEIRS)
        await swarm.leave(topic)
    async with open_our_swarm(guests.port, OURS) as swarm:
        await js("leaveTopic", name="first", topic=topic.hex())
        await swarm.join(topic, is_client=False)
        await swarm.wait_announced()
        await join(js, "first", topic, server=False, client=True)
        await wait_connected(swarm, THEIRS)
        (connection,) = swarm.connections
        assert not connection.is_initiator
    await js("leaveTopic", name="first", topic=topic.hex())


async def check_deduplication(guests: Guests) -> None:
    """`two servers - first connection`, `two servers, two clients - simple deduplication`."""
    js, topic = guests.js, TOPICS[1]
    async with open_our_swarm(guests.port, OURS) as swarm:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(swarm.join, topic)
            await join(js, "first", topic, server=True, client=True)
        swarm.refresh(topic)
        await wait_connected(swarm, THEIRS)
        await wait_their_connections(js, "first", OURS.public_key)
    await js("leaveTopic", name="first", topic=topic.hex())


async def check_topics_share_a_connection(guests: Guests) -> None:
    """`one server, two clients - topic multiplexing`."""
    js = guests.js
    async with open_our_swarm(guests.port, OURS) as swarm:
        for topic in TOPICS[2:4]:
            await join(js, "first", topic, server=True, client=False)
            await swarm.join(topic, is_server=False)
        await swarm.wait_tried()
        await wait_connected(swarm, THEIRS)
        assert swarm.statistics().connections_opened == 1
    for topic in TOPICS[2:4]:
        await js("leaveTopic", name="first", topic=topic.hex())


async def check_late_comers_and_refresh(guests: Guests) -> None:
    """`two servers, one client - refreshing discovers new server`, `if a second client joins after
    the server leaves, they will not connect`, `rejoining with different client/server opts`."""
    js, topic = guests.js, TOPICS[4]
    async with open_our_swarm(guests.port, OURS) as swarm:
        await swarm.join(topic, is_server=False)
        await swarm.wait_tried()
        assert keys_of(swarm) == set()
        await join(js, "first", topic, server=True, client=False)
        swarm.refresh(topic)
        await wait_connected(swarm, THEIRS)
        await open_theirs(js, "second", SEEDS[1])
        await join(js, "second", topic, server=True, client=False)
        swarm.refresh(topic)
        await wait_connected(swarm, THEIRS, THEIR_OTHER)
        await js("leaveTopic", name="first", topic=topic.hex())
        await js("closeSwarm", name="second")
        async with open_our_swarm(guests.port, OTHER) as late:
            await late.join(topic, is_server=False)
            await late.wait_tried()
            assert keys_of(late) == set()
            await swarm.join(topic)
            await swarm.wait_announced()
            late.refresh(topic)
            await wait_connected(late, OURS.public_key)


async def check_a_banned_peer_does_not_come_back(guests: Guests) -> None:
    """`banned peer does not reconnect`."""
    js, topic = guests.js, TOPICS[5]
    async with open_our_swarm(guests.port, OURS) as swarm:
        await swarm.join(topic)
        await swarm.wait_announced()
        await join(js, "first", topic, server=False, client=True)
        await wait_connected(swarm, THEIRS)
        swarm.refuse(THEIRS)
        while not swarm.statistics().refused:  # it tries again
            await swarm.wait_changed()
        assert keys_of(swarm) == set()


async def test_swarm() -> None:
    async with open_guests("originals") as guests:
        await open_theirs(guests.js, "first", SEEDS[0])
        await check_one_server_one_client(guests)
        await check_deduplication(guests)
        await check_topics_share_a_connection(guests)
        await check_late_comers_and_refresh(guests)
        await check_a_banned_peer_does_not_come_back(guests)
