"""A process whose disk is traced: two tasks change one core, and a peer prints what it is told.

`python -m tests.support.told_heads_writer DIRECTORY DURABILITY SEED CHANGES`. A line is
"FORK LENGTH HASH"; the tree's hash is missing where the peer has heard of the length alone.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from hypercore import Core, Durability, open_corestore
from hypercore.replication.messages import PROTOCOL, MessageType, Sync
from tests.support.memory_mux import Message, memory_mux_pair

TASKS = 2


def say(fork: int, length: int, tree_hash: bytes = b"") -> None:
    os.write(1, f"{fork} {length} {tree_hash.hex()}\n".encode())


def say_lengths(messages: Sequence[Message]) -> None:
    for kind, payload in messages:
        if kind == MessageType.SYNC:
            sync = Sync.decode(payload)
            say(sync.fork, sync.length)


async def say_heads(copy: Core) -> None:
    while True:
        await copy.wait_change(copy.length, copy.fork)
        say(copy.fork, copy.length, copy.tree_hash())


async def change(core: Core, chance: random.Random, changes: int) -> None:
    for number in range(changes):
        match chance.randrange(6):
            case 0:
                await core.truncate(core.length - chance.randint(0, min(core.length, 3)))
            case 1:
                core.append_nowait(b"unawaited %d" % number)
            case 2:
                await core.write_local({b"row": b"%d" % number})
            case _:
                await core.append([b"block %d" % number] * chance.randint(1, 3))
        for _ in range(chance.randrange(4)):
            await trio.lowlevel.checkpoint()


async def run(path: Path, durability: Durability, seed: str, changes: int) -> None:
    chance = random.Random(seed)
    near, far = memory_mux_pair()
    far.note = say_lengths
    async with (
        open_corestore(path, durability=durability) as store,
        open_corestore(None) as other,
        trio.open_nursery() as peers,
    ):
        core = await store.get(name="log")
        copy = await other.get(key=core.key)
        for mux, end in ((near, core), (far, copy)):
            mux.expected.add((PROTOCOL, core.discovery_key))
            peers.start_soon(end.serve, mux)
        peers.start_soon(say_heads, copy)
        async with trio.open_nursery() as writers:
            for _ in range(TASKS):
                writers.start_soon(change, core, chance, changes)
        peers.cancel_scope.cancel()


if __name__ == "__main__":
    directory, durability, seed, changes = sys.argv[1:]
    trio.run(run, Path(directory), Durability.parse(durability), seed, int(changes))
