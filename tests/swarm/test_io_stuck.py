"""A connection on which nothing gets through is replaced, whatever TCP is waiting for."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm import Connection, Swarm, open_swarm
from swarm.io.connection import SILENCE_SECONDS
from swarm.io.tcp import is_stuck
from tests.simulation.network import CURRENT_HOST, PORT, Network
from tests.support.swarm_party import LARGE, SMALL
from tests.support.switch import address_of, in_namespace, is_possible, open_switch


@dataclass
class Node:
    """A swarm on a simulated host, and its connections so far."""

    swarm: Swarm | None = None
    opened: list[Connection] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)

    async def serve(self, connection: Connection) -> None:
        self.opened.append(connection)
        while True:
            self.heard += await connection.receive()


@asynccontextmanager
async def open_pair(network: Network) -> AsyncIterator[tuple[Node, Node]]:
    """The first one knows the address of the second."""
    trio.socket.set_custom_socket_factory(network)
    dialer, target = Node(), Node()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        async with (
            _open_node(dialer, SMALL, network),
            _open_node(target, LARGE, network) as far,
        ):
            assert dialer.swarm is not None
            dialer.swarm.add_peer(*far.addresses[0])
            await trio.sleep(0.5)
            assert len(dialer.opened) == len(target.opened) == 1
            yield dialer, target
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _open_node(node: Node, key_pair: KeyPair, network: Network) -> AsyncIterator[Swarm]:
    host = network.add_host()
    CURRENT_HOST.set(host)
    async with open_swarm(
        key_pair,
        node.serve,
        listen=(host.address, PORT),
        lan=False,
        watches_network=False,
        entropy=random.Random(host.number).randbytes,
    ) as node.swarm:
        yield node.swarm


def cut(network: Network, is_cut: bool) -> None:
    for source, target in ((0, 1), (1, 0)):
        network.link(source, target).is_cut = is_cut


async def test_what_is_stuck_is_replaced_as_soon_as_the_network_carries_anything(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network(random.Random(0))
    async with open_pair(network) as (dialer, target):
        start = trio.current_time()
        cut(network, True)
        await dialer.opened[0].send([b"stuck"])
        await trio.sleep(3.5)
        cut(network, False)
        await trio.sleep_until(start + 5.5)  # TCP by itself would go on at 6.2
        assert len(dialer.opened) == len(target.opened) == 2
        await dialer.opened[1].send([b"goes"])
        await trio.sleep(0.1)
        assert target.heard == [b"goes"]
        assert dialer.swarm is not None
        assert dialer.swarm.statistics().connections == 1


async def test_what_goes_on_by_itself_stays(autojump_clock: trio.testing.MockClock) -> None:
    network = Network(random.Random(0))
    async with open_pair(network) as (dialer, target):
        cut(network, True)
        await dialer.opened[0].send([b"late"])
        await trio.sleep(2.9)
        cut(network, False)
        await trio.sleep(SILENCE_SECONDS)
        assert target.heard == [b"late"]
        assert len(dialer.opened) == len(target.opened) == 1
        assert dialer.swarm is not None
        assert dialer.swarm.statistics().duplicates == 1, "it was dialed beside it"


async def test_nobody_dials_beside_a_connection_that_works(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network(random.Random(0))
    async with open_pair(network) as (dialer, target):
        for _ in range(20):
            await dialer.opened[0].send([b"."])
            await trio.sleep(0.7)
        await trio.sleep(60)
        assert len(target.heard) == 20
        assert dialer.swarm is not None
        assert dialer.swarm.statistics().dials == 1


@pytest.mark.skipif(not is_possible(), reason="it takes root and /dev/net/tun")
async def test_this_system_tells_what_is_stuck() -> None:
    async with open_switch(2) as switch:
        open_there = partial(socket.create_server, (address_of(0), PORT))
        listener = trio.socket.from_stdlib_socket(in_namespace(switch.namespace(0), open_there))
        plain = in_namespace(switch.namespace(1), socket.socket)
        client = trio.socket.from_stdlib_socket(plain)
        await client.connect((address_of(0), PORT))
        accepted, _ = await listener.accept()
        with listener, accepted:
            async with trio.SocketStream(client) as stream:
                await stream.send_all(b"fine")
                assert await accepted.recv(100) == b"fine"
                assert not is_stuck(stream)
                await switch.set(cut=[(1, 0)])
                with trio.fail_after(20):
                    while not is_stuck(stream):
                        await stream.send_all(b".")  # the switch obeys a moment later
                        await trio.sleep(0.05)
                await switch.set()
                assert set(await accepted.recv(1000)) == set(b".")
                with trio.fail_after(20):
                    while is_stuck(stream):  # noqa: ASYNC110 - the system tells nobody
                        await trio.sleep(0.05)
