"""Processes that are peers of ours: commands on their stdin, answers on their stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any, TypeVar

import trio

from swarm.io.tasks import open_background_nursery

STOP_SECONDS = 30.0


class PeerProcess:
    """`await peer("open", id="a", name="x")` runs a command; the process knows which there are."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._number = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self._is_over = False

    @property
    def exit_code(self) -> int | None:
        """None until it has ended."""
        return self._process.returncode

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


Peer = TypeVar("Peer", bound=PeerProcess)


@asynccontextmanager
async def open_process(arguments: Sequence[str], folder: Path) -> AsyncIterator[trio.Process]:
    """Ends when its input does, or is killed half a minute later."""
    async with open_background_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(trio.run_process, arguments, cwd=folder, stdin=PIPE, stdout=PIPE, check=False)
        )
        try:
            yield process
        finally:
            assert process.stdin is not None
            with trio.move_on_after(STOP_SECONDS, shield=True):
                await process.stdin.aclose()
                await process.wait()


@asynccontextmanager
async def open_peer_process(
    kind: type[Peer], arguments: Sequence[str], folder: Path
) -> AsyncIterator[Peer]:
    async with open_background_nursery() as nursery, open_process(arguments, folder) as process:
        peer = kind(process)
        nursery.start_soon(peer.read)
        yield peer
