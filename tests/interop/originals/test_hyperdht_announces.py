"""What hyperdht's test/announces.js checks, with one side ours, on networks of either kind.

Not followed: `server listen returns server` (a matter of its promise), `announcer background does
not over-trigger` and `refresh-only announce does not crash persistent node` (faults of its own
code, which has no counterpart here).
"""

from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from swarm import HyperDht, PeerRecord
from swarm.announcement import Address
from tests.interop.originals.dht_parties import NETWORKS, Guests, echo, open_guests, serving
from tests.support.peer_process import PeerProcess

pytestmark = pytest.mark.interop

TOPIC = b"\x71" * 32
OURS = KeyPair.from_seed(b"\x72" * 32)
OTHER = KeyPair.from_seed(b"\x73" * 32)
THEIR_SEED = b"\x74" * 32
THEIRS = KeyPair.from_seed(THEIR_SEED).public_key
RELAYS: tuple[Address, ...] = (("192.0.2.1", 49737), ("192.0.2.2", 1))


async def find(hyperdht: HyperDht, key: bytes) -> list[Address]:
    return [peer.source async for peer in hyperdht.dht.find_peer(key)]


async def find_by_js(js: PeerProcess, key: bytes) -> list[Address]:
    found = (await js("findPeer", key=key.hex()))["found"]
    return [(host, port) for host, port in (entry["source"] for entry in found)]


async def check_a_server_is_found_by_its_key_until_it_stops(guests: Guests) -> None:
    """`server listen and findPeer`, `server suspends and resumes`."""
    for _ in range(2):
        async with serving(guests.ours, OURS, echo) as server:
            assert await find_by_js(guests.js, OURS.public_key)
            assert await find(guests.other, OURS.public_key)
            assert server.statistics().relays == 3
        assert await find_by_js(guests.js, OURS.public_key) == []
    await guests.js("listen", seed=THEIR_SEED.hex())
    assert await find(guests.ours, THEIRS)
    await guests.js("closeServers")
    assert await find(guests.ours, THEIRS) == []


async def check_a_servers_relays_are_those_that_pass_on(guests: Guests) -> None:
    """`server announces relay addrs`: a client that is told them needs no look-up."""
    async with serving(guests.ours, OURS, echo) as server:
        relays = server.relay_addresses
        found = set(await find(guests.other, OURS.public_key))
        assert len(found.intersection(relays)) >= 2, "one may be the node that asks"
        before = guests.other.dht.statistics().requests.sent
        calling = guests.other.connect(OURS.public_key, OTHER, relay_addresses=relays)
        async with calling as connection:
            await connection.send([b"hello"])
            assert await connection.receive() == [b"hello"]
        assert guests.other.dht.statistics().requests.sent - before < 10


async def check_a_group_with_bumps(guests: Guests) -> None:
    """`announce to group and (bump and) lookup`, `announce null relay addresses`."""
    bump = 1_700_000_000_000
    await guests.ours.dht.announce(TOPIC, OURS, RELAYS, bump_unix_ms=bump)
    await guests.other.dht.announce(TOPIC, OTHER)
    await guests.js("announce", topic=TOPIC.hex(), seed=THEIR_SEED.hex(), relays=RELAYS[:1])
    expected = {
        PeerRecord(OURS.public_key, RELAYS),
        PeerRecord(OTHER.public_key),
        PeerRecord(THEIRS, RELAYS[:1]),
    }
    found = [answer async for answer in guests.ours.dht.lookup(TOPIC)]
    assert {record for answer in found for record in answer.records} == expected
    assert bump in {answer.bump_unix_ms for answer in found}
    theirs = (await guests.js("lookup", topic=TOPIC.hex()))["found"]
    assert bump in {answer["bump"] for answer in theirs}
    keys = {record["key"] for answer in theirs for record in answer["records"]}
    assert keys == {record.public_key.hex() for record in expected}


async def check_a_lookup_of_nothing(guests: Guests) -> None:
    """`server listen and lookup`: a key's own record is under its hash, not a topic."""
    async with serving(guests.ours, OURS, echo):
        assert [answer async for answer in guests.other.dht.lookup(OURS.public_key)] == []
        assert (await guests.js("lookup", topic=OURS.public_key.hex()))["found"] == []


@pytest.mark.parametrize("network", NETWORKS)
async def test_announces(network: str) -> None:
    async with open_guests(network) as guests:
        await check_a_server_is_found_by_its_key_until_it_stops(guests)
        await check_a_servers_relays_are_those_that_pass_on(guests)
        await check_a_group_with_bumps(guests)
        await check_a_lookup_of_nothing(guests)
