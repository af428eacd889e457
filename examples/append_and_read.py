"""Append to a log, read it back, and open it again: `python examples/append_and_read.py DIRECTORY`.

The JavaScript corestore can open the directory, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from hypercore import encode_id, open_corestore


async def main(directory: Path) -> None:
    async with open_corestore(directory) as store:
        core = await store.get(name="diary")
        first = await core.append([b"It rained.", b"Still raining."])
        print(f"wrote blocks {first} to {core.length - 1} of core {encode_id(core.key)}")

    async with open_corestore(directory) as store:
        core = await store.get(name="diary")
        async for block in core.blocks():
            print(block.decode())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trio.run(main, Path(sys.argv[1]))
