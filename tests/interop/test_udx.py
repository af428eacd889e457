"""UDX against udx-native, both ways, over links that lose packets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from hypercore.crypto import KeyPair
from swarm import open_connection
from swarm.io.udp import UdxEndpoint, open_udx_endpoint
from swarm.io.udx_relay import RelayEnd
from swarm.io.udx_transport import UdxTransport
from tests.interop.udx_js import (
    JsPeer,
    LossyProxy,
    digest,
    open_js_peer,
    open_lossy_proxy,
    pattern,
)

pytestmark = pytest.mark.interop

HOST = "127.0.0.1"
OURS, THEIRS = 9, 7
JS_KEY = KeyPair.from_seed(b"\x03" * 32)
KEY = KeyPair.from_seed(b"\x09" * 32)


@asynccontextmanager
async def open_pair(
    loss: float = 0, seed: int = 1, *, first_seq: int = 0, js_first_seq: int = 0
) -> AsyncIterator[tuple[UdxTransport, JsPeer, UdxEndpoint, LossyProxy]]:
    """A stream between us and JavaScript, through a proxy."""
    with trio.fail_after(180):
        async with (
            open_js_peer() as js,
            open_lossy_proxy(loss, seed) as proxy,
            open_udx_endpoint(HOST) as endpoint,
        ):
            proxy.attach(0, endpoint.address[1])
            proxy.attach(1, js.ports[0])
            await js.do("open", id=THEIRS, seq=js_first_seq)
            await js.do("connect", id=THEIRS, remote=OURS, port=proxy.right, ack=first_seq)
            stream = endpoint.open_stream(OURS, first_seq=first_seq)
            stream.connect(THEIRS, (HOST, proxy.left), first_ack=js_first_seq)
            yield stream, js, endpoint, proxy


async def read_all(stream: UdxTransport) -> bytes:
    chunks: list[bytes] = []
    while chunk := await stream.receive_some():
        chunks.append(chunk)
    return b"".join(chunks)


@pytest.mark.parametrize("loss", [0, 0.01, 0.02, 0.1])
async def test_bytes_arrive_at_javascript(loss: float) -> None:
    data = pattern("ours", 3_000_000)
    async with open_pair(loss, seed=21) as (stream, js, _, proxy):
        await js.do("endWithRemote", id=THEIRS)
        await stream.send_all(data)
        await stream.send_eof()
        end = await js.wait("end")
        assert (end["received"], end["hash"]) == (len(data), digest(data))
        assert await stream.receive_some() == b""
        await js.wait("close", id=THEIRS)
        assert stream.statistics().mtu > 1200
        if loss:
            assert stream.statistics().retransmissions > 0 < proxy.dropped


@pytest.mark.parametrize("loss", [0, 0.01, 0.02, 0.1])
async def test_bytes_arrive_from_javascript(loss: float) -> None:
    async with open_pair(loss, seed=22) as (stream, js, _, _):
        await stream.send_all(b"here I am")
        await js.do("write", id=THEIRS, seed="theirs", bytes=3_000_000)
        assert await read_all(stream) == pattern("theirs", 3_000_000)
        await stream.send_eof()
        assert (await js.wait("end"))["received"] == len(b"here I am")
        await js.wait("close", id=THEIRS)


async def test_either_end_may_end_first_and_the_other_goes_on() -> None:
    async with open_pair() as (stream, js, _, _):
        await stream.send_all(b"question")
        await stream.send_eof()
        assert (await js.wait("end"))["received"] == len(b"question")
        await js.do("write", id=THEIRS, seed="answer", bytes=500_000)
        assert digest(await read_all(stream)) == digest(pattern("answer", 500_000))
        await js.wait("close", id=THEIRS)
    async with open_pair() as (stream, js, _, _):
        await js.do("write", id=THEIRS, seed="question", bytes=10)
        assert await read_all(stream) == pattern("question", 10)
        answer = pattern("answer", 500_000)
        await stream.send_all(answer)
        await stream.send_eof()
        assert (await js.wait("end"))["hash"] == digest(answer)
        await js.wait("close", id=THEIRS)


async def test_what_was_sent_before_a_hang_up_is_delivered() -> None:
    data = pattern("last words", 1_000_000)
    async with open_pair(0.02, seed=23) as (stream, js, _, _):
        await js.do("endWithRemote", id=THEIRS)
        await stream.send_all(data)
        await stream.aclose()
        assert (await js.wait("end"))["hash"] == digest(data)
        await js.wait("close", id=THEIRS)


async def test_javascript_learns_that_we_destroyed_a_stream() -> None:
    async with open_pair() as (stream, js, _, _):
        await stream.send_all(b"something")
        stream.destroy()
        assert (await js.wait("error"))["code"] == "ECONNRESET"
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_a_stream_that_javascript_destroyed_is_broken() -> None:
    async with open_pair() as (stream, js, endpoint, _):
        await js.do("destroy", id=THEIRS)
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await stream.send_all(b"nobody there")
        assert endpoint.statistics().streams == 0


async def test_messages_both_ways_and_the_stream_goes_on() -> None:
    async with open_pair() as (stream, js, _, _):
        largest = bytes(range(256)) * 4
        for data in (b"", b"unordered", largest):
            stream.send_message(data)
            assert (await js.wait("message"))["data"] == data.hex()
            await js.do("message", id=THEIRS, data=data.hex())
            assert await stream.receive_message() == data
        await js.do("echo", id=THEIRS)
        await stream.send_all(b"ordered")
        assert await stream.receive_some() == b"ordered"


async def test_many_streams_on_one_socket_with_loss() -> None:
    count, size = 16, 200_000
    with trio.fail_after(180):
        async with (
            open_js_peer() as js,
            open_lossy_proxy(0.02, 24) as proxy,
            open_udx_endpoint(HOST) as endpoint,
            trio.open_nursery() as nursery,
        ):
            proxy.attach(0, endpoint.address[1])
            proxy.attach(1, js.ports[0])

            async def transfer(number: int) -> None:
                ours, theirs = 100 + number, 200 + number
                stream = endpoint.open_stream(ours)
                stream.connect(theirs, (HOST, proxy.left))
                data = pattern(f"ours {number}", size)
                await stream.send_all(data)
                await stream.send_eof()
                assert await read_all(stream) == pattern(f"theirs {number}", size)
                assert (await js.wait("end", id=theirs))["hash"] == digest(data)

            for number in range(count):
                await js.do("open", id=200 + number)
                await js.do("connect", id=200 + number, remote=100 + number, port=proxy.right)
                await js.do("write", id=200 + number, seed=f"theirs {number}", bytes=size)
                nursery.start_soon(transfer, number)


async def test_numbers_that_wrap_around() -> None:
    async with open_pair(first_seq=2**32 - 5, js_first_seq=2**32 - 7) as (stream, js, _, _):
        data = pattern("ours", 100_000)
        await js.do("write", id=THEIRS, seed="theirs", bytes=100_000)
        await stream.send_all(data)
        await stream.send_eof()
        assert await read_all(stream) == pattern("theirs", 100_000)
        assert (await js.wait("end"))["hash"] == digest(data)
        await js.wait("close", id=THEIRS)


async def test_javascript_stops_at_a_reader_that_does_not_read() -> None:
    async with open_pair() as (stream, js, _, _):
        await stream.send_all(b"here I am")
        await js.do("write", id=THEIRS, seed="theirs", bytes=8_000_000)
        while stream.statistics().buffered_bytes < 3.9 * 2**20:
            await js.statistics(THEIRS)
        for _ in range(100):  # it has every opportunity to send more
            await js.statistics(THEIRS)
        assert stream.statistics().buffered_bytes < 5 * 2**20
        assert stream.statistics().packets_dropped == 0
        assert await read_all(stream) == pattern("theirs", 8_000_000)


async def test_whoever_speaks_first_tells_where_it_is() -> None:
    with trio.fail_after(30):
        async with open_js_peer() as js, open_udx_endpoint(HOST) as endpoint:
            await js.do("open", id=THEIRS)
            await js.do("connect", id=THEIRS, remote=OURS, port=endpoint.address[1])
            await js.do("echo", id=THEIRS)
            stream = endpoint.open_stream(OURS, is_contactable=True)
            await js.do("message", id=THEIRS, data="00")
            contacted, address = await stream.wait_contact()
            assert (contacted, address) == (endpoint, (HOST, js.ports[0]))
            stream.connect(THEIRS, address)
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"

            await js.do("open", id=THEIRS + 1, contactable=True)
            stream = endpoint.open_stream(OURS + 1)
            stream.connect(THEIRS + 1, (HOST, js.ports[0]))
            await stream.send_all(b"early")
            contact = await js.wait("contact")
            assert contact["port"] == endpoint.address[1]
            await js.do("connect", id=THEIRS + 1, remote=OURS + 1, port=contact["port"])
            await js.do("end", id=THEIRS + 1)
            assert await stream.receive_some() == b""
            await stream.send_eof()
            assert (await js.wait("end"))["received"] == len(b"early")


async def test_both_ends_move_to_other_sockets_while_bytes_flow() -> None:
    size = 2_000_000
    async with (
        open_pair() as (stream, js, endpoint, _),
        open_udx_endpoint(HOST, sharing=endpoint) as second,
    ):
        await js.do("write", id=THEIRS, seed="theirs", bytes=size, end=False)
        data = pattern("ours", size)
        received: list[bytes] = []

        async def read() -> None:
            while sum(map(len, received)) < size:
                received.append(await stream.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await stream.send_all(data[: size // 2])
            await stream.change_remote(THEIRS, (HOST, js.ports[1]), through=second)
            await js.do("change", id=THEIRS, remote=OURS, port=second.address[1], socket=1)
            await js.wait("changed")
            await stream.send_all(data[size // 2 :])
            await stream.send_eof()
        assert b"".join(received) == pattern("theirs", size)
        assert (await js.wait("end"))["hash"] == digest(data)
        assert stream.remote_address == f"{HOST}:{js.ports[1]}"
        assert second.statistics().datagrams_sent > 0


async def test_a_stream_through_a_relay_of_javascript() -> None:
    with trio.fail_after(30):
        async with (
            open_js_peer() as js,
            open_udx_endpoint(HOST) as left,
            open_udx_endpoint(HOST) as right,
        ):
            for number, endpoint in ((1, left), (2, right)):
                await js.do("open", id=number)
                await js.do("connect", id=number, remote=10 + number, port=endpoint.address[1])
            await js.do("relay", id=1, to=2)
            ours, theirs = left.open_stream(11), right.open_stream(12)
            ours.connect(1, (HOST, js.ports[0]))
            theirs.connect(2, (HOST, js.ports[0]))
            data = pattern("relayed", 300_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send_all, data)
                received = b""
                while len(received) < len(data):
                    received += await theirs.receive_some()
            assert received == data
            # Now without the relay, which is not needed any more.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.change_remote, 12, right.address)
                nursery.start_soon(theirs.change_remote, 11, left.address)
            await ours.send_all(b"direct")
            assert await theirs.receive_some() == b"direct"


async def test_two_streams_of_javascript_through_a_relay_of_ours() -> None:
    with trio.fail_after(30):
        async with open_js_peer() as js, open_udx_endpoint(HOST) as middle:
            ends = [(HOST, port) for port in js.ports]
            relay = middle.open_relay(RelayEnd(1, 11, ends[0]), RelayEnd(2, 12, ends[1]))
            for number in (1, 2):
                await js.do("open", id=10 + number)
                port = middle.address[1]
                await js.do("connect", id=10 + number, remote=number, port=port, socket=number - 1)
            await js.do("write", id=11, seed="relayed", bytes=300_000, end=False)
            while (await js.statistics(12))["received"] < 300_000:
                pass
            for number, port in ((1, js.ports[1]), (2, js.ports[0])):
                arguments = {"remote": 13 - number, "port": port, "socket": number - 1}
                await js.do("change", id=10 + number, **arguments)
            await js.wait("changed", id=11)
            await js.wait("changed", id=12)
            relay.close()
            await js.do("write", id=11, seed="direct", bytes=100_000)
            end = await js.wait("end", id=12)
            assert end["received"] == 400_000
            assert end["hash"] == digest(pattern("relayed", 300_000) + pattern("direct", 100_000))
            assert 300_000 < relay.statistics().bytes < 400_000


@pytest.mark.parametrize("is_initiator", [True, False])
async def test_an_encrypted_connection_over_a_stream(is_initiator: bool) -> None:
    async with open_pair(0.01, seed=25) as (stream, js, _, _):
        await js.do("secret", id=THEIRS, initiator=not is_initiator, seed=3)
        async with open_connection(stream, KEY, is_initiator=is_initiator) as connection:
            assert connection.link.remote_public_key == JS_KEY.public_key
            assert (await js.wait("open"))["remote"] == KEY.public_key.hex()
            messages = [b"message %d" % i for i in range(1000)] + [pattern("large", 1_000_000)]
            echoed: list[bytes] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.send, messages)
                while len(echoed) < len(messages):
                    echoed += await connection.receive()
            assert echoed == messages
        await js.wait("secret close")
