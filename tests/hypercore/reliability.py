"""All that is done to a store and to its peers: `python -m tests.hypercore.reliability --full`.

Kills, power cuts, failing and full disks, turned bits, hostile peers: one line for each, with how
often, from which seed, and what was found. Every failure comes with the command that repeats it.
`--short` takes half a minute, `--full` about half an hour on a quiet machine.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from tests.hypercore import bit_flip_campaign, crash_campaign, hostile_campaign
from tests.hypercore.failing_disk_campaign import FAULTS, real_disks, run_fault
from tests.hypercore.power_cut_campaign import Campaign as PowerCuts
from tests.support.hostile_peers import KINDS

MODES = crash_campaign.MODES


@dataclass(frozen=True, slots=True)
class Row:
    """One campaign, over."""

    what: str
    count: str
    verified: str
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much of each."""

    kills: int
    cuts: int
    fault_step: int
    flips: int
    healed_every: int
    hostile_rounds: int
    seconds: float = math.inf
    """No campaign of random choices goes on for longer."""


SHORT = Amounts(20, 30, 29, 60, 12, 0)
FULL = Amounts(1000, 3334, 1, 10_000, 100, 3)


def kills(scratch: Path, amounts: Amounts, seed: int) -> Iterator[Row]:
    for mode in MODES:
        report = crash_campaign.campaign(
            scratch, amounts.kills, mode, seed, seconds=amounts.seconds
        )
        yield Row(
            f"kill -9, durability {mode}",
            f"{report.points:,} kills, {report.at_calls:,} at a chosen call",
            f"{sum(report.acknowledged.values()):,} acknowledgements, {report.blocks:,} blocks",
            tuple(report.lost),
        )


def power_cuts(scratch: Path, amounts: Amounts, seed: int) -> Iterator[Row]:
    for mode in MODES:
        path = scratch / f"cuts-{mode}"
        path.mkdir()
        per_run = min(40, amounts.cuts // 2)
        report = PowerCuts(path, mode, seed).run(
            amounts.cuts, states_per_run=per_run, seconds=amounts.seconds
        )
        yield Row(
            f"power cut, durability {mode}",
            f"{report.states:,} states, {report.unsynced:,} with unsynced writes",
            f"{report.acknowledged:,} acknowledgements, {report.blocks:,} blocks",
            (*report.refused, *report.wrong),
        )


def failing_disks(scratch: Path, amounts: Amounts, _: int) -> Iterator[Row]:
    for name in FAULTS:
        report = run_fault(
            scratch, name, first=int(amounts.fault_step > 1), step=amounts.fault_step
        )
        yield Row(
            report.fault,
            f"{report.runs:,} runs, {report.hits:,} calls failed",
            f"{report.opening} failed opening, {report.writing} writing; "
            f"{report.recovered} recovered in place",
            tuple(report.wrong),
        )


def full_disks(scratch: Path, _: Amounts, __: int) -> Iterator[Row]:
    report = real_disks(scratch)
    yield Row(
        report.fault,
        f"{report.runs:,} disks filled to the brim",
        f"{report.recovered} recovered in place",
        tuple(report.wrong),
    )


def bit_flips(scratch: Path, amounts: Amounts, seed: int) -> Iterator[Row]:
    path = scratch / "flips"
    path.mkdir()
    campaign = bit_flip_campaign.Campaign(path, seed)
    report = campaign.run(amounts.flips, healed_every=amounts.healed_every, seconds=amounts.seconds)
    outcomes = report.by_outcome
    yield Row(
        "single bits of a store turned",
        f"{report.flips:,} flips: {outcomes['detected']:,} detected, {outcomes['refused']:,} "
        f"refused, {outcomes['dead']:,} in dead data",
        f"{report.damaged_blocks:,} damaged blocks named; {report.healed} replicas healed, "
        f"{report.repaired} stores repaired, {report.lost_ours} with a loss of ours, "
        f"{report.unreadable} closed",
        tuple(report.wrong),
    )


def hostile_peers(_: Path, amounts: Amounts, __: int) -> Iterator[Row]:
    for kind in KINDS:
        line = trio.run(hostile_campaign.measure, kind, 2, amounts.hostile_rounds)
        is_slow = line.ratio < hostile_campaign.MARK
        again = f"python -m tests.hypercore.hostile_campaign --kind '{kind}'"
        yield Row(
            f"hostile peers: {kind}",
            f"{amounts.hostile_rounds} paired downloads",
            f"a good peer keeps {line.ratio:.0%} of its throughput",
            (f"below {hostile_campaign.MARK:.0%}; again: {again}",) if is_slow else (),
        )


Part = Callable[[Path, Amounts, int], Iterator[Row]]
PARTS: dict[str, Part] = {
    "kill": kills,
    "power": power_cuts,
    "disk": failing_disks,
    "full": full_disks,
    "flip": bit_flips,
    "hostile": hostile_peers,
}
_LONG_ONLY = {"full", "hostile"}
"""What needs root, or a quiet machine."""


def run_part(name: str, amounts: Amounts, seed: int) -> int:
    """Print one part's rows as they come; returns how many failures there were."""
    count = 0
    with tempfile.TemporaryDirectory(prefix="beemesh-reliability-") as path:
        start = time.monotonic()
        for row in PARTS[name](Path(path), amounts, seed):
            seconds = time.monotonic() - start
            count += len(row.failures)
            sys.stdout.write(
                f"| {row.what} | {row.count} | {row.verified} | {seed} | "
                f"{len(row.failures) or 'none'} | {seconds:.0f} s |\n"
            )
            for failure in row.failures:
                sys.stdout.write(f"{failure}\n")
            sys.stdout.flush()
            start = time.monotonic()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.hypercore.reliability")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--short", action="store_true", help="half a minute")
    amount.add_argument("--full", action="store_true", help="half an hour")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="may be repeated")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="at most so many for each line"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    names = options.only or [name for name in PARTS if options.full or name not in _LONG_ONLY]
    if "full" in names and os.geteuid():
        sys.stderr.write("filling a real disk takes root: left out\n")
        names.remove("full")
    sys.stdout.write("| what | how often | verified | seed | failures | took |\n")
    sys.stdout.write("|---|---|---|---:|---:|---:|\n")
    amounts = replace(FULL if options.full else SHORT, seconds=options.seconds)
    failures = sum(run_part(name, amounts, options.seed) for name in names)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
