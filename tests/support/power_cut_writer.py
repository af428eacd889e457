"""A process whose disk is traced: works off a `store_script`, and prints what was acknowledged.

`python -m tests.support.power_cut_writer DIRECTORY DURABILITY SEED CHANGES`. Half of all runs end
without closing the store, and half open it twice.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import trio

from hypercore import Durability, open_corestore
from tests.support.store_script import Script


async def run(path: Path, durability: Durability, seed: str, changes: int) -> None:
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 2)):
        async with open_corestore(path, durability=durability) as store:
            await Script(store, chance, changes).run()
            if chance.random() < 0.2:
                await store.reclaim()
            if chance.random() < 0.5:
                os._exit(0)


if __name__ == "__main__":
    directory, durability, seed, changes = sys.argv[1:]
    trio.run(run, Path(directory), Durability.parse(durability), seed, int(changes))
