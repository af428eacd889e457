"""The simulation in the gate; it needs fixed string hashes, hence processes of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SEEDS = 200


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        capture_output=True,
        text=True,
        timeout=1200,  # of a simulation that hangs; its own time is virtual
        check=False,
    )


def test_clusters_lose_nothing_and_agree_whatever_goes_wrong() -> None:
    result = simulate("--seeds", str(SEEDS), "--jobs", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{SEEDS} seeds from 0" in result.stdout
    checked = re.search(r"(\d+) acknowledgements checked", result.stdout)
    assert checked is not None
    assert int(checked[1]) > 4 * SEEDS, "clients were hardly served"


def test_nobody_is_to_be_told_of_copies_that_no_node_would_keep(tmp_path: Path) -> None:
    """A node that waits for a second copy, of which every other keeper is shut out meanwhile."""
    seeds = tmp_path / "seeds"
    seeds.write_text("101382\n")
    result = simulate("--again", str(seeds), "--counts")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r" 1 node min copies$", result.stdout, re.MULTILINE)
    assert re.search(r" [1-9]\d* step ban$", result.stdout, re.MULTILINE)


def test_a_seed_replays_exactly() -> None:
    one, other = (simulate("--seed", "3", "--nodes", "4", "--trace") for _ in range(2))
    assert one.stdout == other.stdout
    assert "is safe" in one.stdout
    assert len(one.stdout.splitlines()) > 50
    assert simulate("--seed", "4", "--nodes", "4", "--trace").stdout != one.stdout


def test_an_acknowledgement_that_was_not_durable_is_found_out(tmp_path: Path) -> None:
    """The simulation can fail: a node that acknowledges what is not synced loses it."""
    failures = tmp_path / "failures"
    result = simulate("--seeds", "8", "--start", "13", "--hasty", "--failures", str(failures))
    assert result.returncode == 1
    assert " lost " in result.stdout
    seed, *_ = failures.read_text().splitlines()[0].split()
    failures.write_text(f"{seed} what was wrong\n")
    again = simulate("--again", str(failures), "--hasty")
    assert again.returncode == 1
    assert f"--seed {seed} --trace" in again.stdout
