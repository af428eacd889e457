"""A process whose disk is traced: writes for a while, and prints what was acknowledged.

`python -m tests.support.power_cut_writer DIRECTORY DURABILITY SEED CHANGES` prints a line
`log LENGTH FORK` after each append or cut that returned, and `row NUMBER` after each write of
local rows alone. Local row `length` is in the batch of the append that leads to this length. In
a group mode four tasks write at once. Half of all runs end without closing the store.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import trio

from hypercore import Core, Durability, open_corestore
from hypercore.storage.rocks import RocksStorage
from tests.support.crash_writer import NAME, ROW, block_of

NUMBER = b"number"
"""The local row that is written alone."""

_TASKS = 4
_LARGE_BYTES = 300_000


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


class Writer:
    def __init__(self, core: Core, chance: random.Random, changes: int, *, may_cut: bool) -> None:
        self.core = core
        self.chance = chance
        self.changes = changes
        self.may_cut = may_cut
        self.number = int(core.get_local_value(NUMBER) or 0)

    async def write(self) -> None:
        while self.changes > 0:
            self.changes -= 1
            draw = self.chance.random()
            if draw < 0.08:
                await self.write_row()
            elif draw < 0.10 and self.may_cut and self.core.length > 50:
                length = self.core.length - self.chance.randrange(1, 50)
                await self.core.truncate(length)
                say(f"log {length} {self.core.fork}")
            else:
                await self.append(draw)

    async def write_row(self) -> None:
        self.number += 1
        number = self.number
        rows = {NUMBER: b"%d" % number}
        if self.chance.random() < 0.5:
            await self.core.write_local(rows)
        else:
            await self.core.append([], local=rows)
        say(f"row {number}")

    async def append(self, draw: float) -> None:
        core = self.core
        if draw < 0.16:
            blocks = [self.chance.randbytes(_LARGE_BYTES) for _ in range(int(draw * 40))]
        else:
            count = 1 if draw < 0.7 else self.chance.randrange(1, 60)
            first = core.length
            blocks = [block_of(index, core.fork) for index in range(first, first + count)]
        async with core.exclusive():
            length = core.length + len(blocks)
            core.append_nowait(blocks, local={ROW: b"%d" % length})
            fork = core.fork
        await core.wait_durable(length)
        say(f"log {length} {fork}")


async def run(path: Path, durability: Durability, seed: int, changes: int) -> None:
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 2)):
        async with open_corestore(path, durability=durability) as store:
            core = await store.get(name=NAME)
            tasks = _TASKS if durability.delay_seconds else 1
            writer = Writer(core, chance, changes, may_cut=tasks == 1)
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(writer.write)
            if chance.random() < 0.2 and isinstance(store.storage, RocksStorage):
                store.storage.compact()
            if chance.random() < 0.5:
                os._exit(0)


if __name__ == "__main__":
    arguments = Path(sys.argv[1]), Durability.parse(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    trio.run(run, *arguments)
