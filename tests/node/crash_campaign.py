"""Kill a node under load, again and again.

`python -m tests.node.crash_campaign --store hybrid --points 1000`

Real cojson clients upload, delete, stream and read all the time, and print what was acknowledged.
The node is killed with SIGKILL at random moments and started again on the same directory and
port. Each time it must

* open, and hold everything that was acknowledged before the kill: no transaction less, and of
  what was deleted nothing but the tombstone;
* be able to prove what it holds: every session's signature over all that is stored of it, and of
  a data log every block, tree node, bit and hint against the signed head;
* as a hybrid, hold the same in SQLite and in the bee.

The directory and the clients are new every ROUND_POINTS kills, so that what has to be verified
stays small.
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
from hypercore.storage import Durability
from node.cojson.crypto import RunningHash, verify_session
from node.cojson.judgment import signer_key
from node.config import load_config
from node.covalue.dependencies import session_dependencies
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.known_state import NOTHING
from node.covalue.session_log import feed
from node.covalue.sqlite_store import open_sqlite_store
from node.covalue.store import CoValueStore
from node.storing import open_storing
from tests.node.node_nest import Nest, NestedNode, open_nest
from tests.support.running_node import INTEROP
from tests.support.storage_rows import verify_core
from tests.support.stores import joined, load_all

ROUND_POINTS = 10


@dataclass
class Acknowledged:
    """The highest count acknowledged, per (coValue, session); of a deletion nothing else."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)

    def take(self, message: dict[str, Any]) -> None:
        if "ack" in message:
            co_id, session, count = message["ack"]
            self.counts[co_id, session] = max(count, self.counts.get((co_id, session), 0))
        if "deleted" in message:
            co_id, session = message["deleted"]
            self.deleted[co_id] = session


@dataclass
class Report:
    points: int = 0
    lost: list[str] = field(default_factory=list)
    unproven: list[str] = field(default_factory=list)
    apart: list[str] = field(default_factory=list)
    open_seconds: list[float] = field(default_factory=list)
    checked: int = 0
    verified_sessions: int = 0
    verified_blocks: int = 0

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.unproven or self.apart)


