"""What hyperswarm's test/dups.js checks (`many servers`), with half of them ours."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

from hypercore.crypto import KeyPair
from tests.interop.originals.dht_parties import (
    open_guests,
    open_our_swarm,
    wait_connected,
    wait_their_connections,
)

pytestmark = pytest.mark.interop

TOPIC = b"\xe1" * 32
COUNT = 5
OURS = [KeyPair.from_seed(bytes((0xE0, index)) * 16) for index in range(COUNT)]
SEEDS = [bytes((0xE1, index)) * 16 for index in range(COUNT)]
KEYS = [pair.public_key for pair in OURS] + [KeyPair.from_seed(s).public_key for s in SEEDS]


async def test_many_servers_each_have_one_connection_with_every_other() -> None:
    async with open_guests("originals") as guests, AsyncExitStack() as stack:
        js = guests.js
        swarms = [
            await stack.enter_async_context(open_our_swarm(guests.port, pair)) for pair in OURS
        ]
        for index, seed in enumerate(SEEDS):
            await js("openSwarm", name=str(index), seed=seed.hex())
        async with trio.open_nursery() as nursery:
            for swarm in swarms:
                nursery.start_soon(swarm.join, TOPIC)
            for index in range(COUNT):
                join = {"name": str(index), "topic": TOPIC.hex(), "server": True, "client": True}
                await js("joinTopic", **join)
        for swarm in swarms:
            await swarm.wait_announced()
            swarm.refresh(TOPIC)
        for swarm in swarms:
            await wait_connected(swarm, *(key for key in KEYS if key != swarm.public_key))
        for index in range(COUNT):
            others = [key for key in KEYS if key != KEYS[COUNT + index]]
            await wait_their_connections(js, str(index), *others)
