"""Driving `bee_peer.cjs`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bee import BINARY, Batch, Bee
from bee.batch import Edits
from tests.support.peer_process import PeerProcess, open_peer_process

HERE = Path(__file__).parent

Operation = list[Any]
"""["put" or "del", key, value, whether a condition accepts (absent or None: no condition),
names of the subs that lead to the key (absent: none)], in hex."""


@asynccontextmanager
async def open_bee_peer(directory: Path | None = None) -> AsyncIterator[PeerProcess]:
    """A JavaScript corestore on `directory`; it is closed at the end."""
    arguments = [] if directory is None else [str(directory)]
    async with open_peer_process(PeerProcess, ["node", "bee_peer.cjs", *arguments], HERE) as peer:
        yield peer
        await peer("close")


async def apply(bee: Bee, operations: list[Any]) -> None:
    """What the command of that name does: operations, and lists of them as batches."""
    for operation in operations:
        if isinstance(operation[0], str):
            await _apply_one(bee, operation)
            continue
        async with bee.batch() as batch:
            for inner in operation:
                await _apply_one(batch, inner)


async def _apply_one(target: Bee | Batch[bytes, bytes], operation: Operation) -> None:
    kind, key, value, accepts, names = [*operation, None, None][:5]
    cas = None if accepts is None else (lambda _old, _new: bool(accepts))
    place: Bee | Edits[bytes, bytes] = target
    for name in names or ():
        place = place.sub(bytes.fromhex(name), key_encoding=BINARY, value_encoding=BINARY)
    if kind == "put":
        encoded = None if value is None else bytes.fromhex(value)
        await place.put(bytes.fromhex(key), encoded, cas=cas)
    else:
        await place.delete(bytes.fromhex(key), cas=cas)


def shown(entry: tuple[int, bytes, bytes | None] | None) -> list[Any] | None:
    """An entry as JavaScript prints it."""
    if entry is None:
        return None
    seq, key, value = entry
    return [seq, key.hex(), None if value is None else value.hex()]


def key_of(number: int) -> bytes:
    """Keys that the command `fill` puts; their values repeat the lowest byte of the number."""
    return b"key-%07d" % number
