"""Cut the power while peers listen: `python -m tests.hypercore.told_heads_campaign --states 5000`.

A child has two tasks that append to and cut one core, and a peer that prints each head that it is
told (`tests.support.told_heads_writer`). Whatever of it a power cut leaves, no head that the peer
was told is contradicted: our log is of that fork and as long at least, with the same tree, or of a
later fork. A writer that went on from less would sign two histories.

A failure names the round that repeats it: `--seed S --round R`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from tests.hypercore.power_cut_campaign import moments, write
from tests.support.crash_states import Disk, Survival
from tests.support.power_cut import build_shim

_STATES_PER_ROUND = 40
_CHANGES = 40


@dataclass
class Report:
    states: int = 0
    told: int = 0
    """Heads that the peer had heard of before the power cuts, of all states."""
    later: int = 0
    """Of these, heads of forks that our log has left since."""
    wrong: list[str] = field(default_factory=list)


async def check(path: Path, told: Iterable[bytes], report: Report) -> None:
    """Raises: AssertionError for a head that was told and is contradicted."""
    async with open_corestore(path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        for line in told:
            fork, length, *tree_hash = line.split()
            report.told += 1
            at = f"told {line!r}, at fork {core.fork} are {core.length} blocks"
            assert core.fork >= int(fork), at
            if core.fork > int(fork):
                report.later += 1
                continue
            assert core.length >= int(length), at
            if tree_hash:
                assert core.tree_hash(int(length)).hex().encode() == tree_hash[0], at


def run_round(scratch: Path, durability: str, seed: int, number: int, report: Report) -> None:
    """One child, and what power cuts at moments of its life leave."""
    chance = random.Random(f"{seed}/{number}")
    live, trace, state = (scratch / name for name in ("live", "trace", "state"))
    live.mkdir()
    library = build_shim(scratch)
    records = write(
        library, live, trace, durability, f"{seed}/{number}", _CHANGES, "told_heads_writer"
    )
    disk = Disk(live)
    for position in moments(records, _STATES_PER_ROUND, chance):
        while disk.position < position:
            disk.apply(records[disk.position])
        survival = chance.choice(list(Survival))
        disk.leave(state, survival, chance)
        report.states += 1
        try:
            trio.run(check, state / "store", disk.output, report)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is a finding
            where = f"--seed {seed} --round {number}, record {position}, {survival.name}"
            report.wrong.append(f"{where}: {error!r} {getattr(error, 'exceptions', '')}")
        shutil.rmtree(state, ignore_errors=True)
    shutil.rmtree(live)
    trace.unlink()


def campaign(scratch: Path, durability: str, seed: int, states: int) -> Report:
    report = Report()
    number = 0
    while report.states < states:
        run_round(scratch, durability, seed, number, report)
        number += 1
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument(
        "--durability", default="commit", type=lambda text: str(Durability.parse(text))
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--round", type=int, help="only this one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as path:
        if options.round is None:
            report = campaign(Path(path), options.durability, options.seed, options.states)
        else:
            report = Report()
            run_round(Path(path), options.durability, options.seed, options.round, report)
    sys.stdout.write(f"seed {options.seed}, {options.durability}: {report}\n")
    sys.exit(bool(report.wrong))


if __name__ == "__main__":
    main()
