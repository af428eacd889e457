"""Who holds connections to the admin server without the token is in the way of nobody else."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from node.web.admin import MOST_UNKNOWN
from tests.node.test_web_admin import BEARER, FakeNode, ask, open_admin

HALF_A_REQUEST = b"GET /livez HTTP/1.1\r\nHost: "
WITH_TOKEN = "GET /nothing HTTP/1.1\r\nHost: {host}\r\nAuthorization: {Authorization}\r\n\r\n"


async def test_connections_without_the_token_are_few_and_end_none_that_has_shown_it(
    tmp_path: Path,
) -> None:
    async with open_admin(tmp_path, FakeNode()) as host, AsyncExitStack() as stack:

        async def connect(request: bytes) -> trio.SocketStream:
            name, _, port = host.rpartition(":")
            stream = await trio.open_tcp_stream(name, int(port))
            await stack.enter_async_context(stream)
            await stream.send_all(request)
            return stream

        request = WITH_TOKEN.format(host=host, **BEARER).encode()
        known = await connect(request)
        await _wait_answer(known)
        crowd = [await connect(HALF_A_REQUEST) for _ in range(MOST_UNKNOWN + 1)]
        assert (await ask(host, "/livez"))[0] == 200, "the newest is let in"
        assert await _is_closed(crowd[0]), "the oldest makes room"
        await known.send_all(request)
        await _wait_answer(known)


@pytest.mark.parametrize(
    "words",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)),
        b"GET /livez HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
    ],
    ids=["at once", "upgraded"],
)
async def test_http_2_is_not_spoken(tmp_path: Path, words: bytes) -> None:
    """Fifty connections without the token kept 200 MB, and the node busy for a minute."""
    async with open_admin(tmp_path, FakeNode()) as host:
        name, _, port = host.rpartition(":")
        async with await trio.open_tcp_stream(name, int(port)) as stream:
            await stream.send_all(words)
            while not await _is_closed(stream):
                pass
        assert (await ask(host, "/livez"))[0] == 200


async def _wait_answer(stream: trio.SocketStream) -> None:
    answer = b""
    while not answer.endswith(b"}"):
        chunk = await stream.receive_some()
        assert chunk, "a connection that has shown the token stays"
        answer += chunk
    assert b" 404 " in answer


async def _is_closed(stream: trio.SocketStream) -> bool:
    try:
        return not await stream.receive_some()
    except trio.BrokenResourceError:  # it had not read all that was sent
        return True
