"""Runs seeds, or shows one: see the package."""

from __future__ import annotations

import argparse
import sys
import time

from tests.conversations.campaign import Campaign
from tests.conversations.party import Cost, Outcome

COMMAND = "python -m tests.conversations"


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many (200)")
    parser.add_argument("--start", type=int, default=0, help="the first one (0)")
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument(
        "--original", action="store_true", help="beside cojson's server, and nothing is lost"
    )
    parser.add_argument("--trace", action="store_true", help="print what is said")
    options = parser.parse_args()
    seeds = range(options.start, options.start + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    with Campaign(has_original=options.original) as campaign:
        started = time.perf_counter()
        for seed in seeds:
            outcome = campaign.run(seed)
            if options.trace:
                sys.stdout.write("".join(f"{line}\n" for line in outcome.trace))
            if outcome.faults:
                sys.stdout.write(_described(outcome, has_original=options.original))
                sys.stdout.flush()
            if campaign.report.seeds % 100 == 0:
                failed = len(campaign.report.failures)
                sys.stderr.write(f"{campaign.report.seeds} seeds, {failed} failed\n")
    report = campaign.report
    sys.stdout.write(
        f"{report.seeds} seeds from {seeds.start} in {time.perf_counter() - started:.0f} s: "
        f"{len(report.failures)} failed, {report.written} transactions written, {report.early} of "
        f"{report.heard} messages early; ours {_costs(report.ours)}"
    )
    if options.original:
        faulty = len(report.original_failures)
        sys.stdout.write(f", original {_costs(report.original)}, at fault in {faulty}")
    sys.stdout.write("\n")
    sys.exit(1 if report.failures else 0)


def _described(outcome: Outcome, *, has_original: bool) -> str:
    lines = [f"seed {outcome.seed}: {len(outcome.faults)} faults"]
    lines += [f"  {fault}" for fault in outcome.faults[:10]]
    option = " --original" if has_original else ""
    lines.append(f"  repeat: {COMMAND} --seed {outcome.seed}{option} --trace")
    return "".join(f"{line}\n" for line in lines)


def _costs(cost: Cost) -> str:
    return f"{cost.messages} messages, {cost.transactions} transactions, {cost.letters} bytes"


if __name__ == "__main__":
    main()
