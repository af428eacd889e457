"""A process whose disk fails at one call after the other, run with the shim of `power_cut`.

`python -m tests.support.failing_disk DIRECTORY CALLS COUNT ERROR FIRST STEP RUNS` makes the same
short run again and again: a `store_script`, which appends, truncates, clears and takes in blocks
of a peer. In run n, counted from FIRST, the first n * STEP calls of this sort work and the COUNT
after them fail; the last run is the one that no failure reached, or the RUNSth. It prints one
line: how many runs there were, how many failed while opening, while writing, while closing, how
many recovered in place, and how many calls failed in all.

After a failure nothing is acknowledged, and reads go on, also when recovering is tried too early.
When the disk works again the store recovers without being closed, and has all that was
acknowledged, as it has when it is opened anew.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.errors import StorageError, StorageFailed
from tests.support.power_cut import Calls, fail_calls, stop_failing
from tests.support.store_promises import (
    POSITION,
    Promises,
    broken_promises,
    open_cores,
    verify_store,
    what_is_there,
)
from tests.support.store_script import Script, replicating

_CHANGES = 24
_FOR_EVER = 1000
_PATIENCE_SECONDS = 60


class Run:
    """One store, until something fails, and after."""

    def __init__(self, path: Path, *, fails_for_ever: bool) -> None:
        self.path = path
        self.fails_for_ever = fails_for_ever
        self.promises = Promises()
        self.failed = "opening"
        self.has_recovered = False
        self.hits = 0

    def _take(self, line: str) -> None:
        self.promises.take([line.encode()])

    async def write(self) -> None:
        try:
            async with open_corestore(self.path, durability=Durability.COMMIT) as store:
                cores = await open_cores(store)
                await self._work(store, cores)
        except StorageError:
            assert self.failed != "writing", "the store does not recover"
            self.failed = self.failed or "closing"

    async def _work(self, store: Corestore, cores: Mapping[str, Core]) -> None:
        try:
            await Script(store, random.Random(1), _CHANGES, self._take).run()
            await store.reclaim()
            self.failed = ""
        except (StorageFailed, BaseExceptionGroup) as error:
            _check_failures(error)
            self.failed = "writing"
            await self._after_failure(store, cores)

    async def _after_failure(self, store: Corestore, cores: Mapping[str, Core]) -> None:
        before = check_reads(cores)
        if self.fails_for_ever:
            await must_fail(store.recover)
            assert check_reads(cores) == before, "reads are still served"
        await self._check_refusals(cores)
        self.hits += stop_failing()
        await self._check_refusals(cores)  # a later success hides nothing
        await store.recover()
        self._check(store, cores)
        await go_on(cores)
        verify_store(store, cores)
        self.has_recovered = True

    async def _check_refusals(self, cores: Mapping[str, Core]) -> None:
        log = cores["log"]
        await must_fail(lambda: log.append(b"later"))
        await must_fail(lambda: log.write_local({POSITION: b"later"}))
        await must_fail(lambda: log.truncate(0))
        cleared = cores["cleared"]
        if cleared.length:  # else there is nothing to write
            await must_fail(lambda: cleared.clear(0, cleared.length))

    def _check(self, store: Corestore, cores: Mapping[str, Core]) -> None:
        verify_store(store, cores)
        found = what_is_there(cores)
        broken = broken_promises(self.promises, found)
        assert not broken, broken
        self.promises = found

    async def reopen(self) -> None:
        async with open_corestore(self.path, durability=Durability.COMMIT) as store:
            cores = await open_cores(store)
            if not self.has_recovered:  # else what was appended after is not in the promises
                self._check(store, cores)
            verify_store(store, cores)
            await go_on(cores)
            verify_store(store, cores)


def check_reads(cores: Mapping[str, Core]) -> dict[str, list[bytes]]:
    """Every block that is there."""
    found = {}
    for name, core in cores.items():
        blocks = [core.get_local(index) for index in range(core.length) if core.has(index)]
        found[name] = [block for block in blocks if block is not None]
        assert len(found[name]) == len(blocks)
    return found


async def go_on(cores: Mapping[str, Core]) -> None:
    log, cleared = cores["log"], cores["cleared"]
    await log.append(b"after", local={POSITION: b"%d %d" % (log.fork, log.length + 1)})
    await cleared.append(b"after")
    await cleared.clear(0, 1)
    replica = cores["replica"]
    async with replicating(replica) as source:
        with trio.fail_after(_PATIENCE_SECONDS):
            await replica.wait_length(source.length)
            await replica.download(0, source.length)
    await replica.wait_durable()


def _check_failures(error: BaseException) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _check_failures(inner)
    elif not isinstance(error, StorageFailed):
        raise error


async def must_fail(call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except StorageFailed:
        return
    raise AssertionError("a failed store acknowledged something")


def main(
    directory: Path, calls: Calls, count: int, error: int, first: int, step: int, runs: int
) -> None:
    tally: Counter[str] = Counter()
    for number in range(first, first + runs):
        run = Run(directory / str(number), fails_for_ever=count >= _FOR_EVER)
        fail_calls(calls, after=number * step, count=count, error=error)
        try:
            trio.run(run.write)
            run.hits += stop_failing()
            trio.run(run.reopen)
        except BaseException:
            os.write(2, b"at run %d\n" % number)
            raise
        tally["runs"] += 1
        tally[run.failed] += 1
        tally["recovered"] += run.has_recovered
        tally["hits"] += run.hits
        if not run.hits:
            break
    names = ("runs", "opening", "writing", "closing", "recovered", "hits")
    os.write(1, " ".join(str(tally[name]) for name in names).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Calls(int(sys.argv[2])), *map(int, sys.argv[3:]))
