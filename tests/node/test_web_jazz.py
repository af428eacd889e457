from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from websockets.frames import Frame, Opcode

from node.web.jazz import MAX_CONTROL_BYTES, OUTBOX_BYTES, JazzLimits, JazzServer, JazzSocket
from tests.support.websocket_client import WebSocketClient, open_websocket


async def echo(client: JazzSocket) -> None:
    while (texts := await client.receive()) is not None:
        for text in texts.split("\n"):
            await client.send(text)


async def echo_in_a_nursery(client: JazzSocket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await echo(client)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_server(
    handler: Callable[[JazzSocket], Awaitable[None]] = echo, limits: JazzLimits | None = None
) -> AsyncIterator[tuple[JazzServer, int]]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = JazzServer(handler, limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners)
        with trio.fail_after(20):
            yield server, listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def http(port: int, request: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(request)
        answer = bytearray()
        async for chunk in stream:
            answer += chunk
        return bytes(answer)


async def test_health_and_other_requests() -> None:
    async with open_server() as (_, port):
        healthy = await http(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert healthy.startswith(b"HTTP/1.1 200 ")
        assert healthy.endswith(b"\r\n\r\nok")
        assert (await http(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 426 ")
        post = await http(port, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert post.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 4")) or post == b""
        assert await http(port, b"\x16\x03\x01 garbage\r\n\r\n") == b""
        async with open_websocket(port) as client:  # and it still serves
            await client.send("hello")
            assert await client.receive() == "hello"


@pytest.mark.parametrize(
    ("request_line", "body"),
    [
        (b"GET /health HTTP/1.0", b"ok"),
        (b"HEAD /health HTTP/1.1", b""),
        (b"HEAD /health?deep=1 HTTP/1.0", b""),
    ],
)
async def test_load_balancers_find_it_healthy(request_line: bytes, body: bytes) -> None:
    async with open_server() as (_, port):
        healthy = await http(port, request_line + b"\r\nConnection: close\r\n\r\n")
        assert healthy.startswith(b"HTTP/1.1 200 ")
        assert healthy.partition(b"\r\n\r\n")[2] == body
        assert (await http(port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 505 ")


async def test_a_probe_may_come_in_pieces() -> None:
    async with (
        open_server() as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        for piece in (b"GET /hea", b"lth HTTP/1.1\r\nHost: x\r\n", b"\r\n"):
            await stream.send_all(piece)
            await trio.sleep(0.05)
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_any_path_fragments_pings_and_binary_text() -> None:
    async with open_server() as (server, port), open_websocket(port, "/?key=me@x") as client:
        client.protocol.send_text(b"one \xe2", fin=False)
        client.protocol.send_ping(b"between")
        client.protocol.send_continuation(b"\x82\xac", fin=True)
        client.protocol.send_binary(b"two")
        client.protocol.send_binary(b"\xff\xfe")  # no text: dropped
        client.protocol.send_text(b"", fin=False)
        client.protocol.send_continuation(b"", fin=True)
        client.protocol.send_text(b"three")
        await client.flush()
        assert [await client.receive() for _ in range(4)] == ["one \u20ac", "two", "", "three"]
        statistics = server.statistics()
        assert (statistics.connections, statistics.messages_sent) == (1, 4)


async def test_many_messages_at_once_keep_their_order() -> None:
    async with open_server() as (_, port), open_websocket(port) as client:
        for index in range(1000):
            client.protocol.send_text(str(index).encode())
        await client.flush()
        assert [await client.receive() for _ in range(1000)] == [str(i) for i in range(1000)]


async def test_who_speaks_before_it_was_answered_is_heard() -> None:
    async with (
        open_server() as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        client = WebSocketClient(stream, f"ws://127.0.0.1:{port}/")
        client.protocol.send_request(client.protocol.connect())
        early = Frame(Opcode.TEXT, b"early").serialize(mask=True)
        await stream.send_all(b"".join(client.protocol.data_to_send()) + early[:7])
        assert (await client.response()).status_code == 101
        await stream.send_all(early[7:])
        await client.send("and late")
        assert [await client.receive() for _ in range(2)] == ["early", "and late"]


async def test_text_that_is_no_utf_8_closes_with_1007() -> None:
    async with open_server() as (_, port), open_websocket(port) as client:
        client.protocol.send_text(b"\xff")
        await client.flush()
        assert await client.wait_closed() == 1007


@pytest.mark.parametrize("pieces", [1, 4])
async def test_too_large_closes_with_1009_and_nobody_else(pieces: int) -> None:
    limits = JazzLimits(max_message_bytes=1000)
    async with open_server(limits=limits) as (_, port), open_websocket(port) as other:
        async with open_websocket(port) as client:
            client.protocol.send_text(b"x" * 400, fin=False) if pieces > 1 else None
            if pieces > 1:
                client.protocol.send_continuation(b"x" * 700, fin=True)
            else:
                client.protocol.send_text(b"x" * 1001)
            await client.flush()
            assert await client.wait_closed() == 1009
        await other.send("x" * 1000)
        assert await other.receive() == "x" * 1000


async def test_messages_before_a_violation_are_handed_over() -> None:
    seen: list[str | None] = []

    async def collect(client: JazzSocket) -> None:
        while (text := await client.receive()) is not None:
            seen.append(text)

    async with open_server(collect) as (_, port), open_websocket(port) as client:
        client.protocol.send_text(b"good")
        client.protocol.send_text(b"\xff")
        client.protocol.send_text(b"after")
        await client.flush()
        assert await client.wait_closed() == 1007
    assert seen == ["good"]


async def test_close_is_answered_and_ends_the_handler() -> None:
    async with open_server() as (server, port), open_websocket(port) as client:
        client.protocol.send_close(1000)
        await client.flush()
        assert await client.wait_closed() == 1000
        while server.statistics().connections:
            await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("body", [b"", b"\x03\xe8bye", b"\x03", b"\xff\xff"])
async def test_who_closes_with_the_request_ends_nobody_else(body: bytes) -> None:
    """The frame was read before the socket was open; what answered it ended the node."""
    frame = bytes((0x88, 0x80 | len(body), 0, 0, 0, 0)) + body
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with open_server() as (_, port):
        for rest in (
            b"\x80\x81\0\0\0\0a\x01\x81\0\0\0\0a",
            frame,
            frame + frame,
            b"\x01\x80\0\0\0\0" + frame,
            frame + b"\x89\x80\0\0\0\0",
        ):
            assert (await http(port, request + rest)).startswith(b"HTTP/1.1 101 ")
        async with open_websocket(port) as client:
            await client.send("hello")
            assert await client.receive() == "hello"


async def test_a_handler_that_returns_closes_with_1000() -> None:
    async def say_goodbye(client: JazzSocket) -> None:
        await client.send("bye")

    async with open_server(say_goodbye) as (_, port), open_websocket(port) as client:
        assert await client.receive() == "bye"
        assert await client.wait_closed() == 1000


async def test_shutdown_tells_clients_1001() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery, trio.open_nursery() as servers:
        await servers.start(JazzServer(echo_in_a_nursery).serve, listeners)
        async with open_websocket(port) as client:
            await client.send("x")
            await client.receive()
            servers.cancel_scope.cancel()
            nursery.start_soon(client.wait_closed)
            with trio.fail_after(20):
                await _wait_cancelled(servers, client)
    assert client.protocol.close_code == 1001


async def _wait_cancelled(servers: trio.Nursery, client: WebSocketClient) -> None:
    with trio.CancelScope(shield=True):
        while client.protocol.close_rcvd is None:
            await trio.lowlevel.checkpoint()


async def test_a_client_that_does_not_read_costs_one_buffer_and_no_one_else() -> None:
    progress: list[int] = []

    async def pour(client: JazzSocket) -> None:
        if client.remote in rude:
            for count in range(10_000):
                await client.send("x" * 10_000)
                progress.append(count)
        else:
            await echo(client)

    rude: set[str] = set()
    async with (
        open_server(pour) as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        rude.add(f"127.0.0.1:{stream.socket.getsockname()[1]}")
        client = WebSocketClient(stream, f"ws://127.0.0.1:{port}/")
        await client.connect()
        await trio.testing.wait_all_tasks_blocked(0.05)
        stuck_at = len(progress)
        assert 10_000 > stuck_at >= OUTBOX_BYTES // 10_000
        async with open_websocket(port) as other:
            await other.send("still here?")
            assert await other.receive() == "still here?"
        assert len(progress) == stuck_at
        for _ in range(2000):  # an honest slow one goes on
            await client.receive()
        assert len(progress) > stuck_at


async def test_pings_from_one_who_does_not_read_are_not_stored_for_ever() -> None:
    async def sleep(client: JazzSocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour, client)
            while await client.receive() is not None:
                pass
            nursery.cancel_scope.cancel()

    async def pour(client: JazzSocket) -> None:
        while True:
            await client.send("x" * 100_000)

    async with open_server(sleep) as (server, port), open_websocket(port) as client:
        await trio.testing.wait_all_tasks_blocked(0.05)
        for _ in range(MAX_CONTROL_BYTES // 100):
            client.protocol.send_ping(b"p" * 120)
        await client.flush()
        while server.statistics().connections:
            await trio.testing.wait_all_tasks_blocked(0.05)


async def test_what_is_sent_without_waiting_keeps_its_place() -> None:
    """At once where nothing waits, in a half-full pipe, behind what waits, and not without end."""
    sent: list[str] = []

    async def pour(client: JazzSocket) -> None:
        for number in range(400):
            text = f"{number}:" + "x" * (number * 997 % 30_000)
            client.send_soon(text)
            sent.append(text)
            if number % 3 == 0:
                await client.send(f"sent {number}")
                sent.append(f"sent {number}")
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
        sent.append("")
        await client.receive()

    async with open_server(pour) as (_, port), open_websocket(port) as client:
        await trio.testing.wait_all_tasks_blocked(0.05)  # until it waits for who does not read
        assert "" not in sent
        position = -1
        while position < 0 or sent[position] != "sent 399":
            text = await client.receive()
            assert text is not None
            position = sent.index(text, position + 1)  # in order; what there was no room for lacks


async def test_sending_to_one_who_left_raises() -> None:
    outcome: list[str] = []

    async def send_late(client: JazzSocket) -> None:
        assert await client.receive() is None
        client.send_soon("harmless")
        try:
            await client.send("too late")
        except trio.BrokenResourceError as error:
            outcome.append(str(error))

    async with open_server(send_late) as (_, port):
        async with open_websocket(port) as client:
            client.protocol.send_close(1000)
            await client.flush()
            await client.wait_closed()
        while not outcome:
            await trio.testing.wait_all_tasks_blocked()


async def test_limits_of_connections() -> None:
    limits = JazzLimits(max_connections=1)
    async with open_server(limits=limits) as (server, port), open_websocket(port):
        answer = await http(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert answer.endswith(b"too many connections\n")
        assert server.statistics().refused == 1


async def test_those_who_never_ask_leave_room_for_others() -> None:
    """They had the door for themselves, for as long as a request may take."""
    limits = JazzLimits(max_connections=4, handshake_seconds=3600)
    async with open_server(limits=limits) as (server, port), AsyncExitStack() as stack:
        for _ in range(6):
            silent = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", port))
            await silent.send_all(b"GET / HT")
        async with open_websocket(port) as client:
            await client.send("hello")
            assert await client.receive() == "hello"
        healthy = await http(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert healthy.startswith(b"HTTP/1.1 200 ")
        assert server.statistics().refused == 0


async def test_one_who_never_asks_is_dropped() -> None:
    limits = JazzLimits(handshake_seconds=0.05)
    async with open_server(limits=limits) as (server, port):
        assert await http(port, b"GET / HT") == b""
        assert server.statistics().accepted == 0


async def test_deflate_when_asked_for() -> None:
    request = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    async with (
        open_server(limits=JazzLimits(deflate=True)) as (_, port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(request)
        assert b"permessage-deflate" in await stream.receive_some(4096)
