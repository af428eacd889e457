"""`beemesh up` in a process of its own, for tests that start, kill and restart nodes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

INTEROP = Path(__file__).parent.parent / "interop"


class NodeProcess:
    """One node on one data directory; `options` are added to the command line."""

    def __init__(self, data: Path, *options: str, ws_port: int = 0) -> None:
        self._command = [
            *(sys.executable, "-m", "node", "up", "--json", "--data", str(data)),
            *("--ws", f"127.0.0.1:{ws_port}", "--mesh", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
            *("--discovery", "off", *options),
        ]
        self._process: trio.Process | None = None

    async def start(self) -> dict[str, Any]:
        """Start it and wait until it says that it is ready; what it says."""
        self._process = await trio.lowlevel.open_process(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):
            chunk = await self._process.stdout.receive_some(65536)
            if not chunk:
                raise RuntimeError(f"the node ended with {await self._process.wait()}")
            line += chunk
        ready: dict[str, Any] = json.loads(line.splitlines()[0])
        return ready

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return await self._process.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[dict[str, Any]]:
        """Started with the block, stopped in order at its end."""
        ready = await self.start()
        try:
            yield ready
        finally:
            with trio.CancelScope(shield=True):
                await self.stop()
