"""What hyperdht's test/connections.js checks, with one side ours, on networks of either kind.

`force holepunch`, `failed LAN ping falls back to holepunch` and the aborted punches take NATs: see
`tests/interop/test_nat.py`. Not followed: hooks that we do not have (`holepunch`,
`handshakeClearWait`, sockets that are reused, a pool), options of its constructor (`suggested-IP`,
keep-alives of another length), ids as text (`hypercore.crypto.decode_id` reads them), and raw
streams made of encrypted ones.
"""

from __future__ import annotations

import socket

import pytest
import trio

from hypercore.crypto import KeyPair
from swarm import Connection, HyperDht, PeerUnreachable
from tests.interop.originals.dht_parties import NETWORKS, Guests, echo, open_guests, serving

pytestmark = pytest.mark.interop

OURS = KeyPair.from_seed(b"\x77" * 32)
CALLER = KeyPair.from_seed(b"\x78" * 32)
THEIR_SEED = b"\x79" * 32
CALLER_SEED = b"\x7a" * 32
EXCHANGED_BYTES = 2**20
CONNECTIONS = 10


async def exchange(hyperdht: HyperDht, key: bytes, size: int, key_pair: KeyPair = CALLER) -> int:
    received = 0
    async with hyperdht.connect(key, key_pair) as connection, trio.open_nursery() as nursery:

        async def send() -> None:
            for start in range(0, size, 2**16):
                await connection.send([bytes(min(2**16, size - start))])

        nursery.start_soon(send)
        while received < size:
            received += sum(map(len, await connection.receive()))
    return received


async def check_data_is_exchanged(guests: Guests) -> None:
    """`once defaults`, `emits connect`, `exchange data`, `connect using specific key`."""
    key = bytes.fromhex((await guests.js("serveEcho", seed=THEIR_SEED.hex()))["key"])
    assert await exchange(guests.ours, key, EXCHANGED_BYTES) == EXCHANGED_BYTES
    remotes: list[bytes] = []

    async def handler(connection: Connection) -> None:
        remotes.append(connection.link.remote_public_key)
        await echo(connection)

    async with serving(guests.ours, OURS, handler):
        answer = await guests.js(
            "exchange",
            key=OURS.public_key.hex(),
            seed=CALLER_SEED.hex(),
            count=1,
            size=EXCHANGED_BYTES,
        )
        assert answer["received"] == EXCHANGED_BYTES
    assert remotes == [KeyPair.from_seed(CALLER_SEED).public_key]
    await guests.js("closeServers")


async def check_many_at_once(guests: Guests) -> None:
    """`create many connections`, in both directions."""
    key = bytes.fromhex((await guests.js("serveEcho", seed=THEIR_SEED.hex()))["key"])
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            nursery.start_soon(exchange, guests.ours, key, 1000, KeyPair.generate())
    async with serving(guests.ours, OURS, echo) as server:
        answer = await guests.js(
            "exchange",
            key=OURS.public_key.hex(),
            seed=CALLER_SEED.hex(),
            count=CONNECTIONS,
            size=1000,
        )
        assert answer["received"] == CONNECTIONS * 1000
        assert server.statistics().connections == CONNECTIONS
    await guests.js("closeServers")


async def check_a_server_that_ends_at_once(guests: Guests) -> None:
    """`half open`, `server responds and immediately ends, multiple connects`."""
    key = bytes.fromhex((await guests.js("serveWord", seed=THEIR_SEED.hex()))["key"])
    for _ in range(5):
        async with guests.ours.connect(key, KeyPair.generate()) as connection:
            assert await connection.receive() == [b"a word"]
            with pytest.raises(trio.EndOfChannel):
                await connection.receive()
    await guests.js("closeServers")


async def check_one_node_is_both(guests: Guests) -> None:
    """`server and client on same node`, `dht node can host server`."""
    async with serving(guests.ours, OURS, echo):
        assert await exchange(guests.ours, OURS.public_key, 1000) == 1000


async def check_noise_harms_nobody(guests: Guests) -> None:
    """`udp noise, client ends, no crash`."""
    async with serving(guests.ours, OURS, echo):
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            for size in range(0, 1200, 100):
                stranger.sendto(b"\xff" * size, guests.ours.address)
        assert await exchange(guests.other, OURS.public_key, 1000) == 1000


async def check_closing_ends_connections(guests: Guests) -> None:
    """`close connections on destroy`; then nobody is found."""
    stopping = trio.Event()

    async def serve(task_status: trio.TaskStatus[None]) -> None:
        async with serving(guests.ours, OURS, echo):
            task_status.started()
            await stopping.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        async with guests.other.connect(OURS.public_key, CALLER) as connection:
            await connection.send([b"hello"])
            await connection.receive()
            stopping.set()
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await connection.receive()
    with pytest.raises(PeerUnreachable):
        await exchange(guests.other, OURS.public_key, 1)


@pytest.mark.parametrize("network", NETWORKS)
async def test_connections(network: str) -> None:
    async with open_guests(network) as guests:
        await check_data_is_exchanged(guests)
        await check_many_at_once(guests)
        await check_a_server_that_ends_at_once(guests)
        await check_one_node_is_both(guests)
        await check_noise_harms_nobody(guests)
        await check_closing_ends_connections(guests)
