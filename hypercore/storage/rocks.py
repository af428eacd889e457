"""The storage seam on RocksDB, in a directory that the JavaScript corestore opens too.

| path        | what                                                                          |
|-------------|-------------------------------------------------------------------------------|
| `CORESTORE` | device record and lock, see `directory`                                       |
| `db/`       | the database; all records are in the column family `corestore`, `default` is empty |

Source: hypercore-storage 3.3.1 index.js, for its settings.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakSet

import trio
from rocksdict import Rdict, WriteOptions
from rocksdict import WriteBatch as NativeBatch
from trio.from_thread import check_cancelled

from hypercore.errors import (
    CorruptStorage,
    HypercoreError,
    NotWritable,
    StorageError,
    StorageFailed,
    StoreLocked,
    UsageError,
)
from hypercore.storage import READ_AHEAD_ITEMS, Durability, LastingBatch, WriteBatch
from hypercore.storage.directory import StoreDirectory, check_room
from hypercore.storage.durability import GroupCommit
from hypercore.storage.rocks_handles import RocksBatch, RocksSnapshot
from hypercore.storage.rocks_opening import (
    COLUMN_FAMILY,
    WRITE_BUFFER_BYTES,
    WRITE_BUFFERS,
    NoRoom,
    bytes_in_logs,
    check_logs,
    check_recovered,
    is_damage,
    open_database,
)
from hypercore.storage.rocks_reading import read_ahead, unverified_keys
from hypercore.storage.rocks_rebuilding import check_tables, restore_tables
from hypercore.storage.rocks_shut import closed, lost, suspended, why_shut
from hypercore.storage.rocks_tables import TableBatch, forget_ahead, taking_over
from hypercore.storage.rocks_upkeep import compact_column, copy_database

_MEASURING_STEP_BYTES = 64 << 10
_STALL_SECONDS = 0.002

_EARLY_BYTES = WRITE_BUFFER_BYTES * 3 // 4
"""How full a buffer is when its log is synced for the first time: that takes 6 ms beside others,
and the second time takes 2 ms for what is left."""

_SPARE_BYTES = 2 << 20
"""What an open store writes besides its rows, in files of its own."""

_UNUSED_KEY = b"\xff"


class RocksStorage:
    """One open database. Reads, writes and closing are plain calls; only syncing uses a thread.

    RocksDB's binding keeps the interpreter's lock while it writes, so that a thread would gain
    nothing. It lets it go while it syncs.
    """

    def __init__(
        self,
        path: Path,
        durability: Durability,
        *,
        read_only: bool = False,
        why_read_only: str = "the store was opened read-only",
    ) -> None:
        """Open the store in directory `path`; make it unless `read_only`.

        Raises: StoreLocked, CopiedStore, CorruptStorage, StorageError, TypeError.
        """
        self._group = GroupCommit(durability, self._sync)
        self.path = path
        self._read_only = read_only
        self._why_read_only = why_read_only if read_only else ""
        self._is_suspended = False
        self._directory: StoreDirectory | None = None
        self._column: Rdict | None = None
        self._doomed: Rdict | None = None
        """The column of a database that is being closed."""
        self._is_released = True
        self._holders: WeakSet[RocksBatch | TableBatch | RocksSnapshot] = WeakSet()
        failure = self._open(is_new=not read_only)
        self._unsynced = WriteOptions()
        self._synced = WriteOptions()
        self._synced.sync = True
        self._write_options = self._unsynced
        self._unmeasured_bytes = 0
        self._is_synced_early = False
        self._syncing = 0
        """How many callers need every commit synced."""
        self._closing = threading.Lock()
        self._compacting = threading.Lock()
        if failure is not None:
            self._group.fail(failure)

    def _open(self, *, is_new: bool = False) -> StorageError | None:
        """Open the database; returns the failure if it can only be read, for want of room."""
        path = self.path
        if not self._read_only:
            check_recovered(path / "db")
        directory = None if self._read_only else StoreDirectory(path)
        failure: StorageError | None = None
        try:
            if directory is not None:
                restore_tables(path / "db")
            check_logs(path / "db")
            try:
                if directory is not None:
                    check_tables(path / "db", directory.rebuilt_path)
                    forget_ahead(path / "db", is_open=False)
                database = open_database(path / "db", read_only=self._read_only, is_new=is_new)
                if directory is not None:
                    forget_ahead(path / "db", is_open=True)
            except NoRoom as error:
                failure = error
                database = open_database(path / "db", read_only=True)
        except BaseException:
            if directory is not None:
                directory.close()
            raise
        self._directory = directory
        self._use(database)
        return failure

    def _use(self, database: Rdict) -> None:
        self._db = database
        self._column = database.get_column_family(COLUMN_FAMILY)
        self._handle = database.get_column_family_handle(COLUMN_FAMILY)
        self._get: Any = self._column.get
        self._is_released = False

    @property
    def is_read_only(self) -> bool:
        return self._read_only

    @property
    def why_read_only(self) -> str:
        return self._why_read_only

    @property
    def is_suspended(self) -> bool:
        return self._is_suspended

    @property
    def durability(self) -> Durability:
        return self._group.durability

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._get(key)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise self._unreadable(error) from error
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        try:
            # RocksDB's own multi-get: of 100 scattered rows each takes 3.4 us instead of 4.9.
            values: list[bytes | None] = self._get(list(keys))
            return values
        except Exception as error:  # RocksDB's errors have no class of their own
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> Exception:
        if isinstance(error, trio.ClosedResourceError | HypercoreError):
            return error
        text = str(error)
        if is_damage(text):
            return CorruptStorage(str(self.path / "db"), text)
        return StorageError(f"{self.path} cannot be read: {text}")

    def items(
        self, start: bytes, stop: bytes, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        while limit is None or limit > 0:
            most = READ_AHEAD_ITEMS if limit is None else min(limit, READ_AHEAD_ITEMS)
            if self._column is None:
                raise self._shut()
            rows, error = read_ahead(self._column, start, stop, most)
            yield from rows
            if error is not None:
                raise self._unreadable(error) from error
            if not rows:
                return
            start = rows[-1][0] + b"\x00"
            if limit is not None:
                limit -= len(rows)

    def unverified_keys(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """Keys of [start, stop) in order, from blocks whose checksum may be wrong.

        Where it is, keys may be garbage, or missing. Reading one with `get` is verified.
        """
        if self._column is None:
            raise self._shut()
        yield from unverified_keys(self._column, start, stop)

    def snapshot(self) -> RocksSnapshot:
        if self._column is None:
            raise self._shut()
        snapshot = RocksSnapshot(self._column.snapshot())
        self._holders.add(snapshot)
        return snapshot

    def _shut(self) -> Exception:
        return why_shut(self._get)

    def batch(self) -> RocksBatch:
        if self._column is None:
            raise self._shut()
        if self._read_only:
            raise NotWritable(f"nothing can be written: {self._why_read_only}")
        return RocksBatch(self._handle)

    def lasting_batch(self, rising: Sequence[bytes] = ()) -> RocksBatch | TableBatch:
        simple = self.batch()
        batch = TableBatch(self.path / "db", rising) if rising else simple
        self._holders.add(batch)
        return batch

    def commit(self, batch: WriteBatch) -> int:
        if not isinstance(batch, RocksBatch) or batch.is_used:
            raise UsageError("a batch is made by this storage, and committed once")
        try:
            if self._group.failure is not None:
                self._group.check()
            if self._unmeasured_bytes >= _MEASURING_STEP_BYTES:
                self._rotate_when_full()
            self._unmeasured_bytes += batch.native.size_in_bytes()
            self._db.write(batch.native, self._write_options)
        except HypercoreError:
            raise
        except Exception as error:  # RocksDB's errors have no class of their own
            raise self._group.fail(error) from error
        finally:
            batch.release()  # the error, which is remembered, remembers the batch
        return self._group.wrote()

    def commit_lasting(self, batch: LastingBatch) -> int:
        if isinstance(batch, RocksBatch):
            return self.commit(batch)
        if not isinstance(batch, TableBatch) or batch.is_used:
            raise UsageError("a batch is made by this storage, and committed once")
        try:
            self._take_over(batch)
            rest = self.batch()
            batch.pour(rest)
            return self.commit(rest)
        finally:
            batch.close()

    def _take_over(self, batch: TableBatch) -> None:
        if self._column is None:
            raise self._shut()
        self._group.check()
        try:
            tables = batch.finish()
            self._rotate()  # older writes must be on the disk first
            self._column.ingest_external_file(tables, taking_over())
        except Exception as error:  # RocksDB's errors have no class of their own
            raise self._group.fail(error) from error

    def _rotate(self) -> None:
        """Begin a new write-ahead log, with all of the old one on the disk.

        Nobody commits between the two calls: all commits come from one thread.
        """
        self._is_synced_early = False
        self._db.flush_wal(True)
        if self._column is not None:
            self._column.flush(False)

    def _rotate_when_full(self) -> None:
        self._unmeasured_bytes = 0
        buffered = self._property("rocksdb.cur-size-active-mem-table")
        if buffered >= WRITE_BUFFER_BYTES:
            self._rotate()
        elif buffered >= _EARLY_BYTES and not (
            self._is_synced_early or self.durability.waits_for_disk
        ):
            self._is_synced_early = True
            threading.Thread(target=self._sync_early, daemon=True).start()

    def _sync_early(self) -> None:
        """In a thread: leave little for the sync that everybody has to wait for."""
        try:
            self._sync()
        except Exception as error:  # noqa: BLE001  # RocksDB's errors have no class of their own
            # Not even another sync that succeeds would tell that all is on the disk.
            self._group.fail(error)

    def _property(self, name: str) -> int:
        return 0 if self._column is None else self._column.property_int_value(name) or 0

    @property
    def has_failed(self) -> bool:
        return self._group.failure is not None

    @property
    def durable_sequence(self) -> int:
        return self._group.durable_sequence

    async def wait_durable(self, sequence: int) -> None:
        if self._group.durable_sequence < sequence:
            await self._group.wait(sequence)

    async def wait_writable(self) -> None:
        # RocksDB tells nobody when it goes on; it is asked until a buffer has been written out.
        while self._property("rocksdb.num-immutable-mem-table") >= WRITE_BUFFERS - 1:  # noqa: ASYNC110
            await trio.sleep(_STALL_SECONDS)

    def _sync(self) -> None:
        with self._closing:
            if not self._is_released:  # by then all was synced, or the failure is known
                self._db.flush_wal(True)
        self._group.check()

    def recover(self) -> None:
        group = self._group
        if self._column is None and self._get is not lost:
            raise self._shut()
        if group.failure is None:
            return
        path = self.path / "db"
        with self._compacting, self._closing:
            check_room(self.path, bytes_in_logs(path) + _SPARE_BYTES)
            # What has been written, but may not be on the disk, is in the log, which is read
            # back and goes into new files: a sync that failed is not believed a second time.
            self._get = lost
            if self._column is not None:
                self._doomed, self._column = self._column, None
                self._close_database()
            try:
                restore_tables(path)
                check_logs(path)
                self._use(open_database(path, read_only=False, is_new=False))
                forget_ahead(path, is_open=True)
            except (StorageError, StoreLocked) as error:
                with contextlib.suppress(HypercoreError):  # reads go on, or not, until the next try
                    self._use(open_database(path, read_only=True))
                raise StorageFailed(f"the store cannot be written yet: {error}") from error
            group.recovered()  # before a sync that waits for these locks looks for a failure

    async def reclaim(self) -> None:
        if self._column is None:
            raise self._shut()
        if self._read_only:
            raise UsageError(f"nothing can be reclaimed: {self._why_read_only}")
        with self._each_commit_synced():
            await trio.to_thread.run_sync(self.compact)

    async def copy_to(self, path: Path) -> None:
        """Copy all that is committed into the directory `path`, which is made, as a store.

        Raises: UsageError, StoreSuspended, StorageFailed, OSError. Cancel: it is whole, or gone.
        """
        if self._column is None:
            raise self._shut()
        if self._read_only:
            raise UsageError(f"copy its files, which nobody changes: {self._why_read_only}")
        self._group.check()
        with self._each_commit_synced():
            await trio.to_thread.run_sync(self._copy, path)

    def _copy(self, path: Path) -> None:
        with self._compacting:
            if self._column is None:
                raise self._shut()
            try:
                copy_database(self._db, self.path / "db", path / "db", check_cancelled)
            except OSError:
                raise
            except Exception as error:  # RocksDB's errors have no class of their own
                raise StorageFailed(f"{path} cannot be written: {error}") from error

    @contextlib.contextmanager
    def _each_commit_synced(self) -> Iterator[None]:
        """For when RocksDB begins a buffer of its own, unnoticed (`rocks_opening`)."""
        self._syncing += 1
        if self._group.durability.waits_for_disk:
            self._write_options = self._synced
        try:
            yield
        finally:
            self._syncing -= 1
            if not self._syncing:
                self._write_options = self._unsynced

    def compact(self) -> None:
        """Rewrite everything into as little space as it needs. Blocks; takes long.

        No file holds the bytes of deleted rows afterward, but for the first and last key of
        each table in RocksDB's manifest, which is written anew when the store is opened.

        Raises: StorageFailed.
        """
        with self._compacting:
            column = self._column
            if column is None:
                return
            try:
                compact_column(self._db, column)
                self._check_compaction()
            except Exception as error:  # RocksDB's errors have no class of their own
                raise self._group.fail(error) from error
            finally:
                del column  # the error remembers this frame

    def _check_compaction(self) -> None:
        """The binding does not say that a compaction failed; the next write does."""
        batch = NativeBatch(raw_mode=True)
        batch.delete(_UNUSED_KEY, self._handle)
        self._db.write(batch, self._synced)

    async def suspend(self) -> None:
        if self._column is None:
            raise self._shut()
        await trio.lowlevel.checkpoint_if_cancelled()
        # From here on nobody reads or writes, and the thread has the database for itself.
        self._is_suspended = True
        self._get = suspended
        self._doomed, self._column = self._column, None
        # Not to be given up halfway: it must be known who has the files.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(partial(self._release, is_synced_anyway=True))

    async def resume(self) -> None:
        if self._is_suspended:
            failure = await trio.to_thread.run_sync(self._open)
            self._is_suspended = False
            self._group.recovered()  # all that is here was read from the disk, as in `recover`
            if failure is not None:
                self._group.fail(failure)

    def close(self) -> None:
        """Sync (unless nothing was promised) and release both locks. Blocks.

        Raises: StorageFailed, unless an earlier call did; the locks are released all the same.
        """
        self._is_suspended = False
        self._get = closed
        if self._column is not None:
            self._doomed, self._column = self._column, None
            self._release(is_synced_anyway=False)
        elif self._directory is not None:
            self._directory.close()  # when recovering could not even open it for reading

    def _release(self, *, is_synced_anyway: bool) -> None:
        with self._compacting, self._closing:
            error = self._sync_last(is_synced_anyway)
            self._close_database()
        if self._directory is not None:
            self._directory.close()
        if error is not None:
            raise error

    def _close_database(self) -> None:
        for holder in self._holders:
            holder.lose()
        for database in (self._doomed, self._db):
            # Closing moves the newest rows to where opening is faster. All of them are in the
            # write-ahead log as well, which `_sync_last` has synced, or reported.
            with contextlib.suppress(Exception):
                if database is not None:
                    database.close()
        del database
        self._doomed = None
        self._is_released = True
        del self._handle
        del self._db
        # RocksDB holds its lock until the last of these objects is gone, garbage included.
        gc.collect()

    def _sync_last(self, is_synced_anyway: bool) -> StorageFailed | None:
        group = self._group
        is_wanted = is_synced_anyway or group.durability.waits_for_disk
        if self._read_only or group.failure is not None or not is_wanted:
            return None
        try:
            self._db.flush_wal(True)
        except Exception as error:  # noqa: BLE001  # RocksDB's errors have no class of their own
            return group.fail(error)
        return None
