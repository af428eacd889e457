"""What nodes take that run for long under load: `python -m tests.node.soak_campaign`.

Two `beemesh up`, one with a bee, one hybrid, that keep everything of one another. Real clients come
for half a minute, write, delete and stream without a pause, at one node and then at the other, and
are killed. A line each time: what the nodes take of memory, files and disk. Their memory first
grows to what their caches may have; in the second half it may grow by `--mb-per-hour` only. At
the end each must hold all that it acknowledged to the last clients.

What a library loses counts, too, and is seen by nothing else: found so were 224 bytes for each look
at an empty set, 300 MB an hour.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import trio

from tests.bench import lib
from tests.node.crash_campaign import Acknowledged, Report, find_lost, loading
from tests.node.real_scale import processor_seconds, resident_mb
from tests.support.running_node import RunningNode, open_running_node

CLIENT_SECONDS = 30.0


def facts(node: RunningNode) -> dict[str, object]:
    files = len(os.listdir(f"/proc/{node.process.pid}/fd"))
    disk, _ = lib.disk_usage(node.data)
    return {
        "mb": round(resident_mb(node), 1),
        "files": files,
        "disk_mb": disk >> 20,
        "cpu_s": round(processor_seconds(node), 1),
    }


def growth_per_hour(points: list[tuple[float, float]]) -> float:
    """Of MB at so many seconds, the slope of the second half: the median of all pairs' slopes."""
    late = [point for point in points if point[0] >= points[-1][0] / 2]
    slopes = sorted(
        (mb - before) / (at - earlier)
        for place, (earlier, before) in enumerate(late)
        for at, mb in late[place + 1 :]
    )
    return slopes[len(slopes) // 2] * 3600 if slopes else 0.0


async def soak(directory: Path, minutes: float) -> tuple[list[float], Report]:
    """How many MB an hour the memory of both grew by; what the first has lost."""
    points: tuple[list[tuple[float, float]], ...] = ([], [])
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
        while at < minutes * 60 or rounds < 3:
            place = rounds % 2
            rounds += 1
            acknowledged[place] = Acknowledged()
            async with loading(nodes[place].ws, acknowledged[place]):
                await trio.sleep(CLIENT_SECONDS)
            at = lib.now() - started
            for node, known in zip(nodes, points, strict=True):
                known.append((at, resident_mb(node)))
            lib.emit({"minutes": round(at / 60, 1), "bee": facts(first), "hybrid": facts(second)})
        report = Report()
        for node, known_there in zip(nodes, acknowledged, strict=True):
            await trio.to_thread.run_sync(find_lost, node.ws, known_there, report)
    return [growth_per_hour(known) for known in points], report


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node.soak_campaign")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--mb-per-hour", type=float, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        growth, report = await soak(Path(directory), options.minutes)
    lib.emit({"mb_per_hour": [round(mb, 1) for mb in growth], "lost": len(report.lost)})
    return int(max(growth) > options.mb_per_hour or not report.is_clean)


if __name__ == "__main__":
    sys.exit(trio.run(main))
