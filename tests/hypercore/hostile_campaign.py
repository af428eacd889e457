"""What is left of a good peer's throughput: `python -m tests.hypercore.hostile_campaign`.

A node serves a core over TCP, through the whole stack, in a process of its own. A good peer
downloads all of it, again and again, in turns by itself and while hostile peers of one kind do
their worst from a third process, which has the lowest priority: what they cost is to be the
node's time, not the machine's. Each line has the medians, the ratio of the paired runs, and the
share of the node's time that went to the hostile peers, which other jobs do not blur.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import open_corestore
from hypercore.crypto import KeyPair
from swarm import Connection, open_connection, open_mux, open_swarm
from tests.support.hostile_peers import KINDS, Address, attack
from tests.support.store_promises import SOURCE_KEYS

LENGTH = 15_000
LOOPBACK = "127.0.0.1"
MARK = 0.8
_PROJECT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 120


@dataclass
class Line:
    """One kind of hostile peer."""

    kind: str
    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    """Blocks a second."""
    cpu_alone: list[float] = field(default_factory=list)
    cpu_beside: list[float] = field(default_factory=list)
    """Seconds of the node's processor for one download."""

    @property
    def ratio(self) -> float:
        pairs = zip(self.alone, self.beside, strict=True)
        return statistics.median(beside / alone for alone, beside in pairs)

    @property
    def share(self) -> float:
        """Of the node's time, what the hostile peers took; other jobs do not blur it."""
        rows = zip(self.cpu_alone, self.cpu_beside, self.beside, strict=True)
        return statistics.median((beside - alone) * rate / LENGTH for alone, beside, rate in rows)

    def __str__(self) -> str:
        alone, beside = statistics.median(self.alone), statistics.median(self.beside)
        return (
            f"| {self.kind} | {alone:,.0f} /s | {beside:,.0f} /s | {self.ratio:.2f} "
            f"| {max(0.0, self.share):.0%} |"
        )


HEADING = """| hostile peers | alone | beside them | ratio | of the node's time |
|---|---:|---:|---:|---:|"""


async def serve() -> None:
    """The node; says where it is, and, for every line, how much processor time it has used."""
    async with open_corestore(None) as store:
        core = await store.get(key_pair=SOURCE_KEYS)
        await core.append([b"%d " % index * 20 for index in range(LENGTH)])

        async def handler(connection: Connection) -> None:
            async with open_mux(connection) as mux:
                await store.replicate(mux)

        key_pair = KeyPair.generate()
        async with open_swarm(key_pair, handler, listen=(LOOPBACK, 0), lan=False) as swarm:
            _say({"port": swarm.addresses[0][1], "key": core.key.hex()})
            stdin = trio.lowlevel.FdStream(os.dup(0))
            while await stdin.receive_some(1000):
                usage = resource.getrusage(resource.RUSAGE_SELF)
                _say({"cpu": usage.ru_utime + usage.ru_stime})


def _say(fields: dict[str, object]) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


async def be_hostile(kind: str, port: int, key: bytes, count: int) -> None:
    os.nice(19)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack, kind, (LOOPBACK, port), key, count)
        await trio.lowlevel.FdStream(os.dup(0)).receive_some(1)
        nursery.cancel_scope.cancel()


class Process:
    """One of the other two processes."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hypercore.hostile_campaign", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_PROJECT,
        )

    def read(self) -> dict[str, object]:
        assert self._process.stdout is not None
        fields: dict[str, object] = json.loads(self._process.stdout.readline())
        return fields

    def cpu_seconds(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        return float(str(self.read()["cpu"]))

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@asynccontextmanager
async def _process(*arguments: str) -> AsyncIterator[Process]:
    process = Process(*arguments)
    try:
        yield process
    finally:
        process.end()


async def download(address: Address, key: bytes, length: int) -> float:
    """Blocks a second of one good peer."""
    async with open_corestore(None) as store:
        core = await store.get(key=key)
        stream = await trio.open_tcp_stream(*address)
        async with (
            open_connection(stream, KeyPair.generate(), is_initiator=True) as connection,
            open_mux(connection) as mux,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(store.replicate, mux)
            start = time.perf_counter()
            with trio.fail_after(_PATIENCE_SECONDS):
                await core.wait_length(length)
                await core.download(0, length)
            seconds = time.perf_counter() - start
            nursery.cancel_scope.cancel()
    return length / seconds


async def measure(kind: str, count: int, rounds: int) -> Line:
    line = Line(kind)
    async with _process("--serve") as node:
        ready = node.read()
        port, key = int(str(ready["port"])), bytes.fromhex(str(ready["key"]))
        address = (LOOPBACK, port)
        for _ in range(rounds):
            cpu = node.cpu_seconds()
            line.alone.append(await download(address, key, LENGTH))
            line.cpu_alone.append(node.cpu_seconds() - cpu)
            async with _process("--hostile", kind, str(port), key.hex(), str(count)):
                await trio.sleep(1.0)  # until they are there and at work
                cpu = node.cpu_seconds()
                line.beside.append(await download(address, key, LENGTH))
                line.cpu_beside.append(node.cpu_seconds() - cpu)
    return line


async def campaign(kinds: list[str], count: int, rounds: int) -> list[Line]:
    lines = []
    for kind in kinds:
        lines.append(await measure(kind, count, rounds))
        sys.stdout.write(f"{lines[-1]}\n")
        sys.stdout.flush()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=list(KINDS), help="only this one")
    parser.add_argument("--peers", type=int, default=2, help="hostile ones at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--hostile", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve)
    elif options.hostile:
        kind, port, key, count = options.hostile
        trio.run(be_hostile, kind, int(port), bytes.fromhex(key), int(count))
    else:
        sys.stdout.write(f"{HEADING}\n")
        lines = trio.run(
            campaign, [options.kind] if options.kind else list(KINDS), options.peers, options.rounds
        )
        sys.exit(any(line.ratio < MARK for line in lines))


if __name__ == "__main__":
    main()
