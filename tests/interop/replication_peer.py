"""Driving `replication_peer.cjs`, and the TCP ends of our own store."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import trio

from hypercore.corestore import Corestore
from hypercore.crypto import KeyPair
from swarm.io.connection import open_connection
from swarm.io.mux import MuxHandle, open_mux

HERE = Path(__file__).parent


class JavaScriptPeer:
    """A corestore in another process. `await peer("open", id="a", name="x")` runs a command."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self._is_over = False

    async def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        line = json.dumps({"number": number, "command": command, **arguments}) + "\n"
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode())
        asked = trio.current_time()
        while number not in self._answers:
            assert not self._is_over, f"the process ended before it had answered {command}"
            try:
                await self._arrived.wait()
            except trio.Cancelled:
                seconds = trio.current_time() - asked
                sys.stderr.write(f"{command} had no answer for {seconds:.1f} s: {arguments}\n")
                raise
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return answer

    async def read(self) -> None:
        assert self._process.stdout is not None
        buffered = b""
        async for chunk in self._process.stdout:
            *lines, buffered = (buffered + bytes(chunk)).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self._answers[answer["number"]] = answer
            self._arrived.set()
            self._arrived = trio.Event()
        self._is_over = True
        self._arrived.set()


@asynccontextmanager
async def open_javascript_peer(
    script: str = "replication_peer.cjs",
) -> AsyncIterator[JavaScriptPeer]:
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                ["node", script],
                cwd=HERE,
                stdin=PIPE,
                stdout=PIPE,
                check=False,
            )
        )
        peer = JavaScriptPeer(process)
        nursery.start_soon(peer.read)
        yield peer
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(10):
            await process.wait()
        nursery.cancel_scope.cancel()


Handler = Callable[[MuxHandle], Awaitable[None]]


async def run_connection(stream: trio.abc.Stream, handler: Handler, *, is_initiator: bool) -> None:
    async with (
        open_connection(stream, KeyPair.generate(), is_initiator=is_initiator) as connection,
        open_mux(connection, accept=["hypercore/alpha"]) as mux,
    ):
        await handler(mux)


async def dial(port: int, handler: Handler) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    await run_connection(stream, handler, is_initiator=True)


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """Serve whoever dials; the port."""

    async def serve(stream: trio.SocketStream) -> None:
        await run_connection(stream, handler, is_initiator=False)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(
    store: Corestore, peer: JavaScriptPeer, *, is_initiator: bool
) -> AsyncIterator[None]:
    """Our store and JavaScript's on one connection; `is_initiator`: we dial."""
    async with trio.open_nursery() as nursery:
        if is_initiator:
            nursery.start_soon(dial, (await peer("listen"))["port"], store.replicate)
            yield
        else:
            async with listening(store.replicate) as port:
                await peer("connect", port=port)
                yield
        nursery.cancel_scope.cancel()


def block(index: int, size: int) -> bytes:
    """What `fill` appends."""
    label = f"block {index} ".encode()
    return (label + bytes([index & 255]) * size)[: max(size, len(label))][:size]
