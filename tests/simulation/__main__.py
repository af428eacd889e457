"""Runs seeds, or shows one: see the package."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.simulation.cluster import Outcome, run_seed
from tests.simulation.determinism import HASH_SEED
from tests.simulation.script import write_script


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--start", type=int, default=0, help="the first one (0)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--failures", type=Path, help="append seeds that fail to this file")
    parser.add_argument("--having", help="only seeds in which this happens, as --counts says it")
    parser.add_argument("--again", type=Path, help="only the seeds in such a file")
    parser.add_argument("--nodes", type=int, help="so many, instead of as the seed says")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--counts", action="store_true", help="print how often what happened")
    parser.add_argument("--hasty", action="store_true", help="with disks that do not sync")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        # Sets of bytes would have another order in each process.
        environment = {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], environment
        )
    if options.seed is not None:
        sys.exit(
            _show(
                run_seed(options.seed, nodes=options.nodes, is_hasty=options.hasty), options.trace
            )
        )
    seeds: Sequence[int] = range(options.start, options.start + options.seeds)
    if options.again is not None:
        seeds = read_seeds(options.again.read_text())
    if options.having is not None:
        seeds = [seed for seed in seeds if _has(seed, options.having)]
    run = partial(_run_quietly, nodes=options.nodes, is_hasty=options.hasty)
    seen: Counter[str] = Counter()
    status = _run(seeds, options.jobs, run, options.failures, seen)
    if options.counts:
        sys.stdout.write("".join(f"{seen[what]:8} {what}\n" for what in sorted(seen)))
    sys.exit(status)


def read_seeds(text: str) -> list[int]:
    """The seeds that a file of `--failures` names: the first word of each line."""
    return list(dict.fromkeys(int(line.split()[0]) for line in text.splitlines() if line.strip()))


def _has(seed: int, what: str) -> bool:
    return any(step.what.name.lower() == what for step in write_script(seed).steps)


def _show(outcome: Outcome, is_traced: bool) -> int:
    if is_traced:
        sys.stdout.write("".join(f"{line}\n" for line in outcome.trace))
    sys.stdout.write(_summary(outcome))
    return 1 if outcome.violations else 0


def _summary(outcome: Outcome) -> str:
    lines = [
        f"seed {outcome.seed}: {outcome.values} values, {outcome.acknowledged} acknowledgements "
        f"checked, {outcome.bytes_delivered} bytes, agreed after "
        f"{outcome.seconds_to_converge:.1f} s, digest {outcome.digest & 0xFFFFFFFFFFFFFFFF:016x}"
    ]
    lines += [f"  {violation}" for violation in outcome.violations[:10]]
    if outcome.violations:
        lines.append(f"  repeat: python -m tests.simulation --seed {outcome.seed} --trace")
    return "".join(f"{line}\n" for line in lines)


def _run(
    seeds: Sequence[int],
    jobs: int,
    run: Callable[[int], Outcome],
    failures: Path | None,
    seen: Counter[str],
) -> int:
    started = time.perf_counter()
    failed = 0
    slowest = 0.0
    acknowledged = 0
    for done, outcome in enumerate(_outcomes(seeds, jobs, run), 1):
        acknowledged += outcome.acknowledged
        seen += outcome.seen
        slowest = max(slowest, outcome.seconds_to_converge)
        if outcome.violations:
            failed += 1
            sys.stdout.write(_summary(outcome))
            sys.stdout.flush()
            if failures is not None:
                with failures.open("a") as file:
                    file.write(f"{outcome.seed} {outcome.violations[0]}\n")
        if done % 100 == 0:
            sys.stderr.write(f"{done} seeds, {failed} failed\n")
    seconds = time.perf_counter() - started
    sys.stdout.write(
        f"{len(seeds)} seeds from {min(seeds, default=0)} in {seconds:.0f} s: "
        f"{failed} failed, {acknowledged} acknowledgements checked, "
        f"slowest agreement {slowest:.1f} s\n"
    )
    return 1 if failed else 0


def _outcomes(seeds: Iterable[int], jobs: int, run: Callable[[int], Outcome]) -> Iterator[Outcome]:
    if jobs == 1:
        yield from map(run, seeds)
        return
    with get_context("fork").Pool(jobs) as pool:
        yield from pool.imap_unordered(run, seeds)


def _run_quietly(seed: int, *, nodes: int | None, is_hasty: bool) -> Outcome:
    outcome = run_seed(seed, nodes=nodes, is_hasty=is_hasty)
    outcome.trace.clear()  # it would have to be sent
    return outcome


if __name__ == "__main__":
    main()
