"""A program that is spoken to by lines: text on its stdin, JSON on its stdout."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

STOP_SECONDS = 60.0


class LineProcess:
    """Made by `open_line_process`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._pending = b""

    async def write(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(line.encode() + b"\n")

    async def read(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            chunk = await self._process.stdout.receive_some(65536)
            assert chunk, f"{self._process.args!r} ended after {self._pending!r}"
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def open_line_process(command: Sequence[str], cwd: Path) -> AsyncIterator[LineProcess]:
    """Run it until the block ends; it leaves when its stdin does."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=cwd
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield LineProcess(process)
    finally:
        with trio.CancelScope(shield=True):
            await process.stdin.aclose()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()
