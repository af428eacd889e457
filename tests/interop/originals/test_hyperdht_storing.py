"""What hyperdht's test/storing.js checks, with one side ours, on networks of either kind."""

from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from swarm import DhtError, immutable_target
from tests.interop.originals.dht_parties import NETWORKS, Guests, open_guests

pytestmark = pytest.mark.interop

OURS = KeyPair.from_seed(b"\x75" * 32)
THEIR_SEED = b"\x76" * 32
THEIRS = KeyPair.from_seed(THEIR_SEED).public_key
VALUE = b"testing two"


async def check_immutable(guests: Guests) -> None:
    """`immutable put - get`."""
    js, dht = guests.js, guests.ours.dht
    await dht.immutable_put(VALUE)
    target = immutable_target(VALUE)
    assert (await js("immutableGet", hash=target.hex()))["value"] == VALUE.hex()
    assert await guests.other.dht.immutable_get(target) == VALUE
    hash = bytes.fromhex((await js("immutablePut", value=b"theirs".hex()))["hash"])
    assert await dht.immutable_get(hash) == b"theirs"


async def check_mutable(guests: Guests) -> None:
    """`mutable put - get`, `mutable put - put - get`."""
    js, dht = guests.js, guests.ours.dht
    for seq, value in ((0, b"one"), (2, b"two")):
        await dht.mutable_put(OURS, value, seq=seq)
        answer = await js("mutableGet", key=OURS.public_key.hex())
        assert (answer["value"], answer["seq"]) == (value.hex(), seq)
    with pytest.raises(DhtError):
        await dht.mutable_put(OURS, b"too late", seq=1)
    for seq, value in ((0, b"three"), (1, b"four")):
        await js("mutablePut", seed=THEIR_SEED.hex(), value=value.hex(), seq=seq)
        content = await dht.mutable_get(THEIRS)
        assert content is not None
        assert (content.value, content.seq) == (value, seq)


@pytest.mark.parametrize("network", NETWORKS)
async def test_storing(network: str) -> None:
    async with open_guests(network) as guests:
        await check_immutable(guests)
        await check_mutable(guests)
