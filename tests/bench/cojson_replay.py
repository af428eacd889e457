"""A sync server's own speed: the words of a real cojson client, replayed faster than it speaks.

`python -m tests.bench.cojson_replay [--case values,edits,stream] [--reps 3] [--n 5000]` records
an upload once (`js/jazz/record.mjs`), then has `js/jazz/server.mjs --storage sqlite` and a node
take it in turn: all of it at once, acknowledged; loaded cold, 1000 loads in flight as by a real
client; and loaded again after a restart. `--servers js,python,commit`: `commit` is a node that
waits for the disk, which JavaScript (WAL, default synchronous) does not; `sqlite` and `hybrid` are
nodes with those stores.

Seconds are those of the one client, whose work is to look for the ids of what comes; `server_cpu_s`
is the server's own. The table at the end has medians, and ratios above 1 where Python is better.
JavaScript's server needs better-sqlite3 (12.x) beside the other originals.
"""

from __future__ import annotations

import argparse
import json
import select
import shlex
import socket
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import trio

from tests.bench import lib
from tests.bench.__main__ import link_originals
from tests.bench.processes import JS, LineProcess, spawn

IN_FLIGHT = 1000
"""Loads that a cojson client has out at a time."""

PYTHON = f"{sys.executable} -m tests.bench.cojson"
SERVERS = {
    "js": "node jazz/server.mjs --storage sqlite",
    "python": f"{PYTHON} --durability os",
    "commit": f"{PYTHON} --durability commit",
    "sqlite": f"{PYTHON} --storage sqlite --durability os",
    "hybrid": f"{PYTHON} --storage hybrid --durability os",
    "aside": f"{PYTHON} --durability os --checks on",
    "sqlite-aside": f"{PYTHON} --storage sqlite --durability os --checks on",
    "hybrid-aside": f"{PYTHON} --storage hybrid --durability os --checks on",
}
CASES = {
    "values": ("--n", "5000", "--edits", "10"),
    "edits": ("--n", "200", "--edits", "50"),
    "stream": ("--n", "1", "--edits", "800"),
}
_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: YmVlbWVzaCBiZWVtZXNoIQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class _SessionPart(msgspec.Struct, rename="camel"):
    after: int
    new_transactions: list[msgspec.Raw]


class _Line(msgspec.Struct):
    action: str | None = None
    id: str | None = None
    header: object = None
    sessions: dict[str, int] = msgspec.field(default_factory=dict)
    new: dict[str, _SessionPart] = msgspec.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recording:
    """What is said, and what must have come of it."""

    frames: bytes
    values: list[str]
    counts: dict[str, dict[str, int]]
    transactions: int


