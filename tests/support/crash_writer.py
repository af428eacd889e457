"""A process that is to be killed: appends for ever, and prints what was acknowledged.

`python -m tests.support.crash_writer DIRECTORY DURABILITY SEED` prints lines of `LENGTH FORK`
after each append or cut that returned. Block i of fork f is `block_of(i, f)`, and local row
`acknowledged` holds the length that its batch leads to.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import trio

from hypercore import Core, Durability, open_corestore

NAME = "log"
ROW = b"length"


def block_of(index: int, fork: int) -> bytes:
    return b"%d %d " % (index, fork) * (index % 40 if index % 500 else 3000)


async def change(core: Core, chance: random.Random) -> None:
    if core.length > 400 and chance.random() < 0.01:
        await core.truncate(core.length - chance.randrange(300))
        return
    count = 1 if chance.random() < 0.7 else chance.randrange(1, 60)
    start = core.length
    blocks = [block_of(index, core.fork) for index in range(start, start + count)]
    await core.append(blocks, local={ROW: b"%d" % (start + count)})


async def write(path: Path, durability: Durability, seed: int) -> None:
    chance = random.Random(seed)
    async with open_corestore(path, durability=durability) as store:
        core = await store.get(name=NAME)
        while True:
            await change(core, chance)
            # One write: a line that is cut off was not acknowledged.
            os.write(1, b"%d %d\n" % (core.length, core.fork))


if __name__ == "__main__":
    trio.run(write, Path(sys.argv[1]), Durability.parse(sys.argv[2]), int(sys.argv[3]))
