"""What hyperdht's test/relaying.js checks, with one side ours and a relay of either kind.

A relay that the client, the server or both name; the connection is made whichever way is first.
That it is used where nothing else works, and left when something does (`relay connection upgrades
to direct connection`), takes NATs: `tests/interop/test_nat.py`. Not followed: aborting a punch by a
hook, which we do not have, and the skipped tests.
"""

from __future__ import annotations

import pytest

from hypercore.crypto import KeyPair
from swarm.io.relay_server import BlindRelay
from tests.interop.originals.dht_parties import Guests, echo, open_guests, serving

pytestmark = pytest.mark.interop

OURS = KeyPair.from_seed(b"\x7b" * 32)
CALLER = KeyPair.from_seed(b"\x7c" * 32)
THEIR_SEED = b"\x7d" * 32
RELAY = KeyPair.from_seed(b"\x7e" * 32)


async def check_relaying(
    guests: Guests, relay: bytes, index: int, *, by_client: bool, by_server: bool
) -> None:
    """Connections in both directions."""
    named = relay.hex() if by_server else ""
    served = await guests.js("serveEcho", seed=f"{index:02x}" * 32, relay=named)
    key = bytes.fromhex(served["key"])
    through = relay if by_client else None
    async with guests.ours.connect(key, CALLER, relay_through=through) as connection:
        for word in (b"one", b"two"):
            await connection.send([word])
            assert await connection.receive() == [word]
    async with serving(guests.ours, OURS, echo, relay if by_server else None):
        answer = await guests.js(
            "exchange",
            key=OURS.public_key.hex(),
            seed="55" * 32,
            count=2,
            size=100_000,
            relay=relay.hex() if by_client else "",
        )
        assert answer["received"] == 200_000


@pytest.mark.parametrize("relay_kind", ["ours", "theirs"])
async def test_relaying(relay_kind: str) -> None:
    async with open_guests("originals") as guests:
        blind = BlindRelay(2**24)
        async with serving(guests.other, RELAY, blind.handle):
            relay = RELAY.public_key
            if relay_kind == "theirs":
                relay = bytes.fromhex((await guests.js("serveRelay", seed=THEIR_SEED.hex()))["key"])
            await check_relaying(guests, relay, 1, by_client=True, by_server=False)
            await check_relaying(guests, relay, 2, by_client=False, by_server=True)
            await check_relaying(guests, relay, 3, by_client=True, by_server=True)
