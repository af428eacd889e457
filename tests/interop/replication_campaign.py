"""Random lives of cores that JavaScript and we share (`tests.interop.random_life`).

    python -m tests.interop.replication_campaign --seeds 100 --start 0

The originals fail some lives among themselves. So one that fails is lived again by JavaScript
alone, and by ours alone. It counts as the originals' when the same parties fail the same checks
with JavaScript alone, or a party of JavaScript shows that the fault is its own. Otherwise it counts
as ours if it fails again with both kinds, or with ours alone. `--seed N` lives one once and tells
what happens.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import Self

import trio

from tests.interop.core_parties import JS, OURS, run_javascript
from tests.interop.random_life import Check, Outcome, live

COMMAND = "python -m tests.interop.replication_campaign"
REPETITIONS = 3
PATIENCE_SECONDS = 5.0


class Campaign:
    """Many lives, on a JavaScript process that is replaced when a life leaves it busy."""

    def __init__(self) -> None:
        self._process = ExitStack()
        self._port = 0
        self.verdicts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._port = self._process.enter_context(run_javascript(PATIENCE_SECONDS))
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.close()

    def live(self, seed: int, only: str | None = None) -> Outcome:
        outcome = trio.run(live, self._port, seed, only)
        if outcome.is_cut_off:
            self.__exit__()
            self.__enter__()
        return outcome

    def judge(self, seed: int) -> Outcome:
        """Live a seed; if it fails, find out whose fault that is."""
        outcome = self.live(seed)
        if outcome.faults:
            outcome.verdict = self._whose(outcome)
        self.verdicts[outcome.verdict] += 1
        return outcome

    def _whose(self, outcome: Outcome) -> str:
        left = unexplained(outcome)
        for _ in range(REPETITIONS):
            if not left:
                return "the originals'"
            alone = self._live_again(outcome, JS)
            left -= {(fault.check, fault.party) for fault in alone.faults}
        if not left:
            return "the originals'"
        fails = bool(self._live_again(outcome, OURS).faults)
        again = (self._live_again(outcome, None) for _ in range(REPETITIONS))
        return "ours" if fails or any(map(unexplained, again)) else "chance"

    def _live_again(self, outcome: Outcome, only: str | None) -> Outcome:
        again = self.live(outcome.seed, only)
        told = "; ".join(fault.text for fault in again.faults) or "no fault"
        name = "again" if only is None else f"{only} alone"
        outcome.repetitions.append(f"{name}: {told}")
        return again


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--start", type=int, default=0, help="the first one (0)")
    parser.add_argument("--seed", type=int, help="this one only, once, with what happens")
    options = parser.parse_args()
    with Campaign() as campaign:
        if options.seed is not None:
            outcome = campaign.live(options.seed)
            _tell(outcome.trace + [fault.text for fault in outcome.faults])
            sys.exit(bool(outcome.faults))
        for seed in range(options.start, options.start + options.seeds):
            outcome = campaign.judge(seed)
            if outcome.faults:
                kinds = " ".join(outcome.kinds)
                _tell([f"seed {seed} ({kinds}): {outcome.verdict}"])
                texts = [fault.text for fault in outcome.faults]
                _tell(f"  {text}" for text in texts + outcome.repetitions)
    verdicts = ", ".join(f"{count} {name}" for name, count in campaign.verdicts.most_common())
    _tell([f"{options.seeds} seeds from {options.start}: {verdicts}"])
    sys.exit(bool(campaign.verdicts["ours"]))


def unexplained(outcome: Outcome) -> set[tuple[Check, int | None]]:
    """Which checks which parties failed, but for those whose own fault it is for certain."""
    return {(fault.check, fault.party) for fault in outcome.faults if not fault.is_originals}


def _tell(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
