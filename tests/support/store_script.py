"""What a process does to its store until it is killed or its power is cut, from one seed.

Three tasks work at once, on three cores of one store, and say (`store_promises` reads it) what
they are about to do and what was acknowledged:

* `log`, ours: appends of one or many blocks, small and large, in one batch with a local row that
  says which fork and length it leads to; truncations; local rows alone.
* `cleared`, ours: appends, and clearing of runs and of scattered blocks.
* `replica`, somebody else's, of which some ranges are fetched over replication, and cleared
  again. Its writer lives in the memory of the same process; from a fork and a length it makes
  the same history every time (`origin_of`), and now and then it begins a new one.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from hypercore import Core, Corestore, open_corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.memory_mux import memory_mux_pair
from tests.support.store_promises import NUMBER, POSITION, SOURCE_KEYS, open_cores

_LARGE_BYTES = 300_000
_LONGEST = 400
_PATIENCE_SECONDS = 60


def block_of(index: int, fork: int) -> bytes:
    return b"%d %d " % (index, fork) * (1 + index % 40 if index % 500 else 3000)


def cut_of(fork: int) -> int:
    """Where the replica's writer began this fork."""
    return 20 + fork * 37 % 60 if fork else 0


def origin_of(index: int, fork: int) -> int:
    """In which fork of the replica's core its block `index` was appended."""
    return max(earlier for earlier in range(fork + 1) if cut_of(earlier) <= index)


def source_blocks(start: int, stop: int, fork: int) -> list[bytes]:
    return [block_of(index, origin_of(index, fork)) for index in range(start, stop)]


def say(text: str) -> None:
    # One write: a line that is cut off was not acknowledged.
    os.write(1, text.encode() + b"\n")


@asynccontextmanager
async def replicating(replica: Core) -> AsyncIterator[Core]:
    """The core's writer in memory, as it was when the replica saw it last, and connected."""
    async with open_corestore(None) as store:
        source = await store.get(key_pair=SOURCE_KEYS)
        length = max(replica.length, 100)
        await source.append(source_blocks(0, length + 1, replica.fork))
        if replica.fork:
            await source.truncate(length, replica.fork)
        theirs, ours = memory_mux_pair()
        for mux in (theirs, ours):
            mux.expected.add((PROTOCOL, replica.discovery_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.replication.serve, theirs)
            nursery.start_soon(replica.replication.serve, ours)
            yield source
            nursery.cancel_scope.cancel()


class Script:
    """All that happens in one open store; `changes` bounds how much."""

    def __init__(
        self,
        store: Corestore,
        chance: random.Random,
        changes: float,
        tell: Callable[[str], None] = say,
    ) -> None:
        self.store = store
        self.say = tell
        self.chance = chance
        self.changes = changes

    async def run(self) -> None:
        """Work until all changes are made."""
        cores = await open_cores(self.store)
        async with replicating(cores["replica"]) as source, trio.open_nursery() as nursery:
            nursery.start_soon(self._write_log, cores["log"])
            nursery.start_soon(self._clear, cores["cleared"])
            nursery.start_soon(self._ingest, cores["replica"], source)

    async def _goes_on(self) -> bool:
        await trio.lowlevel.checkpoint()  # without a disk to wait for, the others would starve
        self.changes -= 1
        return self.changes >= 0

    async def _write_log(self, core: Core) -> None:
        chance = self.chance
        while await self._goes_on():
            draw = chance.random()
            if draw < 0.05:
                await self._write_row(core)
            elif draw < (0.3 if core.length > _LONGEST else 0.08) and core.length > 50:
                await core.truncate(core.length - chance.randrange(1, core.length // 2))
                self.say(f"log = {core.length} {core.fork}")
            elif draw < 0.085:
                await self.store.reclaim()
            else:
                await self._append(core, draw)

    async def _write_row(self, core: Core) -> None:
        number = int(core.get_local_value(NUMBER) or 0) + 1
        rows = {NUMBER: b"%d" % number}
        if self.chance.random() < 0.5:
            await core.write_local(rows)
        else:
            await core.append([], local=rows)
        self.say(f"log row {number}")

    async def _append(self, core: Core, draw: float) -> None:
        if draw < 0.1:
            blocks = [self.chance.randbytes(_LARGE_BYTES) for _ in range(self.chance.randint(1, 3))]
        else:
            count = 1 if draw < 0.7 else self.chance.randrange(1, 60)
            first = core.length
            blocks = [block_of(index, core.fork) for index in range(first, first + count)]
        position = b"%d %d" % (core.fork, core.length + len(blocks))
        await core.append(blocks, local={POSITION: position})
        self.say(f"log = {core.length} {core.fork}")

    async def _clear(self, core: Core) -> None:
        chance = self.chance
        while await self._goes_on():
            length = core.length
            if length < 50 or (length < _LONGEST and chance.random() < 0.5):
                count = chance.randrange(1, 30)
                await core.append([block_of(index, 0) for index in range(length, length + count)])
                self.say(f"cleared + {length} {length + count}")
                continue
            start = chance.randrange(length)
            stop = min(length, start + chance.randrange(1, 40))
            if chance.random() < 0.5:
                self.say(f"cleared ?- {start} {stop}")
                await core.clear(start, stop)
                self.say(f"cleared - {start} {stop}")
            else:
                indices = sorted(chance.sample(range(start, stop), (stop - start + 1) // 2))
                numbers = " ".join(map(str, indices))
                self.say(f"cleared ?-- {numbers}")
                await core.clear_many(indices, local={NUMBER: numbers.encode()})
                self.say(f"cleared -- {numbers}")

    async def _ingest(self, core: Core, source: Core) -> None:
        chance = self.chance
        while await self._goes_on():
            draw = chance.random()
            if source.length > _LONGEST or draw < 0.05:
                await self._begin_fork(core, source)
            elif draw < 0.2 and core.length:
                start = chance.randrange(core.length)
                stop = min(core.length, start + chance.randrange(1, 40))
                self.say(f"replica ?- {start} {stop}")
                await core.clear(start, stop)
                self.say(f"replica - {start} {stop}")
            else:
                await self._download(core, source)

    async def _begin_fork(self, core: Core, source: Core) -> None:
        fork = source.fork + 1
        cut = cut_of(fork)
        self.say(f"replica ?fork {cut}")
        await source.truncate(cut, fork)
        await source.append(source_blocks(cut, 100, fork))
        with trio.fail_after(_PATIENCE_SECONDS):
            while core.fork != fork or core.length < 100:
                await core.update()
                await trio.lowlevel.checkpoint()
        await core.wait_durable()
        self.say(f"replica = {core.length} {core.fork}")

    async def _download(self, core: Core, source: Core) -> None:
        count = self.chance.choice([0, 1, 1, 30])
        if count:
            length = source.length
            await source.append(source_blocks(length, length + count, source.fork))
        start = self.chance.randrange(source.length)
        stop = min(source.length, start + self.chance.randrange(1, 60))
        self.say(f"replica ?+ {start} {stop}")
        with trio.fail_after(_PATIENCE_SECONDS):
            await core.download(start, stop)
        await core.wait_durable()
        self.say(f"replica + {start} {stop}")
