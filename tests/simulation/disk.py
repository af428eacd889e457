"""A disk in memory that may lose what was not synced, and a storage on it.

Commits are kept in the order in which they were made, as a write-ahead log does it. A sync takes
time and makes durable what was committed before it began. When the power goes, all that is
durable stays, and of what came after it any first part; so it is after a sync that failed, once
somebody looks. A disk without room fails commits and syncs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import Enum, auto

import trio

from hypercore.errors import StorageFailed
from hypercore.storage import Durability, LastingBatch, WriteBatch
from hypercore.storage.memory import MemoryBatch, MemorySnapshot, MemoryStorage

LAST_KEY = b"\xff" * 64


CAPACITY_BYTES = 1 << 40


class Shortage(Enum):
    """Why there is no room on a disk."""

    FULL = auto()
    """Others have filled it: what is written fails."""
    QUOTA = auto()
    """More lies in the directory of the node than it may have: it can be written to."""


class Disk:
    """What is left when nobody runs."""

    def __init__(
        self, chance: random.Random, sync_seconds: float, *, is_hasty: bool = False
    ) -> None:
        self.chance = chance
        self.sync_seconds = sync_seconds
        self.is_hasty = is_hasty
        """Says that it has synced before it has: to show that the simulation finds that out."""
        self.rows = MemoryStorage()
        """As of the last sync."""
        self.journal: list[MemoryBatch] = []
        """Committed since."""
        self.syncs = 0
        self.shortage: Shortage | None = None
        self.max_bytes = CAPACITY_BYTES // 2
        """What the node may take."""

    def measure(self) -> tuple[int, int]:
        """Bytes that are free, and those that the node has taken."""
        free = 0 if self.shortage is Shortage.FULL else CAPACITY_BYTES
        return free, self.max_bytes if self.shortage is Shortage.QUOTA else 0

    def copy(self) -> MemoryStorage:
        """All rows as they are now, for who puts them back later."""
        self.sync(len(self.journal))
        return _copy(self.rows)

    def put_back(self, rows: MemoryStorage) -> None:
        """Have the disk as it was when `rows` were copied; nobody may have it open."""
        self.rows = _copy(rows)
        self.journal.clear()

    def sync(self, commits: int) -> None:
        """The first so many commits of the journal are durable from now on."""
        self.syncs += 1
        for batch in self.journal[:commits]:
            self._apply(batch)
        del self.journal[:commits]

    def cut_power(self) -> int:
        """What was not synced is kept up to some commit; returns how many were lost."""
        kept = self.chance.randint(0, len(self.journal))
        lost = len(self.journal) - kept
        self.sync(kept)
        self.journal.clear()
        return lost

    def _apply(self, batch: MemoryBatch) -> None:
        again = self.rows.batch()
        again.changes = batch.changes
        self.rows.commit(again)


class DiskStorage:
    """The storage of one start of a node; `cut_off` when that start is over."""

    def __init__(self, disk: Disk, durability: Durability) -> None:
        self._disk = disk
        self._durability = durability
        disk.sync(len(disk.journal))  # a start reads all that is there, and syncs what it reads
        self._rows = _copy(disk.rows)
        self._written = self._synced = 0
        self._is_syncing = False
        self._synced_something = trio.lowlevel.ParkingLot()
        self._is_cut_off = False
        self._failure = ""

    def cut_off(self) -> None:
        """The process is no more: what its tasks still do on their way out reaches nothing."""
        self._is_cut_off = True

    @property
    def is_read_only(self) -> bool:
        return False

    @property
    def why_read_only(self) -> str:
        return ""

    @property
    def is_suspended(self) -> bool:
        return False

    @property
    def has_failed(self) -> bool:
        return bool(self._failure)

    def _check_room(self) -> None:
        """Raises: StorageFailed."""
        if self._disk.shortage is Shortage.FULL:
            self._failure = "no space left on the device"
            self._synced_something.unpark_all()
        if self._failure:
            raise StorageFailed(self._failure)

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._rows.get_many(keys)

    def items(
        self, start: bytes, stop: bytes, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._rows.items(start, stop, limit)

    def snapshot(self) -> MemorySnapshot:
        return self._rows.snapshot()

    def batch(self) -> MemoryBatch:
        return self._rows.batch()

    def lasting_batch(self, rising: Sequence[bytes] = ()) -> MemoryBatch:
        return self._rows.lasting_batch(rising)

    def commit_lasting(self, batch: LastingBatch) -> int:
        assert isinstance(batch, MemoryBatch)
        return self.commit(batch)

    def commit(self, batch: WriteBatch) -> int:
        assert isinstance(batch, MemoryBatch)
        if not self._is_cut_off:
            self._check_room()
        self._rows.commit(batch)
        if not self._is_cut_off:
            self._disk.journal.append(batch)
        self._written += 1
        return self._written

    @property
    def durable_sequence(self) -> int:
        if self._disk.is_hasty:
            return self._written
        return self._synced if self._durability.waits_for_disk else self._written

    async def wait_durable(self, sequence: int) -> None:
        while self.durable_sequence < sequence:
            if self._is_cut_off:
                raise StorageFailed("the disk is gone")
            if self._failure:
                raise StorageFailed(self._failure)
            if self._is_syncing:
                await self._synced_something.park()
                continue
            self._is_syncing = True
            try:
                await self._sync()
            finally:
                self._is_syncing = False
                self._synced_something.unpark_all()

    async def _sync(self) -> None:
        await trio.sleep(self._durability.delay_seconds)
        target = self._written
        await trio.sleep(self._disk.sync_seconds * (0.5 + self._disk.chance.random()))
        if self._is_cut_off:
            return
        if self._disk.shortage is Shortage.FULL:
            self._disk.cut_power()  # what was not synced may have reached it or not
        self._check_room()
        self._disk.sync(target - self._synced)
        self._synced = target

    async def wait_writable(self) -> None:
        """Returns at once."""

    def recover(self) -> None:
        if not self._failure:
            return
        if self._disk.shortage is Shortage.FULL:
            raise StorageFailed(self._failure)
        self._disk.sync(len(self._disk.journal))
        self._rows = _copy(self._disk.rows)
        self._synced = self._written
        self._failure = ""

    async def reclaim(self) -> None:
        """Nothing is kept of deleted rows."""

    async def suspend(self) -> None:
        raise NotImplementedError("no simulated node is suspended")

    async def resume(self) -> None:
        raise NotImplementedError("no simulated node is suspended")

    def close(self) -> None:
        """Nothing to release."""


def _copy(rows: MemoryStorage) -> MemoryStorage:
    copied = MemoryStorage()
    batch = copied.batch()
    for key, value in rows.items(b"", LAST_KEY):
        batch.put(key, value)
    copied.commit(batch)
    return copied
