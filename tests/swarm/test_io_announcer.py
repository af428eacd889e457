"""A key that is served at home, whose router now and then has another address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm.announcement import Address
from swarm.dht.messages import Command
from swarm.dht.payloads import PeerRecord, peer_target
from swarm.dht.peer_messages import Mode, PeerHandshake
from swarm.dht.reachability import Role
from swarm.dht.requests import Call
from swarm.errors import PeerUnreachable
from swarm.io.announcer import MOVE_SECONDS, PING_SECONDS, Announcer
from swarm.io.carrier import UdpSocket
from swarm.io.dht import Dht, open_bootstrap, open_dht
from swarm.io.tasks import open_background_nursery

LOOPBACK = "127.0.0.1"
SERVER = KeyPair.from_seed(b"\x01" * 32)


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """Jumps over pauses, but leaves real sockets the time they need."""
    return trio.testing.MockClock(autojump_threshold=0.1)


class RoutedSocket:
    """A carrier that the world sees at another address when its router says so."""

    def __init__(self) -> None:
        self._socket = UdpSocket(LOOPBACK, 0)
        self._inside = self._socket.address
        self._listening = trio.CancelScope()

    @property
    def address(self) -> Address:
        return self._inside

    def send_to(self, data: bytes, address: Address) -> None:
        self._socket.send_to(data, address)

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        while True:
            socket = self._socket
            with trio.CancelScope() as self._listening:
                return await socket.receive()
            socket.close()

    def move(self, host: str = LOOPBACK, *, keeps_port: bool = False) -> None:
        self._socket = UdpSocket(host, self._inside[1] if keeps_port else 0)
        self._listening.cancel()

    def close(self) -> None:
        self._socket.close()


class Home:
    """A node that serves a key, and counts who knocks."""

    def __init__(self, dht: Dht, relay: Dht) -> None:
        self.announcer = Announcer(dht, SERVER)
        self._dht = dht
        self._relay = relay
        self._knocks = 0

    async def run(self) -> None:
        with self._dht.driver.serving(PeerRecord(SERVER.public_key)) as questions:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.announcer.run)
                while True:
                    await questions.receive()
                    self._knocks += 1

    async def is_found(self) -> bool:
        """Whether the node that passes messages on knows the way."""
        before = self._knocks
        value = PeerHandshake(Mode.FROM_CLIENT, bytes(100)).encode()
        target = peer_target(SERVER.public_key)
        call = Call(
            self._relay.address, Command.PEER_HANDSHAKE, target=target, value=value,
            retries=0, timeout_seconds=0.5,
        )  # fmt: skip
        with suppress(PeerUnreachable):
            await self._relay.driver.call(call)
        return self._knocks > before


@asynccontextmanager
async def open_member(relay: Dht) -> AsyncIterator[None]:
    async with open_dht(
        bootstrap=[relay.address], host=LOOPBACK, port=0, role=Role.PERSISTENT, is_open=True
    ) as dht:
        await dht.wait_bootstrapped()
        yield


async def test_a_router_that_has_another_address(quick_clock: trio.testing.MockClock) -> None:
    """Found in review: no message came through any more, for up to five minutes."""
    with closing(UdpSocket(LOOPBACK, 0)) as server, closing(RoutedSocket()) as router:
        async with (
            open_bootstrap(LOOPBACK, 0) as relay,
            open_dht(bootstrap=[relay.address], carriers=(server, router)) as dht,
            open_background_nursery() as nursery,
        ):
            await dht.wait_bootstrapped()
            home = Home(dht, relay)
            nursery.start_soon(home.run)
            await home.announcer.announced.wait()
            assert await home.is_found()

            router.move()
            await trio.sleep(2 * PING_SECONDS)
            assert await home.is_found()

            router.move()
            await trio.sleep(2 * PING_SECONDS)
            assert not await home.is_found(), "one that moves all the time is not run after"
            await trio.sleep(MOVE_SECONDS)
            assert await home.is_found()


async def test_a_router_that_lets_strangers_in_and_has_another_address(
    quick_clock: trio.testing.MockClock,
) -> None:
    """Found in review: a node told everybody for half an hour that it was where it had been."""
    with closing(RoutedSocket()) as server, closing(RoutedSocket()) as client:
        async with (
            open_bootstrap(LOOPBACK, 0) as relay,
            open_member(relay),
            open_member(relay),
            open_dht(bootstrap=[relay.address], carriers=(server, client)) as dht,
            open_background_nursery() as nursery,
        ):
            await dht.wait_bootstrapped()
            home = Home(dht, relay)
            nursery.start_soon(home.run)
            await home.announcer.announced.wait()
            dht.driver.wake_up()
            await trio.sleep(30)
            port = server.address[1]
            assert dht.public_address == (LOOPBACK, port)

            for socket in (server, client):
                socket.move("127.0.0.2", keeps_port=True)
            await trio.sleep(2 * MOVE_SECONDS)
            assert dht.public_address == ("127.0.0.2", port)
            assert await home.is_found()
