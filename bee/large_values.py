"""A bee whose large values are kept as blobs, so that its tree stays small.

A value is stored in the bee behind a zero byte, or, if it is longer than the threshold, as a blob
(`blobs`), of which the bee stores the id behind a byte of one. The blob is on the disk before
anything names it, and loses its name before it goes: a crash in between leaves blocks that nobody
reads, never a name without a blob. `LargeValueBee.sweep` gives them up.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Generic

from bee.batch import Entry
from bee.bee import Bee
from bee.blobs import BlobId, Blobs
from bee.errors import CorruptTree
from bee.keyspace import K
from bee.readable_bee import Change
from hypercore.errors import BlockNotAvailable

THRESHOLD_BYTES = 4096

_INLINE = b"\0"
_BLOB = b"\1"


class LargeValueBee(Generic[K]):
    """Keys in a bee, values in it or beside it. Change its keys only through this."""

    def __init__(
        self,
        bee: Bee[K, bytes],
        blobs: Blobs,
        *,
        threshold_bytes: int = THRESHOLD_BYTES,
        keeps_old_values: bool = False,
    ) -> None:
        """Values of more than `threshold_bytes` become blobs.

        Unless it `keeps_old_values`, the blob of a value that was replaced or deleted is cleared:
        older versions of the bee name it still, and cannot read it.
        """
        self.bee = bee
        self.blobs = blobs
        self._threshold_bytes = threshold_bytes
        self._keeps_old_values = keeps_old_values
        self._unnamed: list[int] = []
        """Where the log of blobs ended when each put that is under way began."""

    async def put(self, key: K, value: bytes) -> None:
        """Put a value; returns when it is durable. A blob that was not named is cleared.

        Raises: as `Bee.put` and `Blobs.put`. Cancel: the value may have been put; then the blob of
        the value before it may stay.
        """
        if len(value) <= self._threshold_bytes:
            await self._store(key, _INLINE + value, None)
            return
        start = self.blobs.length
        self._unnamed.append(start)
        try:
            blob = await self.blobs.put(value)
            await self._store(key, _BLOB + blob.encode(), blob)
        finally:
            self._unnamed.remove(start)

    async def _store(self, key: K, stored: bytes, blob: BlobId | None) -> None:
        unnamed_at = math.inf
        try:
            async with self.bee.batch() as batch:
                old = await batch.get(key)
                await batch.put(key, stored)
                unnamed_at = self.bee.version
        except BaseException:
            # The blob has its name if only the wait for the disk has failed, or was canceled.
            if blob is not None and self.bee.version <= unnamed_at:
                await self.blobs.clear(blob)
            raise
        await self._clear(old)

    async def delete(self, key: K) -> bool:
        """Delete a key; whether it was there. Raises and Cancel: as `put`."""
        async with self.bee.batch() as batch:
            old = await batch.get(key)
            is_there = await batch.delete(key)
        await self._clear(old)
        return is_there

    async def sweep(self) -> int:
        """Give up blobs that no key names, as a crash leaves them; returns how many blocks.

        The log of blobs must hold no blobs that others name. Every entry is read once; puts go on
        meanwhile. Where old values are kept, those that the bee's history names stay as well.

        Raises: as `Bee.range` or `Bee.history`, CorruptTree, and as `Blobs.keep_only`; nothing is
        given up then. Cancel: as `Blobs.keep_only`.
        """
        since = min(self._unnamed, default=self.blobs.length)
        async with aclosing(self._named()) as named:
            return await self.blobs.keep_only(named, since=since)

    async def _named(self) -> AsyncGenerator[BlobId, None]:
        async for entry in self.bee.history() if self._keeps_old_values else self.bee.range():
            if entry.value is not None and isinstance(blob := _parse(entry), BlobId):
                yield blob

    async def _clear(self, old: Entry[K, bytes] | None) -> None:
        stored = None if old is None or self._keeps_old_values else _parse(old)
        if isinstance(stored, BlobId):
            await self.blobs.clear(stored)

    async def get(self, key: K) -> bytes | None:
        """A whole value, None if there is no such key. Raises: as `Bee.get` and `Blobs.get`."""
        return await self._read(key, 0, None)

    async def get_part(self, key: K, start: int, stop: int) -> bytes | None:
        """Bytes [start, stop) of a value, fewer where it ends; of a blob only that part is read.

        Raises: as `get`.
        """
        return await self._read(key, start, stop)

    async def _read(self, key: K, start: int, stop: int | None) -> bytes | None:
        stored = await self._stored(key)
        while isinstance(stored, BlobId):
            end = stored.byte_length if stop is None else min(stop, stored.byte_length)
            try:
                return await self.blobs.get(stored, min(start, end), end)
            except BlockNotAvailable:
                # Another value was put meanwhile, which cleared the blob of this one.
                before, stored = stored, await self._stored(key)
                if stored == before:
                    raise
        return None if stored is None else stored[start:stop]

    async def size(self, key: K) -> int | None:
        """Bytes of a value, None if there is no such key. Raises: as `Bee.get`."""
        stored = await self._stored(key)
        if stored is None:
            return None
        return stored.byte_length if isinstance(stored, BlobId) else len(stored)

    async def _stored(self, key: K) -> bytes | BlobId | None:
        entry = await self.bee.get(key)
        return None if entry is None else _parse(entry)


def _parse(entry: Entry[K, bytes] | Change[K, bytes]) -> bytes | BlobId:
    """Raises: CorruptTree."""
    stored = entry.value or b""
    if stored[:1] == _INLINE:
        return stored[1:]
    if stored[:1] != _BLOB:
        raise CorruptTree(entry.seq, "neither a value nor the id of a blob")
    try:
        return BlobId.decode(stored[1:])
    except ValueError as error:
        raise CorruptTree(entry.seq, f"id of a blob: {error}") from error
