"""What two nodes take of memory as values come: `python -m tests.node.growth_campaign`.

One `beemesh up` has the words of real clients replayed to it, in parts of 10,000 new values of two
transactions each; the other keeps everything of it. A line after each part, once both hold it: what
each node takes. Caches fill with the first 60,000 values or so. In the second half of the campaign
memory may grow by `--kb-per-value` only, so that it says something from 120,000 values on: what is
kept for good of each value is a few bits of bookkeeping and the index of the database.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from node.client import AdminClient
from tests.bench import lib
from tests.bench.__main__ import link_originals
from tests.bench.cojson_replay import Recording, read_recording, upload
from tests.bench.processes import JS
from tests.node.real_scale import resident_mb
from tests.support.running_node import RunningNode, open_running_node

PART_VALUES = 10_000
EDITS = 2


async def record(directory: Path) -> Recording:
    """What a new client says that makes so many values."""
    path = directory / "words.jsonl"
    counts = ("--n", str(PART_VALUES), "--edits", str(EDITS))
    await trio.run_process(["node", "jazz/record.mjs", "--out", str(path), *counts], cwd=JS)
    return await trio.to_thread.run_sync(read_recording, path)


async def count_values(node: RunningNode) -> int:
    client = AdminClient.find(node.data)
    assert client is not None
    status = await trio.to_thread.run_sync(client.status)
    values = status["covalues"]
    assert isinstance(values, int)
    return values


async def grow(directory: Path, values: int, stores: Sequence[str]) -> list[list[float]]:
    """The memory of both nodes in MB, after each part."""
    options = ("--replicate", "all", "--durability", "os", "--log-level", "error")
    first, second = (("--store", store) for store in stores)
    taken: list[list[float]] = []
    async with (
        open_running_node(directory / "first", *options, *first) as source,
        open_running_node(
            directory / "second", *options, *second, "--join", source.ready["ticket"]
        ) as copy,
    ):
        port = int(source.ws.rpartition(":")[2])
        for _ in range(-(-values // PART_VALUES)):
            recording = await record(directory)
            await trio.to_thread.run_sync(partial(upload, port, recording))
            waited = await copy.beemesh("sync", "wait")
            assert waited.code == 0, waited.error
            held = await count_values(source)
            assert await count_values(copy) == held
            taken.append([round(resident_mb(node), 1) for node in (source, copy)])
            lib.emit({"values": held, "mb": taken[-1]})
    return taken


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.node.growth_campaign")
    parser.add_argument("--values", type=int, default=180_000)
    parser.add_argument("--stores", default="bee,hybrid", help="of the two nodes")
    parser.add_argument("--kb-per-value", type=float, default=0.5)
    options = parser.parse_args()
    if options.values < 4 * PART_VALUES:
        parser.error(f"less than {4 * PART_VALUES} values have no second half")
    link_originals()
    with tempfile.TemporaryDirectory() as directory:
        taken = await grow(Path(directory), options.values, options.stores.split(","))
    late = taken[len(taken) // 2 :]
    came = (len(late) - 1) * PART_VALUES
    growth = [
        1024 * (after - before) / came for before, after in zip(late[0], late[-1], strict=True)
    ]
    lib.emit({"kb_per_value": [round(kb, 2) for kb in growth]})
    return int(max(growth) > options.kb_per_value)


if __name__ == "__main__":
    sys.exit(trio.run(main))
