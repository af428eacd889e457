"""Nodes that are copies of one process: all is imported already, a start takes 0.2 s of work
instead of 2. For campaigns that kill thousands of them.

`python -m tests.node.node_nest` takes a JSON line for each wish: `{"start": [arguments], "out":
path}` forks a node whose standard output is that FIFO and answers its process id; `{"wait": pid}`
answers how it ended. It ends with its standard input, and its nodes with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio


class NestedNode:
    """One node on one data directory; started and stopped again and again."""

    def __init__(self, nest: Nest, data: Path, *options: str, ws_port: int = 0) -> None:
        self._nest = nest
        self._arguments = [
            *("up", "--json", "--data", str(data)),
            *("--ws", f"127.0.0.1:{ws_port}", "--mesh", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
            *("--discovery", "off", "--log-level", "warning", *options),
        ]
        self._pid = 0

    async def start(self) -> dict[str, Any]:
        """Start it and wait until it says that it is ready; what it says."""
        self._pid, line = await self._nest.start(self._arguments)
        ready: dict[str, Any] = json.loads(line)
        return ready

    async def start_and_stop(self) -> dict[str, Any]:
        """As `start`, and end it in order: to learn a port that is free."""
        ready = await self.start()
        await self.stop()
        return ready

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code, negative for a signal."""
        os.kill(self._pid, number)
        return await self._nest.wait(self._pid)


class Nest:
    """Open it with `open_nest`; one task at a time."""

    def __init__(self, process: trio.Process, directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._starts = 0

    async def start(self, arguments: list[str]) -> tuple[int, bytes]:
        """(process id, first line of output) of a node with these arguments."""
        self._starts += 1
        path = self._directory / str(self._starts)
        os.mkfifo(path)
        # Open for reading before the node writes, and it does not wait for us.
        async with trio.lowlevel.FdStream(os.open(path, os.O_RDWR | os.O_NONBLOCK)) as output:
            answer = await self._ask({"start": arguments, "out": str(path)})
            line = b""
            with trio.fail_after(120):
                while not line.endswith(b"\n"):
                    line += await output.receive_some(65536)
        path.unlink()
        return answer["pid"], line.splitlines()[0]

    async def wait(self, pid: int) -> int:
        code: int = (await self._ask({"wait": pid}))["code"]
        return code

    async def _ask(self, wish: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(json.dumps(wish).encode() + b"\n")
        line = b""
        while not line.endswith(b"\n"):
            chunk = await self._process.stdout.receive_some(65536)
            assert chunk, "the nest has ended"
            line += chunk
        answer: dict[str, Any] = json.loads(line)
        return answer


@asynccontextmanager
async def open_nest() -> AsyncIterator[Nest]:
    with tempfile.TemporaryDirectory(prefix="beemesh-nest-") as directory:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.node.node_nest"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield Nest(process, Path(directory))
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def _serve() -> None:
    from node.cli.app import main
    from node.cli.foreground import run_node

    assert callable(run_node)  # what `up` imports when it is called
    for line in sys.stdin:
        wish = json.loads(line)
        if "wait" in wish:
            _, status = os.waitpid(wish["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                _become_node(wish["out"])
                os._exit(main(wish["start"]))
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _become_node(out: str) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(out, os.O_WRONLY), 1)


if __name__ == "__main__":
    _serve()
