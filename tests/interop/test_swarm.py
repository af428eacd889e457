"""Secret stream and protomux against the JavaScript originals, over TCP, in both roles."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from hypercore.crypto import KeyPair
from hypercore.encoding import encode_string
from swarm import Channel, open_connection, open_mux

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
KEY_PAIR = KeyPair.from_seed(b"\x09" * 32)
JS_SERVER_KEY = KeyPair.from_seed(b"\x03" * 32).public_key
JS_CLIENT_KEY = KeyPair.from_seed(b"\x04" * 32).public_key
PROTOCOL = "beemesh/echo"
ID = b"\x07" * 32
COUNT = 10_000


@asynccontextmanager
async def open_js_server() -> AsyncIterator[int]:
    """The port of a JS peer that echoes."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                ["node", "mux_peer.js", "server"],
                cwd=HERE,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        assert process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            assert chunk, "the JS server did not start"
            line += chunk
        yield int(line)
        process.terminate()
        await process.wait()
        nursery.cancel_scope.cancel()


async def test_a_js_server_echoes_a_batch_of_ours_and_survives_keep_alives() -> None:
    with trio.fail_after(30):
        async with open_js_server() as port:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with (
                open_connection(stream, KEY_PAIR, is_initiator=True) as connection,
                open_mux(connection, accept=[PROTOCOL]) as mux,
            ):
                assert connection.link.remote_public_key == JS_SERVER_KEY
                channel = await mux.open_channel(PROTOCOL, ID, encode_string("from python"))
                assert channel.remote_handshake == encode_string("from js")
                expected = [(0, b"message %d" % i) for i in range(COUNT)]
                for message_type, payload in expected:
                    channel.send(message_type, payload)
                echoed: list[tuple[int, bytes]] = []
                while len(echoed) < COUNT:
                    echoed += await channel.receive()
                assert echoed == expected
                large = b"\x05" * 3_000_000
                channel.send(1, large)
                assert await channel.receive() == [(1, large)]
                channel.close()


async def test_a_js_client_gets_its_batch_echoed_and_is_rejected_on_unknown_protocols() -> None:
    async def echo(channel: Channel) -> None:
        while True:
            for message_type, payload in await channel.receive():
                channel.send(message_type, payload)

    async def serve(stream: trio.SocketStream) -> None:
        async with (
            open_connection(stream, KEY_PAIR, is_initiator=False) as connection,
            open_mux(connection, accept=[PROTOCOL]) as mux,
        ):
            assert connection.link.remote_public_key == JS_CLIENT_KEY
            async for remote_open in mux.remote_opens(PROTOCOL):
                assert remote_open.handshake == encode_string("from js")
                channel = await mux.open_channel(
                    remote_open.protocol, remote_open.id, encode_string("from python")
                )
                try:
                    await echo(channel)
                except trio.EndOfChannel:
                    channel.close()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            port = listener.socket.getsockname()[1]
            nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
            result = await trio.run_process(
                ["node", "mux_peer.js", "client", str(port), str(COUNT)],
                cwd=HERE,
                capture_stdout=True,
            )
            assert json.loads(result.stdout) == {
                "handshake": "from python",
                "messages": COUNT,
                "ordered": True,
                "large": True,
                "remote": KEY_PAIR.public_key.hex(),
                "rejected": True,
            }
            nursery.cancel_scope.cancel()
