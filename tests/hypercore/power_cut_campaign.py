"""Cut the power, again and again: `python -m tests.hypercore.power_cut_campaign --states 10000`.

A child writes while its disk is traced. At sampled moments the trace is turned into a directory
that a power cut may leave (`tests.support.crash_states`); then the store is opened and all of it
is verified. It must be a signed prefix, and unless nothing was promised (mode `os`), nothing
acknowledged may be missing. Now and then the next child goes on where a power cut left the store.
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
from tests.support.crash_writer import NAME, ROW
from tests.support.power_cut import Kind, Record, build_shim, read_trace, shim_environment
from tests.support.power_cut_writer import NUMBER
from tests.support.storage_rows import verify_core

_PROJECT = Path(__file__).parents[2]
_NEAR = 12
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
    longest_open_seconds: float = 0.0
    longest: int = 0


@dataclass(frozen=True, slots=True)
class Promise:
    """What was acknowledged."""

    fork: int = 0
    length: int = 0
    number: int = 0

    def extended(self, lines: list[bytes]) -> Promise:
        fork, length, number = self.fork, self.length, self.number
        for line in lines:
            match line.split():
                case [b"log", new_length, new_fork]:
                    fork, length = max((fork, length), (int(new_fork), int(new_length)))
                case [b"row", new_number]:
                    number = max(number, int(new_number))
                case _:
                    raise AssertionError(f"the writer said {line!r}")
        return Promise(fork, length, number)


def check_promise(found: Promise, promised: Promise) -> None:
    assert (found.fork, found.length) >= (promised.fork, promised.length), f"{promised} {found}"
    assert found.number >= promised.number, f"{promised} {found}"


async def verify(path: Path, report: Report) -> Promise:
    """Check all of the store, and that it can go on; returns what is there."""
    start = time.perf_counter()
    async with open_corestore(path, durability=Durability.OS) as store:
        core = await store.get(name=NAME)
        report.longest_open_seconds = max(report.longest_open_seconds, time.perf_counter() - start)
        length = verify_core(store.storage, core.discovery_key)
        assert length == core.length
        row = core.get_local_value(ROW)
        if core.fork == 0:
            assert int(row or 0) == length, f"row of length {row!r} beside {length} blocks"
        found = Promise(core.fork, length, int(core.get_local_value(NUMBER) or 0))
        await core.append(b"after", local={ROW: b"%d" % (length + 1)})
        assert verify_core(store.storage, core.discovery_key) == length + 1
        report.longest = max(report.longest, length)
    return found


def write(
    library: Path, directory: Path, trace: Path, durability: str, seed: int, changes: int
) -> list[Record]:
    """One traced child, until it ends."""
    path = directory / "store"
    command = [sys.executable, "-m", "tests.support.power_cut_writer", str(path), durability]
    subprocess.run(
        [*command, str(seed), str(changes)],
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
    """Runs of one durability in one scratch directory."""

    def __init__(self, scratch: Path, durability: str, seed: int, *, changes: int = 60) -> None:
        self.scratch = scratch
        self.durability = durability
        self.chance = random.Random(seed)
        self.changes = changes
        self.report = Report()
        self._library = build_shim(scratch)
        self._is_promised = Durability.parse(durability).waits_for_disk
        self._left: Promise | None = None

    def run(self, states: int, *, states_per_run: int = 40, seconds: float = math.inf) -> Report:
        """Go on until so many states are checked, or so much time is gone."""
        end = time.monotonic() + seconds
        while self.report.states < states and time.monotonic() < end:
            self._run(min(states_per_run, states - self.report.states))
        return self.report

    def _run(self, count: int) -> None:
        self.report.runs += 1
        live, trace, left = (self.scratch / name for name in ("live", "trace", "left"))
        start = Promise()
        disk = Disk(live)
        if self._left is not None:
            left.rename(live)
            disk.load()
            start = self._left
        else:
            live.mkdir()
        seed = self.chance.randrange(2**32)
        records = write(self._library, live, trace, self.durability, seed, self.changes)
        self._left = None
        for position in moments(records, count, self.chance):
            while disk.position < position:
                disk.apply(records[disk.position])
            self._cut(disk, start, f"seed {seed}, {position} of {len(records)} records")
        while disk.position < len(records):
            disk.apply(records[disk.position])
        assert disk.files() == files_below(live), "the shim missed a change"
        shutil.rmtree(live)
        trace.unlink()

    def _cut(self, disk: Disk, start: Promise, where: str) -> None:
        report = self.report
        state = self.scratch / "state"
        survival = self.chance.choice(list(Survival))
        is_synced = not disk.has_unsynced
        disk.leave(state, survival, self.chance)
        report.states += 1
        report.acknowledged += len(disk.output)
        report.unsynced += not is_synced
        report.by_survival[survival.name] += 1
        where += f", {survival.name}"
        try:
            found = trio.run(verify, state / "store", report)
            if self._is_promised:
                check_promise(found, start.extended(disk.output))
        except HypercoreError as error:
            report.refused.append(f"{where}: {type(error).__name__}: {error}")
        except BaseExceptionGroup as error:
            report.wrong.append(f"{where}: {error.exceptions!r}")
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            report.wrong.append(f"{where}: {type(error).__name__}: {error}")
        else:
            self._keep_sometimes(state, found)
        shutil.rmtree(state, ignore_errors=True)

    def _keep_sometimes(self, state: Path, found: Promise) -> None:
        if self.chance.random() < 0.02 and self._left is None and found.length < 3000:
            state.rename(self.scratch / "left")
            self._left = Promise(found.fork, found.length + 1, found.number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument(
        "--durability", default="commit", type=lambda text: str(Durability.parse(text))
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--changes", type=int, default=60, help="appends and the like per child")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after that long")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        campaign = Campaign(Path(path), options.durability, options.seed, changes=options.changes)
        report = campaign.run(options.states, seconds=options.seconds)
    sys.stdout.write(f"seed {options.seed}, {options.durability}: {report}\n")
    sys.exit(bool(report.wrong or report.refused))


if __name__ == "__main__":
    main()
