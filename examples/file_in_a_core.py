"""A file in a log, and a part of it: `python examples/file_in_a_core.py FILE START STOP`."""

from __future__ import annotations

import sys

import trio

from hypercore import open_corestore


async def main(path: str, start: int, stop: int) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="file")
        async with await trio.open_file(path, "rb") as file, core.append_stream() as stream:
            while piece := await file.read(1 << 20):
                await stream.send_all(piece)
        print(f"{core.byte_length} bytes in {core.length} blocks")
        async with core.byte_stream(start, stop) as stream:
            async for part in stream:
                print(part.decode(), end="")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
