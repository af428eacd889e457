"""Kill a node under upload, again and again: `python -m tests.node.crash_campaign --points 100`.

A real cojson client uploads all the time and prints what was acknowledged. The node is killed
with SIGKILL at random moments and started again on the same directory and port; each time it
must open soon, hold everything that was acknowledged before the kill, and verify clean: every
block, tree node, bit and hint of the data log against its signed head.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from websockets.sync.client import connect

from hypercore import open_corestore
from node.logs import DATA_CORE
from tests.node.node_process import INTEROP, NodeProcess
from tests.support.storage_rows import verify_core


@dataclass
class Acknowledged:
    """The highest count acknowledged, per (coValue, session)."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, co_id: str, session: str, count: int) -> None:
        self.counts[co_id, session] = max(count, self.counts.get((co_id, session), 0))


@dataclass
class Report:
    points: int = 0
    lost: list[str] = field(default_factory=list)
    open_seconds: list[float] = field(default_factory=list)
    checked: int = 0
    verified_blocks: int = 0


@asynccontextmanager
async def uploading(url: str, acknowledged: Acknowledged) -> AsyncIterator[None]:
    """Run the uploader; what it prints goes into `acknowledged`."""
    process = await trio.lowlevel.open_process(
        ["node", "uploader.mjs", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=INTEROP
    )
    ready = trio.Event()

    async def read() -> None:
        assert process.stdout is not None
        pending = b""
        async for chunk in process.stdout:
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "ack" in message:
                    acknowledged.add(*message["ack"])
                ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(60):
            await ready.wait()
        yield
        process.kill()
        await process.wait()


def ask_known(url: str, co_ids: list[str]) -> dict[str, dict[str, int]]:
    """What the server says it holds of each value: its answer to a load that claims everything.

    A load with counters above the server's is answered by `known` with its own.
    """
    states: dict[str, dict[str, int]] = {}
    with connect(url, max_size=None) as socket:
        for co_id in co_ids:
            claim = {f"{co_id}_session_z{'1' * 11}": 1}
            message = {"action": "load", "id": co_id, "header": True, "sessions": claim}
            socket.send(json.dumps(message))
        while len(states) < len(co_ids):
            for line in str(socket.recv(timeout=30)).split("\n"):
                message = json.loads(line)
                _merge_state(states, message, set(co_ids))
    return states


def _merge_state(
    states: dict[str, dict[str, int]], message: dict[str, Any], wanted: set[str]
) -> None:
    co_id = message.get("id")
    if co_id not in wanted:
        return
    if message["action"] == "known":
        states.setdefault(co_id, {}).update(message["sessions"])
    elif message["action"] == "content":
        sessions = states.setdefault(co_id, {})
        for session, part in message["new"].items():
            sessions[session] = part["after"] + len(part["newTransactions"])


def find_lost(url: str, acknowledged: Acknowledged, report: Report) -> None:
    snapshot = dict(acknowledged.counts)
    ids = sorted({co_id for co_id, _ in snapshot})
    states = ask_known(url, ids)
    for (co_id, session), count in snapshot.items():
        held = states[co_id].get(session, 0)
        report.checked += 1
        if held < count:
            report.lost.append(f"{co_id} {session}: {held} of {count}")


async def run_campaign(points: int, seed: int, data: Path) -> Report:
    chance = random.Random(seed)
    report = Report()
    acknowledged = Acknowledged()
    url = await _pick_port(data)
    node = NodeProcess(data, ws_port=int(url.rsplit(":", 1)[1].rstrip("/")))
    await node.start()
    async with uploading(url, acknowledged):
        for _ in range(points):
            await trio.sleep(chance.uniform(0.05, 1.0))
            before = Acknowledged(dict(acknowledged.counts))
            await node.stop(signal.SIGKILL)
            await verify_store(data / "corestore", report)
            await node.start()
            report.points += 1
            await trio.to_thread.run_sync(find_lost, url, before, report)
    await trio.to_thread.run_sync(find_lost, url, acknowledged, report)
    assert await node.stop() == 0
    return report


async def verify_store(path: Path, report: Report) -> None:
    """Open what the killed node left, and check all of its data log."""
    started = time.perf_counter()
    async with open_corestore(path) as store:
        core = await store.get(name=DATA_CORE)
        report.open_seconds.append(time.perf_counter() - started)
        report.verified_blocks += verify_core(store.storage, core.discovery_key)


async def _pick_port(data: Path) -> str:
    """Where clients find the node again after a kill."""
    async with NodeProcess(data).running() as ready:
        url: str = ready["ws"]
        return url


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.crash_campaign")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="beemesh-crash-") as data:
        report = await run_campaign(options.points, options.seed, Path(data))
    slowest = max(report.open_seconds, default=0)
    summary = {
        "seed": options.seed,
        "points": report.points,
        "checked": report.checked,
        "lost": len(report.lost),
        "verified_blocks": report.verified_blocks,
        "slowest_open_seconds": round(slowest, 3),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    for lost in report.lost[:20]:
        sys.stdout.write(f"lost {lost}\n")
    sys.exit(1 if report.lost else 0)


if __name__ == "__main__":
    trio.run(main)
