"""How little a node fetches that wants a part: `python -m tests.node.partial_replica`.

One node has many values. Beside it, one after the other:

* `part`: an empty node joins, and a client loads some of the values from it, `--at-once` at a
  time;
* `javascript`: a JavaScript Hyperbee reads the same values from the first node's data core;
* `far`: an empty node at the other end of a line with `--delay` each way; a client loads values
  one by one;
* `all`: a node joins that keeps everything.

A line of each says what came over, how long it took, and what is on the disk and in memory of
the second node afterwards.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import trio

from bee.bee import Bee
from hypercore.corestore import open_corestore
from hypercore.storage import Durability
from node.covalue.bee_store import BeeStore
from node.covalue.ids import RawCoId
from node.covalue.keys import value_range
from node.covalue.store import SessionAppend, ValueAppend
from node.logs import DATA_CORE
from node.mesh.ticket import Ticket
from tests.bench import lib
from tests.bench.covalue_memory import load
from tests.bench.processes import delayed
from tests.interop.bee_peer import open_bee_peer
from tests.node.mesh.authors import Author
from tests.node.node_process import NodeProcess

CHANGES = 5
"""Transactions of each value, of about 150 bytes, uploaded together."""

_STORED_TOGETHER = 1000


async def beemesh(data: Path, *arguments: str) -> dict[str, Any]:
    """One verb of the command line, its JSON."""
    command = [sys.executable, "-m", "node", *arguments, "--json", "--data", str(data)]
    result = await trio.run_process(command, capture_stdout=True, check=False)
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


async def fill(data: Path, values: int) -> list[RawCoId]:
    """Put signed values on a disk on which no node runs yet; their ids."""
    author = Author(1)
    ids: list[RawCoId] = []
    async with open_corestore(data / "corestore", durability=Durability.parse("os")) as store:
        core = await store.get(name=DATA_CORE)
        target = BeeStore(Bee(core), core)
        batch: list[ValueAppend] = []
        for number in range(values):
            value = author.value(f"value {number}")
            texts = [json.dumps([{"op": "set", "key": "k", "value": "x" * 100}])] * CHANGES
            content = value.edit(*texts, with_header=True)
            part = content.new[value.session_id]
            size = sum(len(text) for text in texts)
            append = SessionAppend(0, list(part.transactions), part.signature, size, False)
            batch.append(ValueAppend(value.id, value.header, {value.session_id: append}))
            ids.append(value.id)
            if len(batch) == _STORED_TOGETHER or len(ids) == values:
                await target.store(batch)
                batch = []
        await core.close()
    return ids


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1].strip("/"))


def footprint(data: Path) -> dict[str, float]:
    """Of a node that runs."""
    pid = json.loads((data / "admin.json").read_text())["pid"]
    status = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1]
    size = sum(path.stat().st_blocks * 512 for path in data.rglob("*") if path.is_file())
    return {"rss_mb": round(int(status.split()[0]) / 1024, 1), "disk_mb": round(size / 1e6, 1)}


async def fetched(data: Path) -> dict[str, int]:
    """What a node has fetched from its one member."""
    [member] = (await beemesh(data, "sync", "status"))["members"]
    return {"blocks": member["blocks_fetched"], "bytes": member["bytes_fetched"]}


async def part(ticket: str, ids: Sequence[RawCoId], data: Path, at_once: int) -> None:
    async with NodeProcess(data, "--join", ticket).running() as ready:
        await joined(data)
        port = port_of(ready["ws"])
        started = lib.now()
        await trio.to_thread.run_sync(load, port, list(ids), at_once)
        seconds = round(lib.now() - started, 2)
        lib.emit(
            {"case": "part", "values": len(ids), "seconds": seconds}
            | await fetched(data)
            | footprint(data)
        )


async def javascript(ready: dict[str, Any], ids: Sequence[RawCoId], at_once: int) -> None:
    async with open_bee_peer() as peer:
        await peer("open", id="data", key=ready["key"])
        await peer("connect", port=port_of(ready["mesh"]))
        await peer("waitLength", id="data", length=2)
        ranges = [[bound.hex() for bound in value_range(co_id)] for co_id in ids]
        answer = await peer("sample", id="data", ranges=ranges, atOnce=at_once)
        lib.emit({"case": "javascript", "values": len(ids)} | answer)


async def far(ready: dict[str, Any], ids: Sequence[RawCoId], data: Path, one_way_ms: float) -> None:
    async with delayed(port_of(ready["mesh"]), one_way_ms) as port:
        ticket = replace(Ticket.decode(ready["ticket"]), addresses=(f"127.0.0.1:{port}",))
        async with NodeProcess(data, "--join", ticket.encode()).running() as second:
            await joined(data)
            await trio.sleep(2)  # past what is exchanged at first
            took = []
            for co_id in ids:
                started = lib.now()
                await trio.to_thread.run_sync(load, port_of(second["ws"]), [co_id], 1)
                took.append((lib.now() - started) * 1000 / (2 * one_way_ms))
            lib.emit(
                {
                    "case": "far",
                    "values": len(ids),
                    "round_trip_ms": 2 * one_way_ms,
                    "median_round_trips": round(statistics.median(took), 2),
                    "most_round_trips": round(max(took), 2),
                }
                | await fetched(data)
            )


async def everything(ticket: str, values: int, data: Path) -> None:
    options = ("--join", ticket, "--replicate", "all")
    async with NodeProcess(data, *options).running():
        started = lib.now()
        await joined(data)
        while (await beemesh(data, "status"))["covalues"] < values:  # noqa: ASYNC110
            await trio.sleep(0.5)
        seconds = round(lib.now() - started, 2)
        lib.emit(
            {"case": "all", "values": values, "seconds": seconds}
            | await fetched(data)
            | footprint(data)
        )


async def joined(data: Path) -> None:
    """Wait until the node has a member."""
    with trio.fail_after(20):
        while not (await beemesh(data, "sync", "status"))["members"]:  # noqa: ASYNC110
            await trio.sleep(0.1)


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.partial_replica")
    parser.add_argument("--values", type=int, default=100_000)
    parser.add_argument("--ask", type=int, default=1_000)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--delay", type=float, default=50, help="one way, milliseconds")
    parser.add_argument("--case", default="part,javascript,far,all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    cases = options.case.split(",")
    with tempfile.TemporaryDirectory(prefix="beemesh-partial-") as directory:
        root = Path(directory)
        ids = await fill(root / "first", options.values)
        asked = random.Random(options.seed).sample(ids, options.ask)
        async with NodeProcess(root / "first").running() as ready:
            if "part" in cases:
                await part(ready["ticket"], asked, root / "part", options.at_once)
            if "javascript" in cases:
                await javascript(ready, asked, options.at_once)
            if "far" in cases:
                await far(ready, asked[:20], root / "far", options.delay)
            if "all" in cases:
                await everything(ready["ticket"], options.values, root / "all")


if __name__ == "__main__":
    trio.run(main)
