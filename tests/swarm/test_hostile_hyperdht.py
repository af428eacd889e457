"""Clients and servers that shake hands as they should, and then do what ends no other's node."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest
import trio

from hypercore.crypto import KeyPair, system_entropy
from swarm.announcement import Address
from swarm.dht.introduction import Introduced, read_introduction
from swarm.dht.messages import Command, Request, decode_datagram
from swarm.dht.payloads import PeerRecord, peer_target
from swarm.dht.peer_messages import (
    TOKEN_BYTES,
    Mode,
    NatKind,
    PeerHandshake,
    PeerHolepunch,
    PeerOffer,
    PunchOffer,
    PunchRound,
    RelayPair,
    RelayThrough,
    StreamOffer,
)
from swarm.dht.peer_noise import CallerNoise, PunchBox
from swarm.dht.reception import Arrived, Reception
from swarm.dht.requests import Call
from swarm.errors import CannotPunch, PeerUnreachable
from swarm.io.announcer import Announcer
from swarm.io.connection import Connection
from swarm.io.dht import open_bootstrap
from swarm.io.hyperdht import HyperDht, open_hyperdht
from swarm.io.peer_server import (
    MAX_MEETINGS,
    MAX_ROUNDS,
    NUDGE_SECONDS,
    PeerHandler,
    PeerServer,
)
from swarm.io.tasks import open_background_nursery
from swarm.udx.packet import DATA, DESTROY, encode_packet
from swarm.udx.receiver import NEWCOMER_WINDOW_BYTES

LOOPBACK = "127.0.0.1"
SERVER = KeyPair.from_seed(b"\x01" * 32)
CALLER = KeyPair.from_seed(b"\x02" * 32)
ODD = KeyPair.from_seed(b"\x03" * 32)


@dataclass(frozen=True, slots=True)
class _Network:
    relay: Address
    """The node that passes messages on."""
    host: HyperDht
    guest: HyperDht


@asynccontextmanager
async def open_network(*, is_open: bool) -> AsyncIterator[_Network]:
    with trio.fail_after(30):
        async with (
            open_bootstrap(LOOPBACK, 0) as boot,
            open_hyperdht(bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=is_open) as host,
            open_hyperdht(
                bootstrap=[boot.address], host=LOOPBACK, port=0, is_open=is_open
            ) as guest,
        ):
            await host.dht.wait_bootstrapped()
            await guest.dht.wait_bootstrapped()
            yield _Network(boot.address, host, guest)


async def echo(connection: Connection) -> None:
    while True:
        await connection.send(await connection.receive())


@asynccontextmanager
async def served(node: HyperDht, handler: PeerHandler = echo) -> AsyncIterator[PeerServer]:
    async with open_background_nursery() as nursery:
        server: PeerServer = await nursery.start(partial(node.serve, SERVER, handler))
        await server.wait_announced()
        yield server


async def assert_serves(network: _Network) -> None:
    async with network.guest.connect(SERVER.public_key, CALLER) as connection:
        await connection.send([b"hello"])
        assert await connection.receive() == [b"hello"]


async def knock(network: _Network, through: RelayThrough | None = None) -> Introduced:
    """Be answered by the server, through the node that knows it, and do not come."""
    offer = PeerOffer(stream=StreamOffer(99), relay_through=through)
    noise = CallerNoise(ODD, SERVER.public_key, offer, system_entropy)
    value = PeerHandshake(Mode.FROM_CLIENT, noise.message).encode()
    target = peer_target(SERVER.public_key)
    call = Call(network.relay, Command.PEER_HANDSHAKE, target=target, value=value)
    introduced = read_introduction(noise, network.relay, await network.guest.dht.driver.call(call))
    assert introduced is not None
    return introduced


async def test_a_client_that_ends_its_stream_before_there_is_one() -> None:
    """Found in review: connecting a stream that had ended raised what ended the server."""
    async with open_network(is_open=False) as network, served(network.host) as server:
        introduced = await knock(network)
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
            farewell = encode_packet(DESTROY, introduced.stream.id, 0, 0, 0)
            await stranger.sendto(farewell, network.host.address)
        while server.statistics().meetings:
            await trio.lowlevel.checkpoint()
        await assert_serves(network)


async def test_a_server_that_ends_the_stream_before_it_answers() -> None:
    """Found in review: so could whoever was called end the node that called it."""
    async with open_network(is_open=True) as network:
        reception = Reception(ODD, system_entropy, trio.current_time())
        driver = network.host.dht.driver

        async def answer() -> None:
            with driver.serving(PeerRecord(ODD.public_key)) as questions:
                question = await questions.receive()
                arrived = reception.receive(question, trio.current_time())
                assert isinstance(arrived, Arrived)
                stream = arrived.visitor.offer.stream
                assert stream is not None
                with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
                    farewell = encode_packet(DESTROY, stream.id, 0, 0, 0)
                    await stranger.sendto(farewell, network.guest.address)
                arrived.visitor.let_in(PeerOffer(stream=StreamOffer(7)), system_entropy)
                assert arrived.visitor.answer is not None
                driver.answer(question, arrived.visitor.answer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                async with network.guest.connect(
                    ODD.public_key, CALLER, relay_addresses=[network.host.address]
                ):
                    pass


async def test_a_server_that_sends_its_clients_from_relay_to_relay() -> None:
    """Found in review: a dial opened hundreds of sockets, each for a relay to the next relay."""
    async with open_network(is_open=False) as network, trio.open_nursery() as nursery:
        driver, came = network.host.dht.driver, 0

        async def lie() -> None:
            nonlocal came
            reception = Reception(ODD, system_entropy, trio.current_time())
            way = (RelayPair(network.relay, network.host.address),)
            offer = PeerOffer(
                punch=PunchOffer(1, way),
                stream=StreamOffer(7),
                relay_through=RelayThrough(ODD.public_key, bytes(TOKEN_BYTES)),
            )
            with driver.serving(PeerRecord(ODD.public_key)) as questions:
                while True:
                    question = await questions.receive()
                    match reception.receive(question, trio.current_time()):
                        case Arrived(visitor):
                            came += 1
                            visitor.let_in(offer, system_entropy)
                            assert visitor.answer is not None
                            driver.answer(question, visitor.answer)

        announcer = Announcer(network.host.dht, ODD)
        nursery.start_soon(announcer.run)
        await announcer.announced.wait()
        nursery.start_soon(lie)
        with pytest.raises(CannotPunch):
            async with network.guest.connect(
                ODD.public_key, CALLER, relay_addresses=[network.relay]
            ):
                pass
        assert came == 2, "the server, and the relay that it named"
        nursery.cancel_scope.cancel()


async def test_a_client_that_is_its_own_relay_and_names_somebody_else() -> None:
    """Found in review: all that it sent was acknowledged to whom it had named."""
    async with open_network(is_open=True) as network, served(network.host):
        with (
            trio.socket.socket(type=trio.socket.SOCK_DGRAM) as victim,
            trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger,
        ):
            await victim.bind((LOOPBACK, 0))
            offer = PeerOffer(nat=NatKind.OPEN, stream=StreamOffer(99))
            noise = CallerNoise(ODD, SERVER.public_key, offer, system_entropy)
            named = PeerHandshake(Mode.FROM_RELAY, noise.message, victim.getsockname())
            to = network.host.address
            question = Request(
                7, to, Command.PEER_HANDSHAKE, is_internal=False,
                target=peer_target(SERVER.public_key), value=named.encode(),
            )  # fmt: skip
            await stranger.sendto(question.encode(), to)
            answer = decode_datagram(await stranger.recv(2000))
            stream = noise.receive(PeerHandshake.decode(answer.value or b"").noise)[0].stream
            assert stream is not None
            drawn = [await victim.recv(2000)]  # where it should come to, if it were the client
            for number in range(20):
                packet = encode_packet(DATA, stream.id, 2**20, number, 0, b"x" * 100)
                await stranger.sendto(packet, to)
                await stranger.recv(2000)  # who speaks is who is answered
            with trio.move_on_after(0.1):
                while True:
                    drawn.append(await victim.recv(2000))
        assert {len(packet) for packet in drawn} == {20}
        assert len(drawn) <= len(NUDGE_SECONDS)


async def test_clients_that_knock_with_fresh_keys_and_do_not_come() -> None:
    """Found in review: those of two hosts were all that a server met, ten seconds at a time."""
    async with open_network(is_open=False) as network, served(network.host) as server:
        to, target = network.host.address, peer_target(SERVER.public_key)
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
                await stranger.bind((host, 0))
                for number in range(MAX_MEETINGS // 3 + 1):
                    offer = PeerOffer(stream=StreamOffer(number + 1))
                    key_pair = KeyPair.from_seed(system_entropy(32))
                    noise = CallerNoise(key_pair, SERVER.public_key, offer, system_entropy)
                    # As a relay would, of many clients.
                    client = (f"127.0.1.{number}", 1024)
                    value = PeerHandshake(Mode.FROM_RELAY, noise.message, client).encode()
                    question = Request(
                        number, to, Command.PEER_HANDSHAKE, is_internal=False,
                        target=target, value=value,
                    )  # fmt: skip
                    await stranger.sendto(question.encode(), to)
                    await trio.sleep(0.01)  # slower than they may come

        async def wait_full() -> None:
            while server.statistics().meetings != MAX_MEETINGS:  # the oldest of them make room
                await trio.lowlevel.checkpoint()

        await wait_full()
        await knock(network)
        await wait_full()
        await assert_serves(network)


async def test_little_is_kept_of_a_client_that_has_not_come_yet() -> None:
    """Whoever knows the server's key gets a stream, and may send to it in any order."""
    async with open_network(is_open=True) as network, served(network.host):
        introduced = await knock(network)
        host = network.host
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            for seq in range(1, 1 + 8 * NEWCOMER_WINDOW_BYTES // 1400):
                packet = encode_packet(DATA, introduced.stream.id, 0, seq, 0, bytes(1400))
                stranger.sendto(packet, host.address)
                before = host.socket_statistics().datagrams_received
                while host.socket_statistics().datagrams_received == before:
                    await trio.lowlevel.checkpoint()
        assert 0 < host.socket_statistics().buffered_bytes < 4 * NEWCOMER_WINDOW_BYTES
        await assert_serves(network)


async def test_much_is_kept_of_a_client_that_has_come() -> None:
    async def read_nothing(_: Connection) -> None:
        await trio.sleep_forever()

    async with (
        open_network(is_open=True) as network,
        served(network.host, read_nothing),
        network.guest.connect(SERVER.public_key, CALLER) as connection,
    ):
        await connection.send([bytes(2**20)])
        while network.host.socket_statistics().buffered_bytes < 2**20:
            await trio.lowlevel.checkpoint()


async def test_others_have_their_turn_between_clients_that_come_at_once() -> None:
    """Found in review: a hundred of them kept everybody else for a tenth of a second."""
    async with open_network(is_open=False) as network, served(network.host) as server:
        to, target = network.host.address, peer_target(SERVER.public_key)
        with socket.socket(type=socket.SOCK_DGRAM) as stranger:
            for number in range(60):
                offer = PeerOffer(stream=StreamOffer(number + 1))
                noise = CallerNoise(ODD, SERVER.public_key, offer, system_entropy)
                value = PeerHandshake(Mode.FROM_CLIENT, noise.message).encode()
                question = Request(
                    number, to, Command.PEER_HANDSHAKE, is_internal=False,
                    target=target, value=value,
                )  # fmt: skip
                stranger.sendto(question.encode(), to)
        met = [0]
        while met[-1] < 60:
            await trio.lowlevel.checkpoint()
            met.append(server.statistics().meetings)
        assert max(after - before for before, after in pairwise(met)) < 5


async def test_a_client_that_says_everything_at_once() -> None:
    """Each round that waits is a task, and found in review: there was no end to them."""
    async with open_network(is_open=False) as network, served(network.host):
        introduced = await knock(network)
        punch = introduced.offer.punch
        assert punch is not None
        box = PunchBox(introduced.result, system_entropy)
        target, answers = peer_target(SERVER.public_key), 0

        async def say(number: int) -> None:
            nonlocal answers
            sealed = box.seal(PunchRound(round=number, is_punching=True))
            value = PeerHolepunch(Mode.FROM_CLIENT, punch.id, sealed, introduced.server).encode()
            call = Call(
                network.relay, Command.PEER_HOLEPUNCH, target=target, value=value,
                retries=0, timeout_seconds=0.5, is_urgent=True,
            )  # fmt: skip
            with suppress(PeerUnreachable):
                await network.guest.dht.driver.call(call)
                answers += 1

        async with trio.open_nursery() as nursery:
            for number in range(4 * MAX_ROUNDS):
                nursery.start_soon(say, number)
        assert answers == MAX_ROUNDS
        await assert_serves(network)


@pytest.mark.parametrize("is_named_by_server", [True, False])
async def test_a_server_that_is_named_as_its_own_relay(is_named_by_server: bool) -> None:
    """Found in review: it dialed itself for each visitor, and for the visitor that it was then."""
    async with open_network(is_open=False) as network, open_background_nursery() as nursery:
        named = SERVER.public_key
        ours, theirs = (named, None) if is_named_by_server else (None, named)
        server: PeerServer = await nursery.start(
            partial(network.host.serve, SERVER, echo, relay_through=ours)
        )
        await server.wait_announced()
        # Not by way of the server itself, which would be there at once.
        async with network.guest.connect(
            SERVER.public_key, CALLER, relay_addresses=[network.relay], relay_through=theirs
        ) as connection:
            await connection.send([b"hello"])
            assert await connection.receive() == [b"hello"]
            visits = 1 if is_named_by_server else 2  # the client's own, to the relay that it named
            await trio.sleep(0.5)
            assert server.statistics().connections <= visits


async def test_clients_that_each_name_another_relay() -> None:
    """Found in review: we walked through the table for each of them, and for little else."""
    async with open_network(is_open=False) as network, served(network.host):
        before = network.host.dht.statistics().requests.sent
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                relay = KeyPair.from_seed(system_entropy(32)).public_key
                nursery.start_soon(knock, network, RelayThrough(relay, bytes(TOKEN_BYTES)))
        sent = network.host.dht.statistics().requests.sent - before
        assert sent < 60, "one for each socket to punch with, and for the first relays"
        await assert_serves(network)


async def test_two_servers_that_name_each_other_as_relay() -> None:
    """Found in review: for one client that did not come each dialed the other without end."""
    async with (
        open_network(is_open=False) as network,
        open_hyperdht(bootstrap=[network.relay], host=LOOPBACK, port=0) as third,
        open_background_nursery() as nursery,
    ):
        await third.dht.wait_bootstrapped()
        first, second = SERVER.public_key, ODD.public_key
        one: PeerServer = await nursery.start(
            partial(network.host.serve, SERVER, echo, relay_through=second)
        )
        other: PeerServer = await nursery.start(
            partial(third.serve, ODD, echo, relay_through=first)
        )
        await one.wait_announced()
        await other.wait_announced()
        await knock(network)
        await trio.sleep(1.5)
        assert one.statistics().connections == 0
        assert other.statistics().connections == 1, "it was gone to, and went to nobody"
