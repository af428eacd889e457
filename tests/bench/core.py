"""One log on one disk, as `js/core.js`: `python -m tests.bench.core --case append1_100`."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from hypercore import Core, Durability, open_corestore
from tests.bench import lib


@asynccontextmanager
async def open_log(path: Path, durability: str) -> AsyncIterator[Core]:
    async with open_corestore(path, durability=Durability.parse(durability)) as store:
        yield await store.get(name="bench")


async def append_one(name: str, size: int, n: int, durability: str) -> None:
    path = lib.temporary(name)
    async with open_log(path, durability) as core:
        for i in range(500):
            await core.append(lib.block(i, size))
        latencies = []
        written, cpu, started = lib.written_bytes(), lib.cpu_seconds(), lib.now()
        before = started
        for i in range(n):
            await core.append(lib.block(i, size))
            after = lib.now()
            latencies.append(after - before)
            before = after
        lib.line(
            name,
            n,
            lib.now() - started,
            n * size,
            **lib.latency(latencies),
            cpu_s=round(lib.cpu_seconds() - cpu, 2),
            written_per_block=round((lib.written_bytes() - written) / n),
        )
    lib.disk_line(name + "_disk", n, path, n + 500)
    lib.remove(path)


async def append_batches(name: str, size: int, n: int, durability: str) -> None:
    path = lib.temporary(name)
    batch = 1000
    async with open_log(path, durability) as core:
        await core.append([lib.block(i, size) for i in range(50 if size > 10000 else 1000)])
        written, cpu, started = lib.written_bytes(), lib.cpu_seconds(), lib.now()
        for i in range(0, n, batch):
            await core.append([lib.block(i + j, size) for j in range(batch)])
        lib.line(
            name,
            n,
            lib.now() - started,
            n * size,
            cpu_s=round(lib.cpu_seconds() - cpu, 2),
            written_per_block=round((lib.written_bytes() - written) / n),
        )
        length = core.length
    lib.disk_line(name + "_disk", n, path, length)
    lib.remove(path)


async def get_reopen(n: int, size: int, durability: str) -> None:
    path = lib.temporary("get")
    async with open_log(path, durability) as core:
        for i in range(0, n, 1000):
            await core.append([lib.block(i + j, size) for j in range(1000)])
    started = lib.now()
    async with open_log(path, durability) as core:
        lib.line("reopen_1e5", 1, lib.now() - started, 0)
        assert core.length == n
        started = lib.now()
        await core.get(n >> 1)
        lib.line("first_get_after_reopen", 1, lib.now() - started, 0)
        for i in range(n):
            await core.get(i)
        started = lib.now()
        for i in range(n):
            await core.get(i)
        lib.line("get_seq_warm", n, lib.now() - started, n * size)
        rng = lib.Rng(7)
        started = lib.now()
        for _ in range(n):
            await core.get(rng.below(n))
        lib.line("get_rand_warm", n, lib.now() - started, n * size)
        started = lib.now()
        for _ in range(0, n, 128):
            await core.get_many([rng.below(n) for _ in range(128)])
        lib.line("get_rand_warm_128inflight", n, lib.now() - started, n * size)
        started = lib.now()
        count = 0
        async for block in core.blocks():
            count += len(block) > 0
        lib.line("readstream", count, lib.now() - started, count * size)
    lib.remove(path)


CASES: dict[str, Callable[[int, str], Awaitable[None]]] = {
    "append1_100": lambda n, d: append_one("append1_100", 100, n or 20000, d),
    "append1_1k": lambda n, d: append_one("append1_1k", 1024, n or 20000, d),
    "batch1000_100": lambda n, d: append_batches("batch1000_100", 100, n or 200000, d),
    "batch1000_64k": lambda n, d: append_batches("batch1000_64k", 65536, n or 4000, d),
    "get_reopen": lambda n, d: get_reopen(n or 100000, 100, d),
}


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.core")
    parser.add_argument("--case", default="all", help=", ".join(CASES))
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--durability", default="os", help="os (as JS), commit or group(MS)")
    options = parser.parse_args()
    for case in CASES if options.case == "all" else options.case.split(","):
        await CASES[case](options.n, options.durability)


if __name__ == "__main__":
    trio.run(main)