class RawClient:
    """A WebSocket without a library: its frames are made beforehand, its mask is zero."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_UPGRADE)
        self._buffer = bytearray()
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self._socket.recv(65536)
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        self._socket.setblocking(False)
        self._decoder = msgspec.json.Decoder(_Line)
        self.bytes_in = 0

    def exchange(self, unsent: memoryview) -> tuple[memoryview, list[_Line]]:
        """Send what can be sent and take what has come; waits until there is something of both."""
        lines: list[_Line] = []
        while True:
            if unsent:
                with suppress(BlockingIOError):
                    unsent = unsent[self._socket.send(unsent[: 1 << 18]) :]
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                self._wait(bool(unsent))
                continue
            if not data:
                raise RuntimeError("the server hung up")
            self.bytes_in += len(data)
            self._buffer += data
            for text in self._frames():
                lines += [self._decoder.decode(part) for part in text.split(b"\n") if part]
            if lines:
                return unsent, lines

    def close(self) -> None:
        self._socket.close()

    def _wait(self, is_sending: bool) -> None:
        writers = [self._socket] if is_sending else []
        if not any(select.select([self._socket], writers, [], 60)):
            raise RuntimeError("the server has said nothing for a minute")

    def _frames(self) -> Iterator[bytes]:
        buffer, start = self._buffer, 0
        while len(buffer) >= start + 2:
            size, head = buffer[start + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                size = int.from_bytes(buffer[start + 2 : start + head], "big")
            if len(buffer) < start + head + size:
                break
            yield bytes(buffer[start + head : start + head + size])
            start += head + size
        del buffer[:start]


def frame(text: str) -> bytes:
    data = text.encode()
    if len(data) < 126:
        head = bytes([0x81, 0x80 | len(data)])
    elif len(data) < 65536:
        head = b"\x81\xfe" + len(data).to_bytes(2, "big")
    else:
        head = b"\x81\xff" + len(data).to_bytes(8, "big")
    return head + bytes(4) + data


def read_recording(path: Path) -> Recording:
    *frames, end = (json.loads(text) for text in path.read_text().splitlines())
    return Recording(
        b"".join(map(frame, frames)), end["values"], end["counts"], end["transactions"]
    )


def upload(port: int, recording: Recording) -> dict[str, float]:
    """Say everything, and wait until all of it is acknowledged."""
    client = RawClient(port)
    unsent = memoryview(recording.frames)
    missing = dict(recording.counts)
    started = lib.now()
    while missing:
        unsent, lines = client.exchange(unsent)
        for line in lines:
            if line.action == "known" and line.sessions == missing.get(line.id or ""):
                del missing[line.id or ""]
    seconds = lib.now() - started
    client.close()
    return {"seconds": seconds, "bytes": len(recording.frames)}


def load(port: int, recording: Recording) -> dict[str, float]:
    """Load every value cold, and wait until all transactions are here."""
    client = RawClient(port)
    missing = {co_id: sum(recording.counts[co_id].values()) for co_id in recording.values}
    waiting = iter(recording.values)
    started = lib.now()
    unsent = memoryview(_loads(waiting, IN_FLIGHT))
    while missing:
        unsent, lines = client.exchange(unsent)
        done = 0
        for line in lines:
            if line.action == "content" and line.id in missing:
                missing[line.id] -= sum(len(part.new_transactions) for part in line.new.values())
                if missing[line.id] == 0:
                    del missing[line.id]
                    done += 1
            elif line.action == "known" and line.header is False:
                raise RuntimeError(f"{line.id} is not there")
        if done:
            unsent = memoryview(bytes(unsent) + _loads(waiting, done))
    seconds = lib.now() - started
    client.close()
    return {"seconds": seconds, "bytes": client.bytes_in}


def _loads(ids: Iterator[str], count: int) -> bytes:
    lines = [
        f'{{"action":"load","id":"{co_id}","header":false,"sessions":{{}}}}'
        for co_id in islice(ids, count)
    ]
    return frame("\n".join(lines)) if lines else b""


async def measure(server: str, case: str, recording: Recording) -> list[dict[str, Any]]:
    """One round: upload, load, restart, load."""
    directory = lib.temporary("replay")
    command = [*shlex.split(SERVERS[server]), "--db", str(directory / "db")]
    rows: list[dict[str, Any]] = []

    async def step(name: str, child: LineProcess, work: Any) -> None:
        await child.stats()
        figures = await trio.to_thread.run_sync(work, child.info["port"], recording)
        stats = await child.stats()
        seconds, transactions = figures["seconds"], recording.transactions
        row = {
            "server": server,
            "case": f"{case}_{name}",
            "n": transactions,
            "seconds": round(seconds, 4),
            "tx_per_s": round(transactions / seconds),
            "mb_per_s": round(figures["bytes"] / seconds / 1e6, 1),
            "server_cpu_s": stats["cpu_s"],
            "cpu_us_per_tx": round(stats["cpu_s"] / transactions * 1e6, 1),
            "server_rss_mb": stats["rss_mb"],
        }
        lib.emit(row)
        rows.append(row)

    async with spawn(command) as child:
        await step("ingest", child, upload)
        await step("load", child, load)
    async with spawn(command) as child:
        await step("load_restarted", child, load)
    lib.remove(directory)
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    figures: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        figures[row["case"], row["server"]].append((row["tx_per_s"], row["cpu_us_per_tx"]))
    middle = {
        key: (median(speed for speed, _ in found), median(cpu for _, cpu in found))
        for key, found in figures.items()
    }
    print("| case | server | tx/s | ratio | CPU a tx | ratio |\n|---|---|---:|---:|---:|---:|")
    for (case, server), (speed, cpu) in middle.items():
        base_speed, base_cpu = middle.get((case, "js"), (speed, cpu))
        ratios = f"{speed / base_speed:.2f} | {cpu:.1f} us | {base_cpu / cpu:.2f}"
        print(f"| {case} | {server} | {speed:,.0f} | {ratios} |")


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cojson_replay")
    parser.add_argument("--case", default="values,edits")
    parser.add_argument("--n", type=int, default=0, help="values, instead of the case's own")
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--servers", default="js,python,commit")
    options = parser.parse_args()
    link_originals()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory:
        for case in options.case.split(","):
            path = Path(directory) / f"{case}.jsonl"
            settings = [*CASES[case], *(["--n", str(options.n)] if options.n else [])]
            command = ["node", "jazz/record.mjs", "--case", case, "--out", str(path), *settings]
            await trio.run_process(command, cwd=JS)
            recording = await trio.to_thread.run_sync(partial(read_recording, path))
            for repetition in range(options.reps):
                servers = options.servers.split(",")
                for server in servers if repetition % 2 == 0 else reversed(servers):
                    rows += await measure(server, case, recording)
    print_table(rows)


if __name__ == "__main__":
    trio.run(main)
