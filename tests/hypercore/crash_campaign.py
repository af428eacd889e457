"""Kill a writer, again and again: `python -m tests.hypercore.crash_campaign --points 1000`.

A child process appends and prints what was acknowledged. It is killed with SIGKILL at a random
moment; then the store is opened and all of it is verified: every block, tree node, bit, hint and
the signature. Nothing acknowledged may be missing. The next child goes on in the same directory.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from tests.support.crash_writer import NAME, ROW
from tests.support.storage_rows import verify_core

LONGEST_SECONDS = 0.25


@dataclass
class Report:
    points: int = 0
    acknowledged: int = 0
    """Lines printed by all children."""
    lost: list[str] = field(default_factory=list)
    longest_open_seconds: float = 0.0
    length: int = 0


def run_and_kill(path: Path, durability: str, chance: random.Random) -> list[tuple[int, int]]:
    """One child, killed; (fork, length) of everything it had acknowledged."""
    command = [sys.executable, "-m", "tests.support.crash_writer", str(path), durability]
    child = subprocess.Popen(
        [*command, str(chance.randrange(2**32))],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with child:
        assert child.stdout is not None
        first = child.stdout.readline()  # it takes longer to start than to write
        time.sleep(chance.uniform(0, LONGEST_SECONDS))
        child.send_signal(signal.SIGKILL)
        lines = [first, *child.stdout.read().splitlines(keepends=True)]
    acknowledged = []
    for line in lines:
        if line.endswith(b"\n"):
            length, fork = line.split()
            acknowledged.append((int(fork), int(length)))
    return acknowledged


async def verify(path: Path, acknowledged: list[tuple[int, int]], report: Report) -> None:
    start = time.perf_counter()
    async with open_corestore(path) as store:
        core = await store.get(name=NAME)
        report.longest_open_seconds = max(report.longest_open_seconds, time.perf_counter() - start)
        report.length = verify_core(store.storage, core.discovery_key)
        if acknowledged and (core.fork, core.length) < acknowledged[-1]:
            report.lost.append(f"{acknowledged[-1]} acknowledged, {(core.fork, core.length)} kept")
        row = core.get_local_value(ROW)
        if row is not None and core.fork == 0 and int(row) != core.length:
            report.lost.append(f"local row of length {int(row)} beside {core.length} blocks")


def campaign(path: Path, points: int, durability: str, seed: int) -> Report:
    chance = random.Random(seed)
    report = Report()
    for _ in range(points):
        acknowledged = run_and_kill(path, durability, chance)
        report.points += 1
        report.acknowledged += len(acknowledged)
        trio.run(verify, path, acknowledged, report)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument(
        "--durability", default="commit", type=lambda text: str(Durability.parse(text))
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        report = campaign(Path(path), options.points, options.durability, options.seed)
    sys.stdout.write(f"seed {options.seed}: {report}\n")
    sys.exit(bool(report.lost))


if __name__ == "__main__":
    main()
