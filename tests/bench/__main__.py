"""Run pairs, JavaScript and Python in turn, and print the table of ratios for README.

`python -m tests.bench [--reps 3] [--only append1,scan]`: a fresh process per case and peer; the
order flips with every repetition, so that noise hits both. Ratios are of medians, above 1 where
Python is better.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

BENCH = Path(__file__).parent
ROOT = BENCH.parent.parent
NODE_MODULES = BENCH.parent / "interop" / "node_modules"


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of the table: a figure of one line of one script."""

    script: str
    case: str
    line: str
    title: str
    goal: float
    arguments: tuple[str, ...] = ()
    field: str = "ops_per_s"
    less_is_better: bool = False


PAIRS = [
    Pair("core", "append1_100", "append1_100", "single append, 100 B", 2, ("--n", "8000")),
    Pair("core", "batch1000_100", "batch1000_100", "append 1000 x 100 B", 1.2),
    Pair("core", "batch1000_64k", "batch1000_64k", "append 1000 x 64 KiB", 0),
    Pair("core", "get_reopen", "get_seq_warm", "sequential get", 2),
    Pair("core", "get_reopen", "get_rand_warm", "random get", 0),
    Pair("bee", "put1", "bee_put1", "bee put", 2, ("--n", "5000")),
    Pair("bee", "batch1000", "bee_batch1000", "bee put in batches of 1000", 2, ("--n", "50000")),
    Pair("bee", "read", "bee_get_rand_warm", "bee get", 5),
    Pair("bee", "read", "bee_scan_full", "bee scan", 2),
    Pair("bee", "read", "bee_scan_prefix100", "bee scan of 100 entries", 5),
    Pair("bee", "read", "bee_history", "bee history", 6),
    Pair("bee", "read", "bee_diff1000_reopened", "bee diff over 1,000 puts", 5),
    Pair("repl", "full_100b", "full_100b", "replicate 100 B blocks", 3),
    Pair("repl", "full_64k", "full_64k", "replicate 64 KiB blocks", 1.3),
    Pair("core", "append1_100", "append1_100", "memory, single append", 2, ("--n", "8000"),
         "rss_mb", True),
    Pair("core", "batch1000_100", "batch1000_100", "memory, batched append", 2, (), "rss_mb", True),
    Pair("bee", "batch1000", "bee_batch1000", "memory, bee batches", 2, ("--n", "50000"),
         "peak_rss_mb", True),
    Pair("bee", "read", "bee_scan_full", "memory, bee read", 2, (), "rss_mb", True),
    Pair("repl", "full_100b", "full_100b", "memory, replication client", 2, (), "rss_mb", True),
    Pair("repl", "full_100b", "full_100b", "memory, replication server", 2, (), "server_rss_mb",
         True),
    Pair("udx", "loss0_rtt20", "loss0_rtt20", "UDX, 20 ms", 0.8, (), "mb_per_s"),
    Pair("udx", "loss1_rtt20", "loss1_rtt20", "UDX, 20 ms, 1 % lost", 0.8, (), "mb_per_s"),
]  # fmt: skip


def link_originals() -> None:
    """The JavaScript scripts find the originals beside them."""
    link = BENCH / "js" / "node_modules"
    if not link.exists():
        link.symlink_to(NODE_MODULES)


def measure(peer: str, pair: Pair) -> list[dict[str, Any]]:
    options = ["--case", pair.case, *pair.arguments]
    if peer == "js":
        command, cwd = ["node", f"{pair.script}.js", *options], BENCH / "js"
    else:
        command, cwd = [sys.executable, "-m", f"tests.bench.{pair.script}", *options], ROOT
    result = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(text) for text in result.stdout.splitlines() if text.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--only", default="", help="words to look for in script, case and title")
    options = parser.parse_args()
    link_originals()
    words = [word for word in options.only.split(",") if word]
    pairs = [
        p for p in PAIRS if not words or any(w in f"{p.script} {p.case} {p.title}" for w in words)
    ]
    runs = {(p.script, p.case, p.arguments): p for p in pairs}
    figures: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for repetition in range(options.reps):
        for run in runs.values():
            for peer in ("js", "python") if repetition % 2 == 0 else ("python", "js"):
                for row in measure(peer, run):
                    for field, value in row.items():
                        if isinstance(value, int | float):
                            figures[peer, run.script, row["case"], field].append(value)
                print(f"# {peer} {run.script} {run.case} {repetition + 1}", file=sys.stderr)
    print("| what | JavaScript | Python | ratio | mark |\n|---|---:|---:|---:|---:|")
    for pair in pairs:
        js, python = (
            median(figures[peer, pair.script, pair.line, pair.field]) for peer in ("js", "python")
        )
        ratio = js / python if pair.less_is_better else python / js
        unit = "MB" if pair.less_is_better else "MB/s" if pair.field == "mb_per_s" else "/s"
        goal = f"{pair.goal:g}" if pair.goal else ""
        print(f"| {pair.title} | {js:,.0f} {unit} | {python:,.0f} {unit} | {ratio:.1f} | {goal} |")


if __name__ == "__main__":
    main()
