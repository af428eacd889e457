"""What hyperswarm's test/firewall.js checks, with either side ours.

Its last test, `rejection does not trigger retry cascade`, is the number of dials here.
"""

from __future__ import annotations

import pytest
import trio

from hypercore.crypto import KeyPair
from tests.interop.originals.dht_parties import (
    keys_of,
    open_guests,
    open_our_swarm,
    wait_connected,
)

pytestmark = pytest.mark.interop

TOPIC = b"\xd1" * 32
OURS, REFUSED = (KeyPair.from_seed(bytes((index,)) * 32) for index in (0xD2, 0xD3))
THEIR_SEED = b"\xd4" * 32
THEIRS = KeyPair.from_seed(THEIR_SEED).public_key
WATCHED_SECONDS = 3.0


async def test_firewall() -> None:
    async with open_guests("originals") as guests:
        js = guests.js
        await js("openSwarm", name="theirs", seed=THEIR_SEED.hex(), refuse=REFUSED.public_key.hex())
        await js("joinTopic", name="theirs", topic=TOPIC.hex(), server=True, client=False)
        async with (
            open_our_swarm(guests.port, REFUSED) as refused,
            open_our_swarm(guests.port, OURS) as swarm,
        ):
            await refused.join(TOPIC, is_server=False)
            await swarm.join(TOPIC, is_server=False)
            await wait_connected(swarm, THEIRS)
            with trio.move_on_after(WATCHED_SECONDS):
                while True:
                    await refused.wait_changed()
            assert keys_of(refused) == set()
            assert refused.statistics().dials <= 2, "it waits for longer and longer"
            swarm.refuse(THEIRS)
            await wait_connected(swarm)
            await swarm.join(TOPIC)
            await swarm.wait_announced()
            await js("namedPeer", name="theirs", key=OURS.public_key.hex(), leave=False)
            while not swarm.statistics().refused:
                await swarm.wait_changed()
            assert keys_of(swarm) == set()
