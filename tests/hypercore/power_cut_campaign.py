"""Cut the power, again and again: `python -m tests.hypercore.power_cut_campaign --states 10000`.

A child appends, truncates, clears and takes in blocks of a peer, on three cores of one store
(`tests.support.store_script`), while its disk is traced. At sampled moments the trace is turned
into a directory that a power cut may leave (`tests.support.crash_states`); then the store is
opened and all of it is verified. Each core must be a signed prefix, and unless nothing was
promised (mode `os`), nothing acknowledged may be missing and nothing cleared be back. Now and
then the next child goes on where a power cut left the store.

A failure names the round that repeats it: `--seed S --round R`.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from hypercore.errors import HypercoreError
from tests.support.crash_states import Disk, Survival
from tests.support.power_cut import Kind, Record, build_shim, read_trace, shim_environment
from tests.support.store_promises import (
    POSITION,
    Promises,
    broken_promises,
    open_cores,
    verify_store,
    what_is_there,
)

_PROJECT = Path(__file__).parents[2]
_NEAR = 12
_ROUND_RUNS = 2
_RARE = {Kind.OPEN, Kind.CLOSE, Kind.RENAME, Kind.UNLINK, Kind.MKDIR, Kind.TRUNCATE}


@dataclass
class Report:
    states: int = 0
    runs: int = 0
    acknowledged: int = 0
    """Lines printed before the power cuts, of all states."""
    unsynced: int = 0
    """States in which something had not been synced."""
    by_survival: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)
    """States that were not opened, with a documented error."""
    wrong: list[str] = field(default_factory=list)
    blocks: int = 0
    """Blocks hashed and compared with their signed heads."""
    longest_open_seconds: float = 0.0


async def verify(path: Path, report: Report) -> Promises:
    """Check all of the store, and that it can go on; returns what was there."""
    start = time.perf_counter()
    async with open_corestore(path, durability=Durability.OS) as store:
        cores = await open_cores(store)
        report.longest_open_seconds = max(report.longest_open_seconds, time.perf_counter() - start)
        report.blocks += verify_store(store, cores)
        found = what_is_there(cores)
        log = cores["log"]
        await log.append(b"after", local={POSITION: b"%d %d" % (log.fork, log.length + 1)})
        verify_store(store, cores)
    return found


def write(
    library: Path,
    directory: Path,
    trace: Path,
    durability: str,
    seed: str,
    changes: int,
    writer: str = "power_cut_writer",
) -> list[Record]:
    """One traced child, until it ends."""
    path = directory / "store"
    command = [sys.executable, "-m", f"tests.support.{writer}", str(path), durability]
    subprocess.run(
        [*command, seed, str(changes)],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=_PROJECT,
        env=shim_environment(library, directory, trace),
    )
    return list(read_trace(trace))


def files_below(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def _begins_log(record: Record) -> bool:
    return record.kind is Kind.OPEN and record.data.endswith(b".log")


def moments(records: list[Record], count: int, chance: random.Random) -> list[int]:
    """Positions in the trace: anywhere, just after an acknowledgment, or near a rare change."""
    said = [index + 1 for index, record in enumerate(records) if record.kind is Kind.OUTPUT]
    rare = [index for index, record in enumerate(records) if record.kind in _RARE]
    rare += 10 * [index for index in rare if _begins_log(records[index])]
    chosen = []
    for _ in range(count):
        draw = chance.random()
        if draw < 0.3 and said:
            chosen.append(chance.choice(said))
        elif draw < 0.7 and rare:
            chosen.append(min(chance.choice(rare) + chance.randint(0, _NEAR), len(records)))
        else:
            chosen.append(chance.randint(0, len(records)))
    return sorted(chosen)


class Campaign:
    """Rounds of one durability in one scratch directory.

    A round is a few runs, each but the first of which goes on in a state that an earlier one left.
    """

    def __init__(self, scratch: Path, durability: str, seed: int, *, changes: int = 60) -> None:
        self.scratch = scratch
        self.durability = durability
        self.seed = seed
        self.chance = random.Random()
        self.changes = changes
        self.report = Report()
        self._library = build_shim(scratch)
        self._is_promised = Durability.parse(durability).waits_for_disk
        self._left: Promises | None = None

    def run(
        self,
        states: int,
        *,
        states_per_run: int = 40,
        seconds: float = math.inf,
        only_round: int | None = None,
    ) -> Report:
        """Go on until so many states are checked, or so much time is gone."""
        end = time.monotonic() + seconds
        number = only_round or 0
        report = self.report
        while report.states < states and time.monotonic() < end:
            failures = len(report.wrong) + len(report.refused)
            self.chance = random.Random(f"{self.seed}/{number}")
            for link in range(_ROUND_RUNS):
                self._run(f"{self.seed}/{number}/{link}", states_per_run)
            shutil.rmtree(self.scratch / "left", ignore_errors=True)
            self._left = None
            if len(report.wrong) + len(report.refused) > failures:
                report.wrong.append(f"again: {again(self.durability, self.seed, number)}")
            number += 1
            if only_round is not None:
                break
        return report

    def _run(self, seed: str, count: int) -> None:
        self.report.runs += 1
        live, trace, left = (self.scratch / name for name in ("live", "trace", "left"))
        start = Promises()
        disk = Disk(live)
        if self._left is not None:
            left.rename(live)
            disk.load()
            start = self._left
        else:
            live.mkdir()
        records = write(self._library, live, trace, self.durability, seed, self.changes)
        self._left = None
        for position in moments(records, count, self.chance):
            while disk.position < position:
                disk.apply(records[disk.position])
            self._cut(disk, start, f"script {seed}, {position} of {len(records)} records")
        while disk.position < len(records):
            disk.apply(records[disk.position])
        assert disk.files() == files_below(live), "the shim missed a change"
        shutil.rmtree(live)
        trace.unlink()

    def _cut(self, disk: Disk, start: Promises, where: str) -> None:
        report = self.report
        state = self.scratch / "state"
        survival = self.chance.choice(list(Survival))
        is_synced = not disk.has_unsynced
        disk.leave(state, survival, self.chance)
        report.states += 1
        report.acknowledged += sum(b"?" not in line for line in disk.output)
        report.unsynced += not is_synced
        report.by_survival[survival.name] += 1
        where += f", {survival.name}"
        try:
            found = trio.run(verify, state / "store", report)
            if self._is_promised:
                promised = start.copy()
                promised.take(disk.output)
                broken = broken_promises(promised, found)
                assert not broken, broken
        except HypercoreError as error:
            report.refused.append(f"{where}: {type(error).__name__}: {error}")
        except BaseExceptionGroup as error:
            report.wrong.append(f"{where}: {error.exceptions!r}")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            report.wrong.append(f"{where}: {type(error).__name__}: {error}")
        else:
            self._keep_sometimes(state, found)
        shutil.rmtree(state, ignore_errors=True)

    def _keep_sometimes(self, state: Path, found: Promises) -> None:
        if self.chance.random() < 0.05 and self._left is None:
            state.rename(self.scratch / "left")
            found.of["log"].length += 1  # `verify` appended
            self._left = found


def again(durability: str, seed: int, number: int) -> str:
    """The command that repeats a round, as far as the threads of the writer let it."""
    return (
        f"python -m tests.hypercore.power_cut_campaign --durability '{durability}' "
        f"--seed {seed} --round {number}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument(
        "--durability", default="commit", type=lambda text: str(Durability.parse(text))
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--changes", type=int, default=60, help="appends and the like per child")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after that long")
    parser.add_argument("--round", type=int, help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        campaign = Campaign(Path(path), options.durability, options.seed, changes=options.changes)
        report = campaign.run(options.states, seconds=options.seconds, only_round=options.round)
    sys.stdout.write(f"seed {options.seed}, {options.durability}: {report}\n")
    sys.exit(bool(report.wrong or report.refused))


if __name__ == "__main__":
    main()
