"""Where logs are kept: one ordered key-value store for all cores, behind one seam.

| modules                                           | are                                          |
|---------------------------------------------------|----------------------------------------------|
| `rocks`                                           | RocksDB, as JavaScript opens it              |
| `rocks_opening`, `rocks_handles`, `rocks_reading` | its parts: opening, batches, reading         |
| `rocks_upkeep`, `rocks_shut`                      | its parts: upkeep; reads while it is shut    |
| `rocks_tables`                                    | where the rows of a very long append wait    |
| `memory`                                          | the seam in memory                           |
| `layout`, `records`                               | the bytes of every key and record            |
| `catalog`, `core_storage`, `purging`              | the records of the store, and of one core    |
| `durability`                                      | waiting for the disk                         |
| `directory`, `lock_holder`                        | whose directory this is, and who has it open |
| `log_file`                                        | a turned bit of RocksDB's log, or a torn end |
| `salvage`, `rocks_rebuilding`, `losses`           | what is left of a damaged database           |
| `version10`                                       | the files of Hypercore 10                    |

A commit is one batch: after a crash all of it is there or none. Committing does not wait for
the disk: it returns a sequence number, and whoever must know that it is durable waits for that
number, together with everybody else who does (`durability`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hypercore.storage.durability import Durability

__all__ = [
    "Durability",
    "LastingBatch",
    "RowBatch",
    "RowSink",
    "Storage",
    "StorageSnapshot",
    "WriteBatch",
]


class RowSink(Protocol):
    """Something that takes rows."""

    def put(self, key: bytes, value: bytes, /) -> None: ...


class RowBatch(RowSink, Protocol):
    """Changes that become true together, applied in the order given. Can be committed once."""

    def delete(self, key: bytes, /) -> None: ...


class WriteBatch(RowBatch, Protocol):
    """A batch that can delete whole ranges, too."""

    def delete_range(self, start: bytes, stop: bytes, /) -> None:
        """Delete every key in [start, stop)."""
        ...


class LastingBatch(RowBatch, Protocol):
    """A batch that is filled while others run, of as many rows as there is room for on the disk."""

    @property
    def is_lost(self) -> bool:
        """Whether the files were closed meanwhile, so that it cannot be committed any more."""
        ...

    def settle(self) -> None:
        """Move what was put to the disk, if it can be; to be called for each MiB or so.

        Raises: StorageFailed, and then only this batch is lost.
        """
        ...

    def close(self) -> None:
        """Give the room back, unless it was committed."""
        ...


class StorageSnapshot(Protocol):
    """All rows of a storage as they were at one moment.

    While it is open their bytes stay on the disk, and closing the storage does not unlock it.
    """

    @property
    def is_lost(self) -> bool:
        """Whether the storage gave its files back meanwhile, and this snapshot with them."""
        ...

    def get(self, key: bytes) -> bytes | None:
        """Raises: StorageError."""
        ...

    def close(self) -> None: ...


class Storage(Protocol):
    """An ordered map of byte strings with atomic commits.

    Reads see every commit that returned, durable or not. After a commit or a sync failed, what
    reached the disk is unknown: every later commit raises StorageFailed.
    """

    @property
    def is_read_only(self) -> bool: ...
    @property
    def why_read_only(self) -> str:
        """For people; empty when the storage can be written to."""
        ...

    @property
    def is_suspended(self) -> bool: ...
    @property
    def has_failed(self) -> bool:
        """Whether a commit or a sync failed, so that nothing is written until `recover`."""
        ...

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def items(
        self, start: bytes, stop: bytes, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of [start, stop) in order, at most `limit` of them.

        No snapshot: what is committed meanwhile may be seen. Reads ahead at most
        `READ_AHEAD_ITEMS` rows.
        """
        ...

    def snapshot(self) -> StorageSnapshot:
        """What is committed now; close it before the storage.

        Closing the files, in `suspend` or `recover`, ends it: it has no rows then.
        """
        ...

    def batch(self) -> WriteBatch:
        """A batch to be filled and committed in one go: until then the files stay locked.

        Raises: NotWritable when nothing may be written, before anybody believes it was.
        """
        ...

    def lasting_batch(self, rising: Sequence[bytes] = ()) -> LastingBatch:
        """A batch to be filled while others run; closing the files, as `snapshot` says, ends it.

        Of rows whose keys have these prefixes there may be more than memory has room for. Each
        of them must be new, put once, and nearly in the order of the keys.
        """
        ...

    def commit(self, batch: WriteBatch) -> int:
        """Write all of `batch` or nothing, without waiting for the disk; returns its sequence.

        Blocks for the length of a memory copy, once in many MiB for a sync, and longer while
        the disk cannot keep up (`wait_writable`). Raises: StorageFailed, UsageError for a batch
        that was committed before.
        """
        ...

    def commit_lasting(self, batch: LastingBatch) -> int:
        """As `commit`; what went to the disk by then is synced as well."""
        ...

    @property
    def durable_sequence(self) -> int:
        """Commits up to this sequence survive what the store's `Durability` promises."""
        ...

    async def wait_durable(self, sequence: int) -> None:
        """Return when `durable_sequence` has reached `sequence`; at once if it has.

        Raises: StorageFailed. Cancel: takes back nothing.
        """
        ...

    async def wait_writable(self) -> None:
        """Return when a commit would not be held up by a disk that cannot keep up.

        Cancel: undoes nothing.
        """
        ...

    def recover(self) -> None:
        """After a failure: read back what reached the disk, and go on. Blocks, about 50 ms.

        Whoever keeps anything of the rows in memory has to read it anew.
        Raises: StorageFailed when the disk still cannot be written; reads go on all the same.
        """
        ...

    async def reclaim(self) -> None:
        """Give the room of deleted rows back: no file of the store holds their bytes any more.

        Rewrites the whole store in a thread; reads and commits go on. Raises: StorageFailed,
        UsageError when it is read-only. Cancel: waits for the thread.
        """
        ...

    async def suspend(self) -> None:
        """Sync, and give all files and locks back; until `resume` all else raises StoreSuspended.

        Raises: StorageFailed. Cancel: it is finished first.
        """
        ...

    async def resume(self) -> None:
        """Open the same files again, as somebody else may have left them; recovers, too.

        Raises: StoreLocked, CorruptStorage, StorageError; it stays suspended then.
        Cancel: it is finished first.
        """
        ...

    def close(self) -> None: ...


READ_AHEAD_ITEMS = 256
READ_AHEAD_BYTES = 1 << 20
