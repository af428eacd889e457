"""What nodes take that run for long under load: `python -m tests.node.soak_campaign`.

Two `beemesh up`, one with a bee, one hybrid, that keep everything of one another. Real clients come
for half a minute, write, delete and stream without a pause, at one node and then at the other, and
are killed. A line each time: what the nodes take of memory, files and disk. Their memory grows to
what their caches may have, which the first 60,000 values or so fill; in the second half it may grow
by `--kb-per-value` only (`growth_campaign` tells what is kept for good). At the end each must hold
all that it acknowledged to the last clients. Ten minutes at least tell something.

What a library loses counts, too, and is seen by nothing else: found so were 224 bytes for each look
at an empty set, 300 MB an hour.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from node.client import AdminClient
from tests.bench import lib
from tests.node.crash_campaign import Acknowledged, Report, find_lost, loading
from tests.node.real_scale import processor_seconds, resident_mb
from tests.support.running_node import RunningNode, open_running_node

CLIENT_SECONDS = 30.0


async def facts(node: RunningNode) -> dict[str, float]:
    client = AdminClient.find(node.data)
    assert client is not None
    status = await trio.to_thread.run_sync(client.status)
    values, disk = status["covalues"], status["disk"]
    assert isinstance(values, int)
    assert isinstance(disk, Mapping)
    return {
        "mb": round(resident_mb(node), 1),
        "values": values,
        "files": len(os.listdir(f"/proc/{node.process.pid}/fd")),
        "disk_mb": disk["used_bytes"] >> 20,
        "cpu_s": round(processor_seconds(node), 1),
    }


def kb_per_value(known: Sequence[dict[str, float]]) -> float:
    """By how much memory grew in the second half for each value that came: the median slope."""
    late = known[len(known) // 2 :]
    slopes = [
        1024 * (after["mb"] - before["mb"]) / (after["values"] - before["values"])
        for place, before in enumerate(late)
        for after in late[place + 1 :]
        if after["values"] > before["values"]
    ]
    return statistics.median(slopes) if slopes else 0.0


async def soak(directory: Path, minutes: float) -> tuple[list[float], Report]:
    """By how many KB a value the memory of each grew; what they have lost."""
    known: tuple[list[dict[str, float]], ...] = ([], [])
    acknowledged = [Acknowledged(), Acknowledged()]
    options = ("--replicate", "all", "--durability", "os", "--log-level", "error")
    async with (
        open_running_node(directory / "bee", *options) as first,
        open_running_node(
            directory / "hybrid", *options, "--store", "hybrid", "--join", first.ready["ticket"]
        ) as second,
    ):
        nodes = first, second
        started = lib.now()
        rounds = 0
        at = 0.0
        while at < minutes * 60 or rounds < 4:
            place = rounds % 2
            rounds += 1
            acknowledged[place] = Acknowledged()
            async with loading(nodes[place].ws, acknowledged[place]):
                await trio.sleep(CLIENT_SECONDS)
            at = lib.now() - started
            for node, of_node in zip(nodes, known, strict=True):
                of_node.append(await facts(node))
            lib.emit({"minutes": round(at / 60, 1), "bee": known[0][-1], "hybrid": known[1][-1]})
        report = Report()
        for node, of_last in zip(nodes, acknowledged, strict=True):
            await trio.to_thread.run_sync(find_lost, node.ws, of_last, report)
    return [kb_per_value(of_node) for of_node in known], report


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node.soak_campaign")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--kb-per-value", type=float, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        growth, report = await soak(Path(directory), options.minutes)
    lib.emit({"kb_per_value": [round(kb, 1) for kb in growth], "lost": len(report.lost)})
    return int(max(growth) > options.kb_per_value or not report.is_clean)


if __name__ == "__main__":
    sys.exit(trio.run(main))
