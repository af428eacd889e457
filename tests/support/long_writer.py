"""A process that is to be killed, or whose disk is traced: long appends beside short ones.

`python -m tests.support.long_writer DIRECTORY DURABILITY [CALLS NUMBER MOMENT]`: the core `log`
gets one block and then, in pieces, `LONG` at once, of which most go into tables of their own;
meanwhile `other` gets one block after the other. What returned is printed: the core and its length.
With the last three arguments it kills itself before or after that call (`power_cut.die_at_call`),
or, when the moment is `never`, the call fails, and the store is recovered; nothing is printed if
none did.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import trio

from hypercore import Core, Durability, StorageFailed, open_corestore
from tests.support.power_cut import Calls, die_at_call, fail_calls, stop_failing
from tests.support.storage_rows import verify_core

MUCH = 1 << 30
"""What is said to come: less is written, and in the same way."""

LONG = 90
_BLOCK_BYTES = 60_000
_PIECE = 7
ROW = b"length"


def block_of(index: int) -> bytes:
    if index % (LONG + 1) == 0:
        return b"short %d" % index
    return random.Random(index).randbytes(_BLOCK_BYTES)


async def write(path: Path, durability: Durability) -> None:
    async with open_corestore(path, durability=durability) as store:
        log, other = await store.get(name="log"), await store.get(name="other")
        await log.append(block_of(log.length))
        say("log", log.length)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_other, other)
            await append_long(log)
            say("log", log.length)
            nursery.cancel_scope.cancel()


async def fail_once(path: Path, durability: Durability, calls: Calls, number: int) -> None:
    async with open_corestore(path, durability=durability) as store:
        log = await store.get(name="log")
        await log.append(block_of(0))
        fail_calls(calls, after=number, count=1, error=errno.EIO)
        try:
            await append_long(log)
        except StorageFailed:
            await store.recover()
            if log.length == 1:
                await append_long(log)
        if stop_failing():
            say("log", log.length)


async def append_long(log: Core) -> None:
    start = log.length
    await log.append_pieces(pieces(start), local={ROW: b"%d" % (start + LONG)}, expected_bytes=MUCH)
    await log.wait_durable()


def pieces(start: int) -> Iterator[list[bytes]]:
    stop = start + LONG
    for first in range(start, stop, _PIECE):
        yield [block_of(index) for index in range(first, min(first + _PIECE, stop))]


async def write_other(core: Core) -> None:
    while True:
        await core.append(b"other %d" % core.length)
        say("other", core.length)
        await trio.lowlevel.checkpoint()


def say(name: str, length: int) -> None:
    os.write(1, f"{name} {length}\n".encode())


async def check(path: Path, said: bytes, *, is_promised: bool) -> int:
    """Verify both cores, and that they go on; returns the length of `log`, by what was `said`."""
    lines = [line.split() for line in said.splitlines(keepends=True) if line.endswith(b"\n")]
    promised = {name: int(length) for name, length in lines} if is_promised else {}
    async with open_corestore(path, durability=Durability.OS) as store:
        assert not [*(path / "db").glob("ahead-*")]
        log, other = await store.get(name="log"), await store.get(name="other")
        found = log.length
        assert found in (0, 1, 1 + LONG), "a part of a long append"
        assert log.get_local_value(ROW) == (b"%d" % found if found > 1 else None)
        for index in range(found):
            assert await log.get(index, wait=False) == block_of(index)
        for core, name in ((log, b"log"), (other, b"other")):
            assert core.length >= promised.get(name, 0)
            await core.append(b"after")
            assert verify_core(store.storage, core.discovery_key) == core.length
        return found


if __name__ == "__main__":
    arguments = Path(sys.argv[1]), Durability.parse(sys.argv[2])
    death = sys.argv[3:]
    if death[2:] == ["never"]:
        trio.run(fail_once, *arguments, Calls(int(death[0])), int(death[1]))
    else:
        if death:
            die_at_call(Calls(int(death[0])), int(death[1]), is_after=death[2] == "after")
        trio.run(write, *arguments)
