"""What hyperswarm's test/chaos.js checks, with half of the swarms ours and a clock of its own.

Connections are cut at random; then everybody who shares a topic is connected again. The original
takes a minute for it, with 10 swarms, 15 topics and 30 cuts; here there are 8, 6 and 12.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random

import pytest

from hypercore.crypto import KeyPair
from swarm import Swarm
from tests.interop.originals.dht_parties import (
    open_guests,
    open_our_swarm,
    wait_connected,
    wait_their_connections,
)
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

COUNT, TOPICS, CUTS = 4, 6, 12
OURS = [KeyPair.from_seed(bytes((0xF0, index)) * 16) for index in range(COUNT)]
SEEDS = [bytes((0xF1, index)) * 16 for index in range(COUNT)]
THEIRS = [KeyPair.from_seed(seed).public_key for seed in SEEDS]


async def wait_all(js: PeerProcess, swarms: list[Swarm], expected: list[set[bytes]]) -> None:
    for swarm, keys in zip(swarms, expected[:COUNT], strict=True):
        await wait_connected(swarm, *keys)
    for index, keys in enumerate(expected[COUNT:]):
        await wait_their_connections(js, str(index), *keys)


async def test_everybody_is_connected_again_after_random_disconnections() -> None:
    chance = Random(20261126)
    all_keys = [pair.public_key for pair in OURS] + THEIRS
    expected: list[set[bytes]] = [set() for _ in all_keys]
    async with open_guests("originals") as guests, AsyncExitStack() as stack:
        js = guests.js
        swarms = [
            await stack.enter_async_context(open_our_swarm(guests.port, pair)) for pair in OURS
        ]
        for index, seed in enumerate(SEEDS):
            await js("openSwarm", name=str(index), seed=seed.hex())
        for number in range(TOPICS):
            topic = bytes((number + 1,)) * 32
            members = chance.sample(range(2 * COUNT), chance.randint(2, 5))
            for member in members:
                expected[member] |= {all_keys[other] for other in members if other != member}
                if member < COUNT:
                    await swarms[member].join(topic)
                    await swarms[member].wait_announced()
                else:
                    name = str(member - COUNT)
                    await js("joinTopic", name=name, topic=topic.hex(), server=True, client=True)
        await wait_all(js, swarms, expected)
        for _ in range(CUTS):
            cut = chance.randrange(COUNT)
            key = chance.choice(sorted(expected[COUNT + cut]))
            await js("hangUp", name=str(cut), key=key.hex())
        await wait_all(js, swarms, expected)