@asynccontextmanager
async def loading(url: str, acknowledged: Acknowledged) -> AsyncIterator[None]:
    """Run the clients; what they print goes into `acknowledged`."""
    process = await trio.lowlevel.open_process(
        ["node", "mixed_load.mjs", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=INTEROP
    )
    ready = trio.Event()

    async def read() -> None:
        assert process.stdout is not None
        pending = b""
        async for chunk in process.stdout:
            *lines, pending = (pending + bytes(chunk)).split(b"\n")
            for line in lines:
                acknowledged.take(json.loads(line))
                ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.fail_after(60):
            await ready.wait()
        yield
        process.kill()
        await process.wait()


class Held:
    """What a server says it holds of some values, from its answers."""

    def __init__(self, co_ids: list[str]) -> None:
        self.states: dict[str, dict[str, int]] = {}
        self._unanswered = set(co_ids)
        self._coming: dict[str, dict[str, int]] = {}

    @property
    def is_complete(self) -> bool:
        return not self._unanswered and all(
            self.states[co_id].get(session, 0) >= count
            for co_id, sessions in self._coming.items()
            for session, count in sessions.items()
        )

    def take(self, message: dict[str, Any]) -> None:
        co_id = message.get("id", "")
        if co_id not in self._unanswered and co_id not in self.states:
            return
        self._unanswered.discard(co_id)
        sessions = self.states.setdefault(co_id, {})
        if message["action"] == "known":
            sessions.update(message["sessions"])
        elif message["action"] == "content":
            # A large value comes in pieces, the first of which says where they end.
            self._coming.setdefault(co_id, {}).update(message.get("expectContentUntil") or {})
            for session, part in message["new"].items():
                sessions[session] = part["after"] + len(part["newTransactions"])


def ask_known(url: str, co_ids: list[str]) -> dict[str, dict[str, int]]:
    """What the server says it holds of each value.

    A load with counters above the server's is answered by `known` with its own.
    """
    held = Held(co_ids)
    with connect(url, max_size=None) as socket:
        for co_id in co_ids:
            claim = {f"{co_id}_session_z{'1' * 11}": 1}
            message = {"action": "load", "id": co_id, "header": True, "sessions": claim}
            socket.send(json.dumps(message))
        while not held.is_complete:
            for line in str(socket.recv(timeout=30)).split("\n"):
                held.take(json.loads(line))
    return held.states


def find_lost(url: str, acknowledged: Acknowledged, report: Report) -> None:
    """Ask the server about all that was acknowledged."""
    ids = sorted({co_id for co_id, _ in acknowledged.counts} | set(acknowledged.deleted))
    states = ask_known(url, ids)
    for co_id, session in acknowledged.deleted.items():
        report.checked += 1
        if states[co_id].get(session) != 1:
            report.lost.append(f"{co_id}: the deletion")
    for (co_id, session), count in acknowledged.counts.items():
        # The deletion may be there before its author was told.
        if any(key.endswith("$") for key in states[co_id]):
            continue
        held = states[co_id].get(session, 0)
        report.checked += 1
        if held < count:
            report.lost.append(f"{co_id} {session}: {held} of {count}")


async def verify_data(data: Path, store: str, report: Report) -> None:
    """Open what the killed node left, and prove all of it."""
    config = load_config({"data": data, "store": store, "durability": "os"}, {})
    started = time.perf_counter()
    async with (
        open_corestore(config.corestore_path) as cores,
        open_storing(config, cores) as storing,
    ):
        if storing.catch_up is not None:
            await storing.catch_up(lambda _: None)
        report.open_seconds.append(time.perf_counter() - started)
        await _verify_sessions(storing.values, report)
        if storing.data is not None:
            discovery_key = storing.data.discovery_key
            report.verified_blocks += verify_core(cores.storage, discovery_key, may_have_gaps=True)
    if store == "hybrid":
        await _compare_halves(data, report)


async def _verify_sessions(store: CoValueStore, report: Report) -> None:
    """Every session of every value, against its signature."""
    async for co_id in store.ids():
        value = await store.load_value(co_id)
        assert value is not None
        keys: dict[RawCoId, bytes | None] = {}
        for account in session_dependencies(value.sessions):
            stored = await store.load_value(account)
            keys[account] = None if stored is None else stored.header.account_public_key
        pieces = await load_all(store, co_id, NOTHING, None)
        found = joined(pieces)
        for session_id, session in value.sessions.items():
            transactions = found.get(session_id, [])
            running = RunningHash()
            feed(running, transactions)
            report.verified_sessions += 1
            if len(transactions) != session.count or not verify_session(
                running, session.signature, signer_key(session_id, keys)
            ):
                report.unproven.append(f"{co_id} {session_id}: {session.count}")


async def _compare_halves(data: Path, report: Report) -> None:
    """What a hybrid brought together must be the same on both sides."""
    config = load_config({"data": data, "store": "bee", "durability": "os"}, {})
    async with (
        open_corestore(config.corestore_path) as cores,
        open_storing(config, cores, may_leave=True) as bee,
        open_sqlite_store(config.sqlite_path, Durability.OS) as sqlite,
    ):
        ours = [await _states(store) for store in (bee.values, sqlite)]
    for co_id in ours[0].keys() | ours[1].keys():
        if ours[0].get(co_id) != ours[1].get(co_id):
            report.apart.append(f"{co_id}: {ours[0].get(co_id)} and {ours[1].get(co_id)}")


async def _states(store: CoValueStore) -> dict[RawCoId, dict[CoSessionId, int]]:
    states: dict[RawCoId, dict[CoSessionId, int]] = {}
    async for co_id in store.ids():
        value = await store.load_value(co_id)
        assert value is not None
        assert not value.is_deleted or all(map(is_delete_session, value.sessions))
        states[co_id] = {key: item.count for key, item in value.sessions.items()}
    return states


async def run_round(
    nest: Nest, points: int, store: str, chance: random.Random, report: Report
) -> None:
    """Some kills of one node."""
    with tempfile.TemporaryDirectory(prefix="beemesh-crash-") as directory:
        data = Path(directory)
        acknowledged = Acknowledged()
        url: str = (await NestedNode(nest, data, "--store", store).start_and_stop())["ws"]
        node = NestedNode(nest, data, "--store", store, ws_port=int(url.rsplit(":", 1)[1]))
        await node.start()
        async with loading(url, acknowledged):
            for _ in range(points):
                await trio.sleep(chance.uniform(0.02, 0.6))
                before = Acknowledged(dict(acknowledged.counts), dict(acknowledged.deleted))
                await node.stop(signal.SIGKILL)
                await verify_data(data, store, report)
                await node.start()
                report.points += 1
                await trio.to_thread.run_sync(find_lost, url, before, report)
        await trio.to_thread.run_sync(find_lost, url, acknowledged, report)
        assert await node.stop() == 0


async def run_campaign(points: int, store: str, seed: int) -> Report:
    chance = random.Random(seed)
    report = Report()
    async with open_nest() as nest:
        while report.points < points and report.is_clean:
            count = min(ROUND_POINTS, points - report.points)
            await run_round(nest, count, store, chance, report)
            sys.stderr.write(f"{store}: {report.points} kills, {report.checked} checked\n")
    return report


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.crash_campaign")
    parser.add_argument("--store", choices=["bee", "sqlite", "hybrid"], default="bee")
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    report = await run_campaign(options.points, options.store, options.seed)
    slowest = max(report.open_seconds, default=0)
    summary = {
        "store": options.store,
        "seed": options.seed,
        "points": report.points,
        "checked": report.checked,
        "lost": len(report.lost),
        "unproven": len(report.unproven),
        "apart": len(report.apart),
        "verified_sessions": report.verified_sessions,
        "verified_blocks": report.verified_blocks,
        "slowest_open_seconds": round(slowest, 3),
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    for problem in [*report.lost, *report.unproven, *report.apart][:20]:
        sys.stdout.write(f"{problem}\n")
    sys.exit(0 if report.is_clean else 1)


if __name__ == "__main__":
    trio.run(main)
