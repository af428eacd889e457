"""`beemesh up` and a Jazz client as processes, for tests that need the real thing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node.client import AdminClient

INTEROP = Path(__file__).parent.parent / "interop"

START_SECONDS = 60.0
STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node in a process of its own; `ready` is what it said first."""

    process: trio.Process
    data: Path
    ready: dict[str, Any]

    @property
    def ws(self) -> str:
        return str(self.ready["ws"])

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        with trio.fail_after(STOP_SECONDS):
            return await self.process.wait()

    async def beemesh(self, *arguments: str) -> Beemesh:
        """Run a verb on this node's data directory."""
        return await run_beemesh(*arguments, "--data", str(self.data))


@dataclass(frozen=True, slots=True)
class Beemesh:
    """How a verb ended."""

    code: int
    out: str
    error: str

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def environment() -> dict[str, str]:
    """Ours, without settings that would reach the node."""
    return {key: value for key, value in os.environ.items() if not key.startswith("BEEMESH_")}


async def run_beemesh(*arguments: str) -> Beemesh:
    with trio.fail_after(START_SECONDS):
        done = await trio.run_process(
            [sys.executable, "-m", "node", *arguments],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environment(),
        )
    return Beemesh(done.returncode, done.stdout.decode(), done.stderr.decode())


@asynccontextmanager
async def open_running_node(data: Path, *options: str) -> AsyncIterator[RunningNode]:
    """Start a node on free ports, wait until it says that it is ready, stop it in the end."""
    defaults = dict.fromkeys(("--ws", "--mesh", "--admin"), "127.0.0.1:0")
    defaults["--discovery"] = "off"
    unsaid = [text for pair in defaults.items() if pair[0] not in options for text in pair]
    command = [sys.executable, "-m", "node", "up", "--json", "--data", str(data)]
    process = await trio.lowlevel.open_process(
        [*command, *unsaid, *options],
        stdout=subprocess.PIPE,
        env=environment(),
        # In the background of a shell, where the tests may run, it would be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        with trio.fail_after(START_SECONDS):
            ready = json.loads(await _read_line(process))
        yield RunningNode(process, data, ready)
    finally:
        await _end(process)


async def wait_members(*nodes: RunningNode) -> None:
    """Return when each node has admitted another; they can only be asked again and again."""
    for node in nodes:
        client = AdminClient.find(node.data)
        assert client is not None
        while not any(peer["is_member"] for peer in await trio.to_thread.run_sync(client.peers)):  # noqa: ASYNC110 - another process
            await trio.sleep(0.02)


class JazzClient:
    """A JavaScript client, by `jazz_client.mjs` or `storing_client.mjs`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def do(self, action: str, **arguments: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        command = json.dumps({"do": action, **arguments}) + "\n"
        await self._process.stdin.send_all(command.encode())
        answer: dict[str, Any] = json.loads(await _read_line(self._process))
        assert "error" not in answer, answer
        return answer


@asynccontextmanager
async def open_jazz_client(url: str, file: Path | None = None) -> AsyncIterator[JazzClient]:
    """With a `file` it is one that keeps its values there, and is the same one with the same file.

    The commands of the two differ.
    """
    program = ["jazz_client.mjs", url] if file is None else ["storing_client.mjs", url, str(file)]
    process = await trio.lowlevel.open_process(
        ["node", *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=INTEROP,
    )
    try:
        yield JazzClient(process)
    finally:
        process.kill()
        await _end(process)


async def _read_line(process: trio.Process) -> bytes:
    """One line; what follows it is not lost, since neither program speaks unasked."""
    assert process.stdout is not None
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some(65536)
        if not chunk:
            raise AssertionError(f"{process.args!r} ended after {bytes(line)!r}")
        line += chunk
    return bytes(line)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()
            with trio.move_on_after(STOP_SECONDS):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()


async def run_claims(script: str, *arguments: str) -> str:
    """Run a client script that prints a line for each claim: those that are not true, and the sum.

    The sum is its last line, and what it says when it breaks off is in there, too.
    """
    with trio.fail_after(300):
        result = await trio.run_process(
            ["node", script, *arguments],
            cwd=INTEROP,
            capture_stdout=True,
            check=False,
            stderr=subprocess.STDOUT,
        )
    lines = result.stdout.decode().splitlines()
    return "\n".join([line for line in lines if not line.startswith("ok ")])
