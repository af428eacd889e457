"""A node as the sync server of `js/jazz/client.mjs`.

`node jazz/client.mjs --case sqlite --server "python -m tests.bench.cojson"` (run in `js`). The
case is the storage of both: `sqlite` and `hybrid` and `bee` are those of a node, which stores in
a bee when the case is `memory`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import trio

from node.collector import tame_collector
from node.config import Config
from node.daemon import open_node
from node.journal import configure_journal
from node.notation import parse_size
from node.settings import Endpoint
from tests.bench import lib

_ANY_PORT = Endpoint("127.0.0.1", 0)


class Turns(trio.abc.Instrument):
    """How long tasks keep the processor before others may run; says more than the clock on a
    machine that has other things to do."""

    def __init__(self) -> None:
        self._started = 0.0
        self._seconds: list[float] = []

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._started = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._seconds.append(time.thread_time() - self._started)

    def take(self) -> dict[str, float]:
        """Since the last call."""
        seconds, self._seconds = self._seconds, []
        return {
            "turn_p99_ms": round(lib.percentile(seconds, 0.99) * 1e3, 2),
            "turn_max_ms": round(max(seconds) * 1e3, 2),
        }


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cojson")
    parser.add_argument("--storage", default="bee", help="bee, sqlite or hybrid")
    parser.add_argument("--db", default="", help="keep the data beside this path")
    parser.add_argument("--crypto", default="", help="ignored")
    parser.add_argument("--durability", default="os", help="os (as JS), commit or group(MS)")
    parser.add_argument("--memory", default="64MiB", help="the node's covalue_memory")
    parser.add_argument("--checks", default="auto", help="the node's signature_process")
    parser.add_argument("--turns", action="store_true", help="measure the turns of tasks")
    options = parser.parse_args()
    turns = Turns()
    if options.turns:
        trio.lowlevel.add_instrument(turns)
    configure_journal("error", "json")
    tame_collector()
    path = Path(options.db + ".beemesh") if options.db else lib.temporary("cojson")
    config = Config(
        data=path,
        name="bench",
        ws=_ANY_PORT,
        mesh=_ANY_PORT,
        admin=_ANY_PORT,
        discovery=(),
        durability=options.durability,
        store=options.storage if options.storage in ("sqlite", "hybrid") else "bee",
        covalue_memory=parse_size(options.memory),
        signature_process=options.checks,
    )
    async with open_node(config) as node:
        port = int(node.addresses.ws.rsplit(":", 1)[1])
        print(json.dumps({"ready": True, "port": port, "db": options.db}), flush=True)
        cpu = lib.cpu_seconds()
        async for chunk in trio.lowlevel.FdStream(sys.stdin.fileno()):
            if b"stats" not in chunk:
                continue
            used = lib.cpu_seconds()
            stats: dict[str, Any] = {
                "stats": True,
                "rss_mb": lib.rss_mb(),
                "cpu_s": round(used - cpu, 4),
                "db_bytes": lib.disk_usage(path)[0],
            }
            if options.turns:
                stats |= turns.take()
            print(json.dumps(stats), flush=True)
            cpu = used
    if not options.db:
        lib.remove(path)


if __name__ == "__main__":
    trio.run(main)
