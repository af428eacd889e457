"""What hyperswarm's test/peer-join.js checks, with one side ours.

`no memory leak if other side closed connection first` is `test_peer_book.py`.
"""

from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from tests.interop.originals.dht_parties import (
    keys_of,
    open_guests,
    open_our_swarm,
    wait_connected,
    wait_their_connections,
)

pytestmark = pytest.mark.interop

TOPIC = b"\xc1" * 32
OURS = KeyPair.from_seed(b"\xc2" * 32)
THEIR_SEED = b"\xc3" * 32
THEIRS = KeyPair.from_seed(THEIR_SEED).public_key


async def test_peer_join() -> None:
    """Direct connections to public keys, in both directions; self; leaving."""
    async with open_guests("originals") as guests:
        js = guests.js
        await js("openSwarm", name="theirs", seed=THEIR_SEED.hex())
        async with open_our_swarm(guests.port, OURS) as swarm:
            # A key is served as soon as its swarm is open; theirs, when it joins something.
            await js("joinTopic", name="theirs", topic=TOPIC.hex(), server=True, client=False)
            swarm.add_key(THEIRS)
            swarm.add_key(OURS.public_key)
            await wait_connected(swarm, THEIRS)
            await wait_their_connections(js, "theirs", OURS.public_key)

            await js("hangUp", name="theirs", key=OURS.public_key.hex())
            while swarm.statistics().connections_opened < 2:
                await swarm.wait_changed()
            await wait_connected(swarm, THEIRS)
            swarm.remove_key(THEIRS)
            dials = swarm.statistics().dials
            await js("hangUp", name="theirs", key=OURS.public_key.hex())
            await wait_connected(swarm)

            await js("namedPeer", name="theirs", key=OURS.public_key.hex(), leave=False)
            await wait_connected(swarm, THEIRS)
            (connection,) = swarm.connections
            assert not connection.is_initiator
            assert swarm.statistics().dials == dials, "we do not dial a key that was left"
            await js("namedPeer", name="theirs", key=OURS.public_key.hex(), leave=True)
            await js("hangUp", name="theirs", key=OURS.public_key.hex())
            await wait_connected(swarm)
            assert keys_of(swarm) == set()
