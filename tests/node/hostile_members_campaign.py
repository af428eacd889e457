"""What a member that means no good leaves: `python -m tests.node.hostile_members_campaign`.

A node that keeps everything runs in a process of its own. A client uploads values, in turns by
itself and while a hostile member of one kind does its worst, which knows the secret of the mesh and
comes back whenever it is let in. It has the lowest priority: what it costs is to be the node's
time, not the machine's. Each line has the medians, the ratio of the paired runs, and how long it
took the node to send the member away, the first time, and why. The share of the node's time that
went to it is what other jobs on the machine do not blur.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from hypercore.crypto import KeyPair
from node.client import AdminAccess, AdminClient
from node.cojson.messages import Known, decode_frame, encode_message
from node.mesh.membership import Membership
from swarm.errors import SwarmError
from swarm.io.connection import open_connection
from swarm.io.mux import open_mux
from tests.node.mesh.authors import Author
from tests.node.node_process import NodeProcess
from tests.support.hostile_members import (
    ACCEPTED,
    KINDS,
    PATIENT,
    be_member,
    popular_contents,
    prepare,
)
from tests.support.websocket_client import WebSocketClient, open_websocket

MESH = "a mesh with a hostile member"
VALUES = 12_000
"""Enough for some ten seconds: a liar is there for the first few of them."""
MARK = 0.8
GONE_SECONDS = 5.0
_FRAME_LINES = 50
_LOOK_SECONDS = 0.25
_PATIENCE_SECONDS = 60
_ENDINGS = (SwarmError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass
class Line:
    """One kind of hostile member."""

    kind: str
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """Values a second."""
    cpu_alone: list[float] = field(default_factory=list)
    cpu_beside: list[float] = field(default_factory=list)
    """Seconds of the node's processor for one upload."""
    gone: list[float] = field(default_factory=list)
    """Seconds from its admission until it was sent away."""
    reason: str = ""

    @property
    def ratio(self) -> float:
        pairs = zip(self.alone, self.beside, strict=True)
        return statistics.median(beside / alone for alone, beside in pairs)

    @property
    def share(self) -> float:
        """Of the node's time, what the hostile member took."""
        rows = zip(self.cpu_alone, self.cpu_beside, strict=True)
        return statistics.median(1 - alone / beside for alone, beside in rows)

    @property
    def is_good(self) -> bool:
        is_dealt_with = self.kind in PATIENT or max(self.gone) <= GONE_SECONDS
        return self.ratio >= MARK and is_dealt_with

    def __str__(self) -> str:
        gone = f"{max(self.gone):.1f} s" if self.gone else "stays"
        return (
            f"| {self.kind} | {statistics.median(self.alone):,.0f} /s "
            f"| {statistics.median(self.beside):,.0f} /s | {self.ratio:.2f} "
            f"| {max(0.0, self.share):.0%} | {gone} | {self.reason or PATIENT[self.kind]} |"
        )


HEADING = (
    "| a member sends | alone | beside it | ratio | of the node's time | gone after | because |\n"
    "|---|---:|---:|---:|---:|---:|---|"
)


async def be_hostile(kind: str, host: str, port: int) -> None:
    """Say when we are admitted, each time; come back again and again."""
    os.nice(19)
    prepare(kind)
    keys = KeyPair.generate()
    while True:
        with suppress(trio.EndOfChannel):
            await _attack(kind, host, port, keys)
        await trio.sleep(_LOOK_SECONDS)


async def _attack(kind: str, host: str, port: int, keys: KeyPair) -> None:
    try:
        async with (
            open_connection(
                await trio.open_tcp_stream(host, port), keys, is_initiator=True
            ) as connection,
            open_mux(connection, accept=ACCEPTED) as mux,
        ):
            await be_member(mux, Membership.open_mesh(MESH), kind, lambda: _say_admitted(keys))
    except* _ENDINGS:
        pass


def _say_admitted(keys: KeyPair) -> None:
    os.write(1, json.dumps({"id": keys.public_key.hex()}).encode() + b"\n")


@asynccontextmanager
async def _hostile(kind: str, address: str) -> AsyncIterator[trio.Process]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.node.hostile_members_campaign", "--be", kind, address],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def make_frames(number: int) -> list[str]:
    """Ever other values, ready to be sent."""
    author = Author(number)
    lines = [encode_message(author.created(f"{number} {n}", "[]")) for n in range(VALUES)]
    starts = range(0, len(lines), _FRAME_LINES)
    return ["\n".join(lines[start : start + _FRAME_LINES]) for start in starts]


