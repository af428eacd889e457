"""Servers in processes of their own, spoken to by lines on stdin and stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import trio

JS = Path(__file__).parent / "js"
ROOT = Path(__file__).resolve().parent.parent.parent
_ECHOES = 9
PYTHON_SERVER = f"{sys.executable} -m tests.bench.serve"


class LineProcess:
    """A child that prints one JSON object a line and leaves when its stdin ends."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""
        self.info: dict[str, Any] = {}

    async def read(self, key: str) -> dict[str, Any]:
        """The next line that is an object with `key`."""
        assert self._process.stdout is not None
        while True:
            line, newline, rest = self._pending.partition(b"\n")
            if not newline:
                chunk = await self._process.stdout.receive_some(65536)
                if not chunk:
                    raise RuntimeError(f"{self._process.args!r} ended before it printed {key!r}")
                self._pending += chunk
                continue
            self._pending = rest
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and key in value:
                return value

    async def say(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def stats(self) -> dict[str, Any]:
        await self.say("stats")
        return await self.read("stats")


@asynccontextmanager
async def spawn(command: Sequence[str]) -> AsyncIterator[LineProcess]:
    """Start a server and wait for its first line; ended with the block."""
    cwd = JS if command[0] == "node" else ROOT
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd
    )
    child = LineProcess(process)
    try:
        child.info = await child.read("ready")
        yield child
    finally:
        with trio.CancelScope(shield=True):
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.move_on_after(20) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()


@asynccontextmanager
async def delayed(port: int, one_way_ms: float) -> AsyncIterator[int]:
    """The same server `one_way_ms` away; the port to dial."""
    if not one_way_ms:
        yield port
        return
    command = ["node", "proxy.js", "--target", str(port), "--delay", str(one_way_ms)]
    async with spawn(command) as proxy:
        yield proxy.info["port"]


async def line_seconds(one_way_ms: float) -> float:
    """What an echo of one byte takes over a line so long: the line's part of a round trip."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, _echo, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        port: int = listeners[0].socket.getsockname()[1]
        async with (
            delayed(port, one_way_ms) as far,
            await trio.open_tcp_stream("127.0.0.1", far) as stream,
        ):
            times = [await _echoed(stream) for _ in range(_ECHOES)]
        nursery.cancel_scope.cancel()
    return median(times)


async def _echoed(stream: trio.SocketStream) -> float:
    started = trio.current_time()
    await stream.send_all(b"?")
    await stream.receive_some(1)
    return trio.current_time() - started


async def _echo(stream: trio.SocketStream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)
