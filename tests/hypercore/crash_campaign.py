"""Kill a writer, again and again: `python -m tests.hypercore.crash_campaign --points 1000`.

A child process appends, truncates, clears and takes in blocks of a peer, on three cores of one
store (`tests.support.store_script`), and prints what was acknowledged. It is killed with SIGKILL:
at a random moment, or, so that a seed repeats it, right before or after some call that writes,
syncs or changes names. Then the store is opened and all of it is verified: every block, tree
node, bit, hint and signature. Nothing acknowledged may be missing, nothing cleared may be back.
The next child goes on in the same directory; each ROUND_POINTS points begin with a new one.

A failure names the round that repeats it: `--seed S --round R`.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from hypercore.errors import HypercoreError
from tests.support.power_cut import Calls, build_shim, shim_environment
from tests.support.store_promises import (
    Promises,
    broken_promises,
    open_cores,
    verify_store,
    what_is_there,
)

ROUND_POINTS = 20
LONGEST_SECONDS = 0.12
MODES = ("commit", "group(2)", "os")

_PROJECT = Path(__file__).parents[2]
_MOST_CALLS = {Calls.WRITE: 300, Calls.SYNC: 60, Calls.NAME: 12}


@dataclass
class Report:
    points: int = 0
    at_calls: int = 0
    """Of these, how many died at a chosen call and not at a random time."""
    acknowledged: Counter[str] = field(default_factory=Counter)
    """Lines printed by all children, by core."""
    blocks: int = 0
    """Blocks hashed and compared with their signed heads."""
    lost: list[str] = field(default_factory=list)
    longest_open_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Death:
    """When a child dies: after some time, or at a call."""

    seconds: float
    calls: Calls = Calls.WRITE
    count: int = 0
    moment: str = "never"

    @classmethod
    def draw(cls, chance: random.Random) -> Death:
        seconds = chance.uniform(0, LONGEST_SECONDS)
        if chance.random() < 0.6:
            return cls(seconds)
        calls = chance.choice(list(_MOST_CALLS))
        count = int(_MOST_CALLS[calls] ** chance.random())
        return cls(2.0, calls, count, chance.choice(["before", "after"]))

    def __str__(self) -> str:
        if self.moment == "never":
            return f"after {self.seconds:.3f} s"
        return f"{self.moment} {self.calls.name} number {self.count}"


class Nest:
    """The process that children are forked from; made by `open_nest`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._wishes, self._answers = process.stdin, process.stdout

    def run_and_kill(self, path: Path, durability: str, seed: str, death: Death) -> list[bytes]:
        """One child, killed; all that it said."""
        wish = f"{path} {durability} {seed} {int(death.calls)} {death.count} {death.moment}\n"
        self._wishes.write(wish.encode())
        self._wishes.flush()
        pid = int(self._answers.readline().split()[1])
        lines = [self._answers.readline()]  # opening takes longer than writing
        if death.moment == "never":
            time.sleep(death.seconds)
            os.kill(pid, signal.SIGKILL)
        elif not lines[0].startswith(b"end"):
            lines += self._until_dead(pid, death)
        while not lines[-1].startswith(b"end"):
            lines.append(self._answers.readline())
        status = int(lines.pop().split()[1])
        assert status == -signal.SIGKILL, f"the writer ended by itself: {status}"
        return lines

    def _until_dead(self, pid: int, death: Death) -> Iterator[bytes]:
        """What it says until it kills itself; one that never comes to the call is killed."""
        end = time.monotonic() + death.seconds
        while time.monotonic() < end:
            line = self._answers.readline()
            yield line
            if line.startswith(b"end"):
                return
        os.kill(pid, signal.SIGKILL)


@contextmanager
def open_nest(scratch: Path) -> Iterator[Nest]:
    """A nest whose children are watched below `scratch`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.crash_writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_PROJECT,
        env=shim_environment(build_shim(scratch), scratch),
    )
    with process:
        try:
            yield Nest(process)
        finally:
            process.kill()


async def verify(path: Path, promised: Promises, report: Report) -> tuple[Promises, list[str]]:
    """Open what is left and check all of it; what is there, and what is not as promised."""
    start = time.perf_counter()
    async with open_corestore(path, durability=Durability.OS) as store:
        cores = await open_cores(store)
        report.longest_open_seconds = max(report.longest_open_seconds, time.perf_counter() - start)
        report.blocks += verify_store(store, cores)
        found = what_is_there(cores)
        return found, broken_promises(promised, found)


def run_round(nest: Nest, path: Path, durability: str, seed: str, report: Report) -> None:
    """ROUND_POINTS kills in one directory."""
    chance = random.Random(seed)
    promises = Promises()
    for point in range(ROUND_POINTS):
        death = Death.draw(chance)
        script = f"{seed}/{point}"
        said = nest.run_and_kill(path, durability, script, death)
        promises.take(said)
        report.points += 1
        report.at_calls += death.moment != "never"
        report.acknowledged.update(promises.acknowledged)
        try:
            promises, broken = trio.run(verify, path, promises, report)
        except (HypercoreError, AssertionError, BaseExceptionGroup) as error:
            broken = [f"{type(error).__name__}: {error}"]
        report.lost += [f"script {script}, killed {death}: {text}" for text in broken]
        if broken:
            return


def campaign(
    scratch: Path,
    points: int,
    durability: str,
    seed: int,
    *,
    only_round: int | None = None,
    seconds: float = math.inf,
) -> Report:
    """Go on until so many points are done, or so much time is gone."""
    report = Report()
    end = time.monotonic() + seconds
    with open_nest(scratch) as nest:
        number = 0 if only_round is None else only_round
        while report.points < points and time.monotonic() < end:
            failures = len(report.lost)
            with tempfile.TemporaryDirectory(dir=scratch) as path:
                run_round(nest, Path(path), durability, f"{seed}/{number}", report)
            if len(report.lost) > failures:
                report.lost.append(f"again: {again(durability, seed, number)}")
            number += 1
            if only_round is not None:
                break
    return report


def again(durability: str, seed: int, number: int) -> str:
    """The command that repeats a round."""
    return (
        f"python -m tests.hypercore.crash_campaign --durability '{durability}' "
        f"--seed {seed} --round {number}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument(
        "--durability", default="commit", type=lambda text: str(Durability.parse(text))
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after that long")
    parser.add_argument("--round", type=int, help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        report = campaign(
            Path(path),
            options.points,
            options.durability,
            options.seed,
            only_round=options.round,
            seconds=options.seconds,
        )
    sys.stdout.write(f"seed {options.seed}, {options.durability}: {report}\n")
    sys.exit(bool(report.lost))


if __name__ == "__main__":
    main()