async def upload(client: WebSocketClient, frames: list[str]) -> float:
    """Values a second that a client gets acknowledged."""
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for frame in frames:
                await client.send(frame)

        nursery.start_soon(send)
        left = VALUES
        with trio.fail_after(_PATIENCE_SECONDS):
            while left > 0:
                text = await client.receive()
                assert text is not None, "the node sent its client away"
                left -= sum(isinstance(item, Known) for item in decode_frame(text).messages)
    return VALUES / (time.perf_counter() - started)


async def wait_gone(process: trio.Process, data: Path) -> tuple[float, str]:
    """How long after its admission the node sends it away, and why."""
    assert process.stdout is not None
    await process.stdout.receive_some(1000)
    started = time.perf_counter()
    client = AdminClient.find(data)
    assert client is not None
    with trio.fail_after(_PATIENCE_SECONDS):
        while True:
            status = await trio.to_thread.run_sync(client.status)
            penalties: Any = status["penalties"]
            if penalties:
                return time.perf_counter() - started, penalties[0]["reason"]
            await trio.sleep(_LOOK_SECONDS)


def cpu_seconds(data: Path) -> float:
    """Of the node that runs on this directory, so far."""
    access = AdminAccess.read(data)
    assert access is not None
    fields = Path(f"/proc/{access.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(kind: str, rounds: int) -> Line:
    line = Line(kind)
    with tempfile.TemporaryDirectory(prefix="beemesh-hostile-") as directory:
        data = Path(directory)
        node = NodeProcess(data, "--mesh-name", MESH, "--replicate", "all", "--log-level", "error")
        for number in range(rounds):
            async with node.running() as ready:
                port = int(ready["ws"].rpartition(":")[2])
                async with open_websocket(port) as client:
                    await client.send("\n".join(map(encode_message, popular_contents()[1])))
                    await upload(client, make_frames(4 * number))  # warm up
                    before = await _upload_alone(client, data, 4 * number + 1)
                    frames = make_frames(4 * number + 2)
                    async with _hostile(kind, ready["mesh"]) as process, trio.open_nursery() as n:

                        async def note(process: trio.Process = process) -> None:
                            seconds, line.reason = await wait_gone(process, data)
                            line.gone.append(seconds)

                        if kind not in PATIENT:
                            n.start_soon(note)
                        await _wait_admitted(data)
                        cpu = cpu_seconds(data)
                        line.beside.append(await upload(client, frames))
                        line.cpu_beside.append(cpu_seconds(data) - cpu)
                    # The more there is, the more each value costs: so before and after.
                    after = await _upload_alone(client, data, 4 * number + 3)
                    line.alone.append((before[0] + after[0]) / 2)
                    line.cpu_alone.append((before[1] + after[1]) / 2)
    return line


async def _upload_alone(client: WebSocketClient, data: Path, number: int) -> tuple[float, float]:
    """Values a second, and seconds of the node's processor."""
    frames = make_frames(number)
    cpu = cpu_seconds(data)
    rate = await upload(client, frames)
    return rate, cpu_seconds(data) - cpu


async def _wait_admitted(data: Path) -> None:
    """Until the hostile one is connected."""
    client = AdminClient.find(data)
    assert client is not None
    with trio.fail_after(_PATIENCE_SECONDS):
        while True:
            status = await trio.to_thread.run_sync(client.status)
            if status["peers"] or status["penalties"]:
                return
            await trio.sleep(_LOOK_SECONDS / 2)


async def campaign(kinds: list[str], rounds: int) -> list[Line]:
    lines = []
    for kind in kinds:
        lines.append(await measure(kind, rounds))
        sys.stdout.write(f"{lines[-1]}\n")
        sys.stdout.flush()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=list(KINDS), help="only this one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--be", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        kind, address = options.be
        host, _, port = address.rpartition(":")
        trio.run(be_hostile, kind, host, int(port))
    else:
        sys.stdout.write(f"{HEADING}\n")
        kinds = [options.kind] if options.kind else list(KINDS)
        lines = trio.run(campaign, kinds, options.rounds)
        sys.exit(not all(line.is_good for line in lines))


if __name__ == "__main__":
    main()
