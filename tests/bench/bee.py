"""One bee on one disk, as `js/bee.js`: `python -m tests.bench.bee --case put1`."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bee import Bee
from hypercore import Core
from tests.bench import lib
from tests.bench.core import open_log

VALUE_BYTES = 300
KEY_BYTES = len(lib.tx_key(0, 0))
ENTRY_BYTES = VALUE_BYTES + KEY_BYTES


@asynccontextmanager
async def open_bee(path: Path, durability: str) -> AsyncIterator[tuple[Core, Bee]]:
    async with open_log(path, durability) as core:
        yield core, Bee(core)


class Run:
    """The options of one call, and the cases that use them."""

    def __init__(self, n: int, order: str, durability: str) -> None:
        self.n = n
        self.order = order
        self.durability = durability
        self.suffix = "" if order == "interleaved" else "_" + order

    def keys(self, n: int) -> list[bytes]:
        return [key.encode() for key in lib.key_order(n, self.order)]

    def _disk(self, name: str, n: int, path: Path, byte_length: int) -> None:
        apparent, _ = lib.disk_usage(path)
        lib.emit(
            {
                "case": name + "_disk",
                "n": n,
                "core_bytes_per_key": round(byte_length / n, 1),
                "bytes_per_key": round(apparent / n, 1),
            }
        )
        lib.remove(path)

    async def put_one(self) -> None:
        n = self.n or 10000
        name = "bee_put1" + self.suffix
        path = lib.temporary("bee")
        keys = self.keys(n)
        latencies = []
        async with open_bee(path, self.durability) as (core, bee):
            written, cpu, started = lib.written_bytes(), lib.cpu_seconds(), lib.now()
            before = started
            for i in range(n):
                await bee.put(keys[i], lib.block(i, VALUE_BYTES))
                after = lib.now()
                latencies.append(after - before)
                before = after
            lib.line(
                name,
                n,
                lib.now() - started,
                n * (VALUE_BYTES + KEY_BYTES),
                **lib.latency(latencies),
                cpu_s=round(lib.cpu_seconds() - cpu, 2),
                written_per_key=round((lib.written_bytes() - written) / n),
            )
            byte_length = core.byte_length
        self._disk(name, n, path, byte_length)

    async def put_batches(self, case: str, batch_size: int) -> None:
        n = self.n or 100000
        name = case + self.suffix
        path = lib.temporary("bee")
        keys = self.keys(n)
        async with open_bee(path, self.durability) as (core, bee):
            written, cpu, started = lib.written_bytes(), lib.cpu_seconds(), lib.now()
            peak = 0.0
            for i in range(0, n, batch_size):
                async with bee.batch() as batch:
                    for j in range(i, min(n, i + batch_size)):
                        await batch.put(keys[j], lib.block(j, VALUE_BYTES))
                    peak = max(peak, lib.rss_mb())
            lib.line(
                name,
                n,
                lib.now() - started,
                n * (VALUE_BYTES + KEY_BYTES),
                cpu_s=round(lib.cpu_seconds() - cpu, 2),
                peak_rss_mb=max(peak, lib.rss_mb()),
                written_per_key=round((lib.written_bytes() - written) / n),
            )
            byte_length = core.byte_length
        self._disk(name, n, path, byte_length)

    async def read(self) -> None:
        n = self.n or 100000
        path = lib.temporary("bee")
        keys = self.keys(n)
        async with open_bee(path, self.durability) as (_, bee):
            for i in range(0, n, 1000):
                async with bee.batch() as batch:
                    for j in range(i, min(n, i + 1000)):
                        await batch.put(keys[j], lib.block(j, VALUE_BYTES))
        rng = lib.Rng(3)
        async with open_bee(path, self.durability) as (_, bee):
            await self._get(bee, keys, rng)
            await self._scan(bee, n, rng)
            version = bee.version
            async with bee.batch() as batch:
                for i in range(1000):
                    key = lib.tx_key(rng.below(-(-n // 100)), 100000 + i).encode()
                    await batch.put(key, lib.block(i, VALUE_BYTES))
        async with open_bee(path, self.durability) as (_, bee):
            for state in ("reopened", "warm"):
                started = lib.now()
                count = await _count(bee.diff(version))
                self._line(f"bee_diff1000_{state}", count, lib.now() - started, 0)
        lib.remove(path)

    def _line(self, name: str, count: int, seconds: float, size: int, **more: float) -> None:
        lib.line(name + self.suffix, count, seconds, size, **more)

    async def _get(self, bee: Bee, keys: list[bytes], rng: lib.Rng) -> None:
        n = len(keys)
        started = lib.now()
        assert await bee.get(keys[n >> 1])
        self._line("bee_first_get_reopen", 1, lib.now() - started, 0)
        gets = 20000
        for _ in range(5000):
            await bee.get(keys[rng.below(n)])
        latencies = []
        started = lib.now()
        for _ in range(gets):
            before = lib.now()
            await bee.get(keys[rng.below(n)])
            latencies.append(lib.now() - before)
        seconds = lib.now() - started
        self._line("bee_get_rand_warm", gets, seconds, gets * VALUE_BYTES, **lib.latency(latencies))
        snapshot = bee.snapshot()
        started = lib.now()
        for _ in range(gets):
            await snapshot.get(keys[rng.below(n)])
        seconds = lib.now() - started
        self._line("bee_get_rand_warm_snapshot", gets, seconds, gets * VALUE_BYTES)

    async def _scan(self, bee: Bee, n: int, rng: lib.Rng) -> None:
        started = lib.now()
        count = await _count(bee.range())
        self._line("bee_scan_full", count, lib.now() - started, count * ENTRY_BYTES)
        scans = 200
        count = 0
        started = lib.now()
        for _ in range(scans):
            prefix = lib.co_id(rng.below(-(-n // 100))).encode()
            count += await _count(bee.range(gte=prefix + b":tx:", lt=prefix + b":tx;"))
        seconds = lib.now() - started
        self._line("bee_scan_prefix100", scans, seconds, count * ENTRY_BYTES, entries=count)
        started = lib.now()
        count = await _count(bee.history())
        self._line("bee_history", count, lib.now() - started, count * ENTRY_BYTES)


async def _count(results: AsyncIterator[object]) -> int:
    count = 0
    async for _ in results:
        count += 1
    return count


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bee")
    parser.add_argument("--case", default="all", help="put1, batch_single, batch1000, read")
    parser.add_argument("--n", type=int, default=0)
    parser.add_argument("--order", default="interleaved", help="interleaved, grouped or sorted")
    parser.add_argument("--durability", default="os")
    options = parser.parse_args()
    lib.prepare()
    run = Run(options.n, options.order, options.durability)
    cases: dict[str, Callable[[], Awaitable[None]]] = {
        "put1": run.put_one,
        "batch_single": lambda: run.put_batches("bee_batch_single", options.n or 100000),
        "batch1000": lambda: run.put_batches("bee_batch1000", 1000),
        "read": run.read,
    }
    for case in cases if options.case == "all" else options.case.split(","):
        await cases[case]()


if __name__ == "__main__":
    trio.run(main)
