"""Random lives of cores that JavaScript and we share (`tests.interop.random_life`).

    python -m tests.interop.replication_campaign --seeds 100 --start 0

The originals fail some lives among themselves. So one that fails is lived again by JavaScript
alone, and by ours alone. It counts as ours when it fails again with both kinds, or with ours
alone, and never with JavaScript alone. `--seed N` lives one once and tells what happens.
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
from tests.interop.random_life import Outcome, live

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
            by_originals = self._failed_again(seed, JS)
            by_both = None if by_originals else self._failed_again(seed, None)
            by_ours = self._failed_again(seed, OURS, 1)
            outcome.verdict = (
                "the originals'" if by_originals else "ours" if by_both or by_ours else "chance"
            )
            for name, other in ("JavaScript", by_originals), ("ours", by_ours):
                told = "; ".join(other.faults) if other else "no fault"
                outcome.faults.append(f"{name} alone: {told}")
        self.verdicts[outcome.verdict] += 1
        return outcome

    def _failed_again(
        self, seed: int, only: str | None, times: int = REPETITIONS
    ) -> Outcome | None:
        lives = (self.live(seed, only) for _ in range(times))
        return next((outcome for outcome in lives if outcome.faults), None)


def main() -> None:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many (100)")
    parser.add_argument("--start", type=int, default=0, help="the first one (0)")
    parser.add_argument("--seed", type=int, help="this one only, once, with what happens")
    options = parser.parse_args()
    with Campaign() as campaign:
        if options.seed is not None:
            outcome = campaign.live(options.seed)
            _tell(outcome.trace + outcome.faults)
            sys.exit(bool(outcome.faults))
        for seed in range(options.start, options.start + options.seeds):
            outcome = campaign.judge(seed)
            if outcome.faults:
                kinds = " ".join(outcome.kinds)
                _tell([f"seed {seed} ({kinds}): {outcome.verdict}"])
                _tell(f"  {fault}" for fault in outcome.faults)
    verdicts = ", ".join(f"{count} {name}" for name, count in campaign.verdicts.most_common())
    _tell([f"{options.seeds} seeds from {options.start}: {verdicts}"])
    sys.exit(bool(campaign.verdicts["ours"]))


def _tell(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
