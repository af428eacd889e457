"""A process whose disk fails at one call after the other, run with the shim of `power_cut`.

`python -m tests.support.failing_disk DIRECTORY CALLS COUNT ERROR STEP` makes the same short run
again and again. In run n the first n * STEP calls of this sort work and the COUNT after them
fail; the last run is the one that no failure reached. It prints one line: how many runs failed
while opening, while writing, and how many calls failed in all.

Nothing may be acknowledged after a failure, reads go on, no later success hides it, and what was
acknowledged is there when the store is opened again.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.errors import StorageError, StorageFailed
from hypercore.storage.rocks import RocksStorage
from tests.support.power_cut import Calls, fail_calls, stop_failing
from tests.support.storage_rows import verify_core

ROW = b"length"
_APPENDS = 12


def block_of(index: int) -> bytes:
    return b"block %d " % index * (1 if index % 5 else 2000)


class Run:
    """One store, until something fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged = 0
        self.failed = ""
        self.hits = 0

    async def write(self) -> None:
        try:
            async with open_corestore(self.path, durability=Durability.COMMIT) as store:
                core = await store.get(name="log")
                self.failed = "closing"
                try:
                    await self._append(store, core)
                except StorageFailed:
                    self.failed = "writing"
                    await self._after_failure(core)
        except StorageError:
            self.failed = self.failed or "opening"
        else:
            self.failed = self.failed if self.failed == "writing" else ""

    async def _append(self, store: Corestore, core: Core) -> None:
        for _ in range(_APPENDS):
            length = core.length + 1
            await core.append(block_of(core.length), local={ROW: b"%d" % length})
            self.acknowledged = length
        assert isinstance(store.storage, RocksStorage)
        store.storage.compact()

    async def _after_failure(self, core: Core) -> None:
        for index in range(self.acknowledged):
            assert core.get_local(index) == block_of(index), "reads are still served"
        for is_mended in (False, True):
            if is_mended:
                self.hits += stop_failing()
            await must_fail(lambda: core.append(b"later"))
            await must_fail(lambda: core.write_local({ROW: b"later"}))
            await must_fail(lambda: core.truncate(0))

    async def reopen(self) -> None:
        async with open_corestore(self.path, durability=Durability.COMMIT) as store:
            core = await store.get(name="log")
            length = verify_core(store.storage, core.discovery_key)
            assert length >= self.acknowledged, f"{self.acknowledged} acknowledged, {length} kept"
            assert int(core.get_local_value(ROW) or 0) == length
            assert [core.get_local(index) for index in range(length)] == [
                block_of(index) for index in range(length)
            ]
            await core.append(b"after")
            verify_core(store.storage, core.discovery_key)


async def must_fail(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except StorageFailed:
        return
    raise AssertionError("a failed store acknowledged something")


def main(directory: Path, calls: Calls, count: int, error: int, step: int) -> None:
    failed: Counter[str] = Counter()
    hits = number = 0
    while True:
        run = Run(directory / str(number))
        fail_calls(calls, after=number * step, count=count, error=error)
        trio.run(run.write)
        failed[run.failed] += 1
        run.hits += stop_failing()
        trio.run(run.reopen)
        if not run.hits:
            break
        hits += run.hits
        number += 1
    os.write(1, f"{failed['opening']} {failed['writing']} {hits}\n".encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Calls(int(sys.argv[2])), *map(int, sys.argv[3:]))
