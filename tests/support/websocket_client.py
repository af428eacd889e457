"""A WebSocket client over trio for tests: it can be as rude as a test needs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri


class WebSocketClient:
    """`protocol` builds any frame; `flush` sends what it built."""

    def __init__(self, stream: trio.SocketStream, url: str) -> None:
        self.stream = stream
        self.protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._events: list[object] = []

    async def connect(self) -> Response:
        self.protocol.send_request(self.protocol.connect())
        await self.flush()
        return await self.response()

    async def response(self) -> Response:
        """The answer to the request."""
        response = await self._event()
        assert isinstance(response, Response)
        return response

    async def send(self, text: str) -> None:
        self.protocol.send_text(text.encode())
        await self.flush()

    async def receive(self) -> str | None:
        """The next text; None when the server closed. Pongs and pings are skipped."""
        while (event := await self._event()) is not None:
            if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                return bytes(event.data).decode()
        return None

    async def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                await self.stream.send_all(data)

    async def wait_closed(self) -> int | None:
        """Read to the end; the close code."""
        while await self._event() is not None:
            pass
        return self.protocol.close_code

    async def _event(self) -> object:
        while not self._events:
            try:
                data = await self.stream.receive_some(65536)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self.protocol.receive_eof()
                return None
            self.protocol.receive_data(data)
            self._events += self.protocol.events_received()
            if self.protocol.close_rcvd is not None:
                await self.stream.aclose()
            else:
                await self.flush()
        return self._events.pop(0)


@asynccontextmanager
async def open_websocket(port: int, path: str = "/") -> AsyncIterator[WebSocketClient]:
    """Connect and upgrade."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        client = WebSocketClient(stream, f"ws://127.0.0.1:{port}{path}")
        response = await client.connect()
        assert response.status_code == 101
        yield client
