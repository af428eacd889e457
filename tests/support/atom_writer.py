"""A process that is to be killed, or whose disk is traced: changes three cores at once, for ever.

`python -m tests.support.atom_writer DIRECTORY DURABILITY SEED CHANGES` prints the number of each
atom that returned. Atom n ends every core with block `n` and puts `n` into its local row; before
that it may cut a core, clear some of it, or leave the atom with an exception. CHANGES 0 is no end.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import count
from pathlib import Path

import trio

from hypercore import Corestore, Durability, open_corestore
from tests.support.storage_rows import verify_core

NAMES = ("one", "two", "three")
ROW = b"atom"


class Abandoned(Exception):
    """Leaves an atom without a commit."""


async def change(store: Corestore, number: int, chance: random.Random) -> None:
    cores = [await store.get(name=name) for name in NAMES]
    is_abandoned = chance.random() < 0.1
    try:
        async with store.atom(*cores) as atom:
            for core in cores:
                draft = atom[core]
                if draft.length > 20 and chance.random() < 0.1:
                    draft.truncate(draft.length - chance.randrange(1, 20))
                if draft.length > 20 and chance.random() < 0.1:
                    draft.clear(3, chance.randrange(4, 20))
                size = chance.choice((1, 1, 1, 40))
                draft.append([b"%d" % number * chance.randrange(1, 200)] * (size - 1))
                draft.append(b"%d" % number)
                draft.write_local({ROW: b"%d" % number})
            if is_abandoned:
                raise Abandoned
    except Abandoned:
        await change(store, number, chance)
    finally:
        for core in cores:
            await core.close()


async def check(path: Path) -> int:
    """Verify all three cores, and that they are of one atom; returns its number."""
    async with open_corestore(path, durability=Durability.OS) as store:
        found = set()
        for name in NAMES:
            core = await store.get(name=name)
            verify_core(store.storage, core.discovery_key, may_have_gaps=True)
            row = core.get_local_value(ROW)
            last = await core.get(core.length - 1, wait=False) if core.length else None
            assert row == last, f"{name}: row {row!r} beside block {last!r}"
            found.add(int(row or 0))
        assert len(found) == 1, f"cores of atoms {found}"
        return found.pop()


async def write(path: Path, durability: Durability, seed: int, changes: int) -> None:
    async with open_corestore(path, durability=durability) as store:
        first = int((await store.get(name=NAMES[0])).get_local_value(ROW) or 0) + 1
        chance = random.Random(seed)
        for number in range(first, first + changes) if changes else count(first):
            await change(store, number, chance)
            os.write(1, b"%d\n" % number)


if __name__ == "__main__":
    arguments = Path(sys.argv[1]), Durability.parse(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    trio.run(write, *arguments)
