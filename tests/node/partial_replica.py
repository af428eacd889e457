"""How little a second node fetches: `python -m tests.node.partial_replica --values 20000`.

A real client uploads to one node; a second, empty node joins by ticket and is asked for a few of
the values. Printed are the second node's own words: `beemesh load --json` of each value, and
`beemesh status --json` of both.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from tests.node.node_process import INTEROP, NodeProcess


async def beemesh(data: Path, *arguments: str) -> dict[str, Any]:
    """One verb of the command line, its JSON."""
    command = [sys.executable, "-m", "node", *arguments, "--json", "--data", str(data)]
    result = await trio.run_process(command, capture_stdout=True)
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


async def fill(url: str, values: int) -> list[str]:
    """Upload that many maps with a real client; their ids."""
    command = ["node", "fill.mjs", url, str(values)]
    result = await trio.run_process(command, capture_stdout=True, cwd=INTEROP)
    ids: list[str] = json.loads(result.stdout)["ids"]
    return ids


async def measure(values: int, asked: Sequence[int], directory: Path) -> dict[str, Any]:
    """Fill one node, load some values from a second; what both say."""
    first, second = directory / "first", directory / "second"
    async with NodeProcess(first).running() as full:
        ids = await fill(full["ws"], values)
        async with NodeProcess(second, "--join", full["ticket"]).running():
            loads = [await beemesh(second, "load", ids[index]) for index in asked]
            return {
                "loads": loads,
                "first": await beemesh(first, "status"),
                "second": await beemesh(second, "status"),
            }


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.node.partial_replica")
    parser.add_argument("--values", type=int, default=20000)
    parser.add_argument("--ask", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asked = random.Random(options.seed).sample(range(options.values), options.ask)
    with tempfile.TemporaryDirectory(prefix="beemesh-partial-") as directory:
        found = await measure(options.values, asked, Path(directory))
    for load in found["loads"]:
        sys.stdout.write(json.dumps(load) + "\n")
    for name in ("first", "second"):
        sys.stdout.write(json.dumps({name: found[name]}) + "\n")


if __name__ == "__main__":
    try:
        trio.run(main)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.cmd} ended with {error.returncode}")
