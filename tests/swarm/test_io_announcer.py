"""A key that is served at home, whose router now and then has another address."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress

import pytest
import trio
import trio.testing

from hypercore.crypto import KeyPair
from swarm.announcement import Address
from swarm.dht.messages import Command
from swarm.dht.payloads import PeerRecord, peer_target
from swarm.dht.peer_messages import Mode, PeerHandshake
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
        self._listening = trio.CancelScope()

    @property
    def address(self) -> Address:
        return self._socket.address

    def send_to(self, data: bytes, address: Address) -> None:
        self._socket.send_to(data, address)

    async def receive(self) -> Sequence[tuple[bytes, Address]]:
        while True:
            socket = self._socket
            with trio.CancelScope() as self._listening:
                return await socket.receive()
            socket.close()

    def move(self) -> None:
        self._socket = UdpSocket(LOOPBACK, 0)
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
