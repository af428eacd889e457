"""A process with few open files allowed, and thousands of cores open in one store.

`python -m tests.support.many_cores DIRECTORY COUNT FILES` makes the cores, opens all of them anew,
and prints what that took, as one JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import trio

from hypercore import Core, Corestore, Durability, open_corestore

AT_ONCE = 500


@dataclass(frozen=True)
class Report:
    files: int
    """Descriptors of the process with all cores open."""
    bytes_per_core: float
    """Resident memory that opening an idle core of one block took."""
    seconds_to_open: float
    seconds_to_get: float
    """All of them once more, when they are open."""
    seconds_to_list: float


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def make(store: Corestore, count: int) -> None:
    for start in range(0, count, AT_ONCE):
        cores = [await store.get(name=f"{number}") for number in range(start, start + AT_ONCE)]
        async with store.atom(*cores) as atom:
            for number, core in enumerate(cores, start):
                atom[core].append(b"block of %d" % number)
        for core in cores:
            await core.close()


async def open_all(store: Corestore, count: int) -> list[Core]:
    return [await store.get(name=f"{number}") for number in range(count)]


async def measure(path: Path, count: int) -> Report:
    async with open_corestore(path, durability=Durability.OS) as store:
        await make(store, count)
    gc.collect()
    async with open_corestore(path, durability=Durability.OS) as store:
        before, began = resident_bytes(), time.perf_counter()
        cores = await open_all(store, count)
        opened = time.perf_counter()
        await open_all(store, count)
        got = time.perf_counter()
        listed = [summary async for summary in store.cores()]
        report = Report(
            len(os.listdir("/proc/self/fd")),
            (resident_bytes() - before) / count,
            opened - began,
            got - opened,
            time.perf_counter() - got,
        )
        assert {summary.name for summary in listed} == {f"{number}" for number in range(count)}
        for number, core in enumerate(cores):
            assert await core.get(0) == b"block of %d" % number
    return report


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[3]), int(sys.argv[3])))
    done = trio.run(measure, Path(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write(json.dumps(asdict(done)) + "\n")
