"""Connections over WebSockets, for networks that let nothing else through."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from swarm import Reach, Source
from swarm.errors import PeerUnreachable
from swarm.io.websocket import (
    FRAME_BYTES,
    MAX_FRAME_BYTES,
    MAX_IDLE_FRAMES,
    MAX_UNANSWERED_PINGS,
    PIECE_BYTES,
    RECEIVE_BYTES,
    WebSocketAddress,
    WebSocketStream,
    accept_websocket,
    dial_websocket,
)
from tests.support.swarm_party import LARGE, LOOPBACK, SMALL, THIRD, open_party
from tests.support.turns import counting_turns

Streams = tuple[trio.abc.Stream, trio.abc.Stream]


@asynccontextmanager
async def open_pair() -> AsyncIterator[tuple[WebSocketStream, WebSocketStream]]:
    """Both ends of one WebSocket, in memory."""
    near, far = trio.testing.memory_stream_pair()
    protocol = ClientProtocol(parse_uri("ws://example.org/path"), max_size=MAX_FRAME_BYTES)
    client = WebSocketStream(near, protocol)
    servers: list[WebSocketStream] = []

    async def accept() -> None:
        servers.append(await accept_websocket(far))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(client.shake_hands)
        yield client, servers[0]
        await trio.aclose_forcefully(client)
        await trio.aclose_forcefully(servers[0])


@asynccontextmanager
async def open_raw(
    wrap: Callable[[trio.abc.Stream], trio.abc.Stream] = lambda stream: stream,
) -> AsyncIterator[tuple[trio.abc.Stream, WebSocketStream]]:
    """A client that writes its frames itself, and the server, whose stream may be wrapped."""
    near, far = trio.testing.memory_stream_pair()
    client = ClientProtocol(parse_uri("ws://example.org/"))
    servers: list[WebSocketStream] = []

    async def accept() -> None:
        servers.append(await accept_websocket(wrap(far)))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            client.send_request(client.connect())
            await near.send_all(b"".join(client.data_to_send()))
            await near.receive_some()
        yield near, servers[0]
        await trio.aclose_forcefully(servers[0])


async def read_exactly(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await stream.receive_some()
    return data


async def test_bytes_pass_both_ways_whatever_the_frames() -> None:
    data = Random(1).randbytes(3 * FRAME_BYTES + 7)
    async with open_pair() as (client, server):
        for ours, theirs in ((client, server), (server, client)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, data)
                assert await read_exactly(theirs, len(data)) == data
        await client.send_all(b"abc")
        assert await server.receive_some(2) == b"ab"
        assert await server.receive_some(2) == b"c"
        await client.aclose()
        assert await server.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await server.send_all(b"too late")


async def test_a_ping_is_answered_and_text_ends_it() -> None:
    near, far = trio.testing.memory_stream_pair()
    protocol = ClientProtocol(parse_uri("ws://example.org/"))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            servers: list[WebSocketStream] = []

            async def accept() -> None:
                servers.append(await accept_websocket(far))

            nursery.start_soon(accept)
            protocol.send_request(protocol.connect())
            await near.send_all(b"".join(protocol.data_to_send()))
            protocol.receive_data(await near.receive_some())
        protocol.send_ping(b"there?")
        protocol.send_text(b"hello")
        await near.send_all(b"".join(protocol.data_to_send()))
        assert await servers[0].receive_some() == b""
        assert b"there?" in await near.receive_some()


@pytest.mark.parametrize(
    "words",
    [b"GET / HTTP/1.1\r\n\r\n", b"GET nonsense\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n", b"x" * 20_000],
)
async def test_what_is_no_upgrade_is_refused(words: bytes) -> None:
    near, far = trio.testing.memory_stream_pair()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await accept_websocket(far)
                await trio.aclose_forcefully(far)

            nursery.start_soon(accept)
            await near.send_all(words)
            await near.send_eof()
            async for _ in near:
                pass


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "ws:/a",
        "ws://",
        "ws://a:99999",
        "ws://u:p@a/",
        "ws://a/#f",
        "ws://" + "a" * 3000,
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match=r"not a ws://|more than a host"):
        WebSocketAddress.parse(url)


def test_addresses() -> None:
    assert WebSocketAddress.parse("wss://mesh.example.org/b?x=1") == WebSocketAddress(
        "wss://mesh.example.org/b?x=1", "mesh.example.org", 443, True
    )
    assert WebSocketAddress.parse("ws://[::1]:8080").port == 8080


async def test_swarms_connect_over_one_and_a_straight_way_goes_first() -> None:
    with trio.fail_after(30):
        async with open_party(SMALL) as left, open_party(LARGE) as right, open_party(THIRD) as far:
            url = f"ws://{LOOPBACK}:{right.port}/mesh"
            left.swarm.add_websocket(url, LARGE.public_key)
            await left.wait(lambda: len(left.open) == 1)
            await right.wait(lambda: len(right.open) == 1)
            (info,) = left.swarm.connections
            assert (info.reach, info.source, info.address) == (Reach.WEBSOCKET, Source.STATIC, url)
            (theirs,) = right.swarm.connections
            assert theirs.reach is Reach.WEBSOCKET

            far.swarm.add_websocket(url, LARGE.public_key)
            far.swarm.add_peer(LOOPBACK, right.port, LARGE.public_key)
            await far.wait(lambda: len(far.open) == 1)
            (info,) = far.swarm.connections
            assert info.reach is Reach.TCP
            far.swarm.remove_websocket(url)
            assert [peer.name for peer in far.swarm.peers] == [f"{LOOPBACK}:{right.port}"]


async def test_who_is_not_there_is_unreachable() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    with trio.fail_after(20), pytest.raises(PeerUnreachable, match=f"ws://{LOOPBACK}"):
        await dial_websocket(WebSocketAddress.parse(f"ws://{LOOPBACK}:{port}/"))


def make_certificate(path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For 127.0.0.1: what a server and a client that trusts it take."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, LOOPBACK)])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    path.write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_a_proxy_may_do_the_tls(tmp_path: Path) -> None:
    server_context, client_context = make_certificate(tmp_path / "both.pem")

    async def behind(stream: trio.SocketStream) -> None:
        websocket = await accept_websocket(
            trio.SSLStream(stream, server_context, server_side=True, https_compatible=True)
        )
        await websocket.send_all(await websocket.receive_some())
        await websocket.aclose()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=LOOPBACK)
            nursery.start_soon(trio.serve_listeners, behind, [listener])
            port = listener.socket.getsockname()[1]
            address = WebSocketAddress.parse(f"wss://{LOOPBACK}:{port}/mesh")
            stream = await dial_websocket(address, context=client_context)
            await stream.send_all(b"through TLS")
            assert await stream.receive_some() == b"through TLS"
            await stream.aclose()
            with pytest.raises(PeerUnreachable) as caught:
                await dial_websocket(address)
            assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
            nursery.cancel_scope.cancel()


async def test_it_is_a_stream_as_trio_wants_them() -> None:
    async def make() -> Streams:
        pair = trio.testing.memory_stream_pair()
        protocol = ClientProtocol(parse_uri("ws://example.org/"))
        client = WebSocketStream(pair[0], protocol)
        made: list[WebSocketStream] = []

        async def accept() -> None:
            made.append(await accept_websocket(pair[1]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(client.shake_hands)
        return client, made[0]

    clogged: Callable[[], Awaitable[Streams]] | None = None
    with trio.fail_after(30):
        await trio.testing.check_one_way_stream(make, clogged)


class CloggedStream(trio.abc.Stream):
    """Sends nothing while it `is_clogged`, and counts what is read."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.reads = 0
        self.unclogged = trio.Event()
        self.unclogged.set()
        self._inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.unclogged.wait()
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.unclogged.wait()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        received = await self._inner.receive_some(max_bytes)
        self.reads += 1
        return received

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_who_pings_and_takes_no_answer_is_read_no_further() -> None:
    """Found in review: what it is owed was kept without a bound."""
    wrapped: list[CloggedStream] = []

    def wrap(stream: trio.abc.Stream) -> trio.abc.Stream:
        wrapped.append(CloggedStream(stream))
        return wrapped[0]

    async with open_raw(wrap) as (near, server):
        [clogged] = wrapped
        clogged.unclogged = trio.Event()
        clogged.reads = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send_all, b"never taken")
            nursery.start_soon(server.receive_some)
            for _ in range(3 * MAX_UNANSWERED_PINGS):
                await near.send_all(Frame(Opcode.PING, b"?").serialize(mask=True))
                await trio.testing.wait_all_tasks_blocked()
            assert clogged.reads == MAX_UNANSWERED_PINGS + 1
            clogged.unclogged.set()
            await near.send_all(Frame(Opcode.BINARY, b"words").serialize(mask=True))


