"""The JavaScript end of a UDX stream, and a link between the two ends that loses packets."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

HERE = Path(__file__).parent


class JsPeer:
    """`udx_peer.cjs`: commands in, events out."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._events: list[dict[str, Any]] = []
        self._arrived = trio.Event()
        self._writing = trio.Lock()
        self._numbers = itertools.count()
        self.ports: list[int] = []

    async def do(self, command: str, **arguments: object) -> None:
        """Return when it was begun."""
        assert self._process.stdin is not None
        number = next(self._numbers)
        line = json.dumps({"do": command, "number": number, **arguments})
        async with self._writing:
            await self._process.stdin.send_all(line.encode() + b"\n")
        await self.wait("done", number=number)

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """The next event of this kind with these fields; others stay for later."""
        wanted = {"event": event, **fields}
        while True:
            for index, candidate in enumerate(self._events):
                if wanted.items() <= candidate.items():
                    return self._events.pop(index)
            await self._arrived.wait()

    async def statistics(self, stream_id: int) -> dict[str, Any]:
        await self.do("statistics", id=stream_id)
        return await self.wait("statistics", id=stream_id)

    async def read_events(self) -> None:
        assert self._process.stdout is not None
        pending = b""
        async for chunk in self._process.stdout:
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            self._events += map(json.loads, lines)
            self._arrived.set()
            self._arrived = trio.Event()


@asynccontextmanager
async def open_js_peer() -> AsyncIterator[JsPeer]:
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                ["node", "udx_peer.cjs"],
                cwd=HERE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                check=False,
            )
        )
        peer = JsPeer(process)
        nursery.start_soon(peer.read_events)
        peer.ports = (await peer.wait("ready"))["ports"]
        try:
            yield peer
        finally:
            with trio.CancelScope(shield=True):
                process.kill()
                await process.wait()
            nursery.cancel_scope.cancel()


class LossyProxy:
    """Two UDP ports: what comes to one leaves from the other, except what is lost.

    Point the ends of a stream at `left` and `right`; what it lets through is decided by a seed,
    which is printed.
    """

    def __init__(self, loss: float, seed: int) -> None:
        self.dropped = 0
        self._loss = loss
        self._random = random.Random(seed)
        sys.stdout.write(f"loss {loss}, seed {seed}\n")
        self._sockets = [trio.socket.socket(type=trio.socket.SOCK_DGRAM) for _ in range(2)]
        self._peers: list[tuple[str, int] | None] = [None, None]

    async def bind(self) -> None:
        for sock in self._sockets:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 2**22)
            await sock.bind(("127.0.0.1", 0))

    @property
    def left(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    @property
    def right(self) -> int:
        return int(self._sockets[1].getsockname()[1])

    def attach(self, side: int, port: int) -> None:
        self._peers[side] = ("127.0.0.1", port)

    async def forward(self, side: int) -> None:
        here, there = self._sockets[side], self._sockets[1 - side]
        while True:
            data, source = await here.recvfrom(2**16)
            self._peers[side] = source
            target = self._peers[1 - side]
            if self._random.random() < self._loss:
                self.dropped += 1
            elif target is not None:
                await there.sendto(data, target)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


@asynccontextmanager
async def open_lossy_proxy(loss: float, seed: int) -> AsyncIterator[LossyProxy]:
    proxy = LossyProxy(loss, seed)
    await proxy.bind()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.forward, 0)
        nursery.start_soon(proxy.forward, 1)
        try:
            yield proxy
        finally:
            nursery.cancel_scope.cancel()
            proxy.close()


def pattern(seed: str, size: int) -> bytes:
    """The bytes that `udx_peer.cjs` writes for this seed."""
    block = seed.encode()
    blocks: list[bytes] = []
    for _ in range(-(-size // 32)):
        block = hashlib.sha256(block).digest()
        blocks.append(block)
    return b"".join(blocks)[:size]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
