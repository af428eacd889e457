"""Connecting by public key, on real sockets of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio

from hypercore.crypto import KeyPair
from swarm.dht.messages import Command
from swarm.dht.payloads import peer_target
from swarm.dht.peer_messages import Mode, PeerHandshake, PeerOffer, StreamOffer
from swarm.dht.peer_noise import CallerNoise
from swarm.dht.requests import Call
from swarm.errors import PeerUnreachable
from swarm.io.connection import Connection
from swarm.io.dht import open_bootstrap
from swarm.io.hyperdht import HyperDht, open_hyperdht
from swarm.io.peer_dial import PATIENCE_SECONDS
from swarm.io.peer_server import PeerServer
from swarm.io.tasks import open_background_nursery
from swarm.reach import Reach
from tests.support.cancel_everywhere import cancel_everywhere

LOOPBACK = "127.0.0.1"
SERVER = KeyPair.from_seed(b"\x01" * 32)
CALLER = KeyPair.from_seed(b"\x02" * 32)


@asynccontextmanager
async def open_nodes(count: int, *, is_open: bool = True) -> AsyncIterator[list[HyperDht]]:
    """Guests of a network that is one node, who know whether strangers reach them."""
    async with AsyncExitStack() as stack:
        boot = await stack.enter_async_context(open_bootstrap(LOOPBACK, 0))
        nodes: list[HyperDht] = []
        for _ in range(count):
            opened = open_hyperdht(bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=is_open)
            nodes.append(await stack.enter_async_context(opened))
            await nodes[-1].dht.wait_bootstrapped()
        yield nodes


async def echo(connection: Connection) -> None:
    while True:
        await connection.send(await connection.receive())


@asynccontextmanager
async def served(node: HyperDht, key_pair: KeyPair = SERVER) -> AsyncIterator[PeerServer]:
    async with open_background_nursery() as nursery:
        server: PeerServer = await nursery.start(partial(node.serve, key_pair, echo))
        await server.wait_announced()
        yield server


async def call(node: HyperDht, key: bytes = SERVER.public_key) -> Connection:
    async with node.connect(key, CALLER) as connection:
        await connection.send([b"hello"])
        assert await connection.receive() == [b"hello"]
    return connection


async def test_a_key_is_found_and_answers_until_it_is_served_no_more() -> None:
    with trio.fail_after(30):
        async with open_nodes(2) as (host, guest):
            async with served(host) as server:
                connection = await call(guest)
                assert connection.link.remote_public_key == SERVER.public_key
                assert connection.reach is Reach.LAN
                assert server.statistics().connections == 1
                assert len(server.relay_addresses) == 2, "its own, which is open, and the node's"
                await call(guest)
                with pytest.raises(ValueError, match="already"):
                    await host.serve(SERVER, echo)
            with pytest.raises(PeerUnreachable):
                await call(guest)
            assert [peer async for peer in guest.dht.find_peer(SERVER.public_key)] == []


async def test_who_led_there_before_is_asked_first_and_nobody_else() -> None:
    with trio.fail_after(30):
        async with open_nodes(2) as (host, guest), served(host):
            await call(guest)
            before = guest.dht.statistics().requests.sent
            await call(guest)
            relays = guest.relays_of_peers[SERVER.public_key]
            sent = guest.dht.statistics().requests.sent - before
            assert 1 <= sent <= len(relays) == 2, "handshakes, no query"


async def test_nodes_that_are_gone_cost_a_moment() -> None:
    gone = [("127.0.0.1", port) for port in (9, 19, 29)]
    with trio.fail_after(30):
        async with open_nodes(2) as (host, guest), served(host):
            started = trio.current_time()
            connecting = guest.connect(SERVER.public_key, CALLER, relay_addresses=gone)
            async with connecting as connection:
                assert connection.link.remote_public_key == SERVER.public_key
            assert PATIENCE_SECONDS <= trio.current_time() - started < PATIENCE_SECONDS + 2


async def test_neighbors_behind_the_same_nat_find_each_other() -> None:
    """For all they know they are firewalled, and a single node is too few to understand a NAT."""
    with trio.fail_after(30):
        async with open_nodes(2, is_open=False) as (host, guest), served(host) as server:
            assert host.dht.statistics().is_firewalled
            connection = await call(guest)
            assert connection.reach is Reach.LAN
            assert connection.remote_address == f"{LOOPBACK}:{host.address[1]}"
            assert len(server.relay_addresses) == 1, "the node's alone"


async def test_a_node_serves_several_keys_and_calls_itself() -> None:
    other = KeyPair.from_seed(b"\x03" * 32)
    with trio.fail_after(30):
        async with open_nodes(1) as (node,), served(node), served(node, other):
            for pair in (SERVER, other):
                connection = await call(node, pair.public_key)
                assert connection.link.remote_public_key == pair.public_key


async def test_a_client_that_never_comes_is_forgotten_and_sent_nothing_more() -> None:
    """Its handshake names an address that others own: they get three small packets."""
    with trio.fail_after(30):
        async with open_nodes(2) as (host, guest), served(host) as server:
            offer = PeerOffer(stream=StreamOffer(99))
            noise = CallerNoise(CALLER, SERVER.public_key, offer, b"\x05".__mul__)
            value = PeerHandshake(Mode.FROM_CLIENT, noise.message).encode()
            target = peer_target(SERVER.public_key)
            before = host.socket_statistics()
            question = Call(host.address, Command.PEER_HANDSHAKE, target=target, value=value)
            for _ in range(3):
                answer = await guest.dht.request(question)
                reply = PeerHandshake.decode(answer.value or b"")
                assert noise.receive(reply.noise)[0].stream is not None
            assert server.statistics().meetings == 1, "it is the same one three times"
            after = host.socket_statistics()
            assert after.datagrams_sent - before.datagrams_sent == 3, "the answers, and no more"


async def test_connecting_can_be_given_up_at_any_point() -> None:
    with trio.fail_after(60):
        async with open_nodes(2) as (host, guest), served(host):
            assert await cancel_everywhere(partial(call, guest)) > 5
            await call(guest)