@pytest.mark.parametrize("opcode", [Opcode.BINARY, Opcode.CONT, Opcode.PONG, Opcode.PING])
async def test_frames_that_bring_nothing_end_it(opcode: Opcode) -> None:
    """Forty strangers with empty frames had a node stand still for 0.9 s, again and again."""
    frame = Frame(opcode, b"").serialize(mask=True)
    async with open_raw() as (near, server), trio.open_nursery() as nursery:
        if opcode is Opcode.CONT:
            await near.send_all(Frame(Opcode.BINARY, b"x", fin=False).serialize(mask=True))
            assert await server.receive_some() == b"x"
            frame = Frame(opcode, b"", fin=False).serialize(mask=True)
        nursery.start_soon(near.send_all, 100 * MAX_IDLE_FRAMES * frame)
        assert await server.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_others_have_their_turn_between_tiny_frames() -> None:
    frame = Frame(Opcode.BINARY, b"x").serialize(mask=True)
    count = RECEIVE_BYTES // len(frame)
    async with open_raw() as (near, server):
        await near.send_all(count * frame)
        await trio.testing.wait_all_tasks_blocked()
        async with counting_turns() as turns:
            assert await server.receive_some() == count * b"x"
            assert turns.count >= RECEIVE_BYTES // PIECE_BYTES - 1
