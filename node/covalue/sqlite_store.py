"""[trio] CoValues in a file that cojson's own SQLite storage reads and writes.

A server that ran in JavaScript goes on with its file under this node, and the other way round;
not both at a time (`sqlite_schema`).

A writer holds the lock of the one writing connection. Rows are written inline, and a commit
waits for the disk in a thread; without durability it is a copy in memory and stays inline, too:
90 µs for ten transactions, where a thread would make it 270. Reads have a connection of their own
and run inline, as far as they are short; a read of all of a value at once waits for a thread, and
any of a value of many sessions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from hypercore.errors import StorageFailed
from hypercore.storage import Durability
from node.covalue.gathering import ValueRows, gather
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.session_fork import SessionFork
from node.covalue.sqlite_reader import SqliteReader, TakesLong
from node.covalue.sqlite_schema import FileClaim, prepare_file
from node.covalue.sqlite_writer import SqliteWriter
from node.covalue.store import Erased, LoadedPieces, StoredText, StoredValue, ValueAppend
from node.covalue.totals import Totals
from node.errors import CorruptStore

INLINE_BYTES = 256 * 1024
"""Reading as much takes about a millisecond; more is read in a thread."""

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Written before the log is moved into the file, as much as SQLite's own 1000 pages."""

_PAGE_IDS = 512

_T = TypeVar("_T")


class SqliteStore:
    """A `CoValueStore`; open it with `open_sqlite_store`."""

    def __init__(
        self, writer: SqliteWriter, reader: SqliteReader, bulk: SqliteReader, durability: Durability
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._bulk = bulk
        self._waits_for_disk = durability.waits_for_disk
        self._writing = trio.Lock()
        self._may_hold_copies = False
        self._writer_thread = trio.CapacityLimiter(1)
        self._bulk_thread = trio.CapacityLimiter(1)

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        """As the protocol says."""
        if max_bytes is not None and max_bytes <= INLINE_BYTES:
            with suppress(TakesLong):
                return self._reader.load(co_id, known, max_bytes)
        return await self._in_thread(partial(self._bulk.load, co_id, known, max_bytes))

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        """As the protocol says."""
        try:
            return self._reader.load_text(co_id)
        except TakesLong:
            return await self._in_thread(partial(self._bulk.load_text, co_id))

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """As the protocol says."""
        try:
            return self._reader.load_value(co_id)
        except TakesLong:
            return await self._in_thread(partial(self._bulk.load_value, co_id))

    async def _in_thread(self, read: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(read, limiter=self._bulk_thread)

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        """As the protocol says. Raises: StorageFailed."""
        await self.store_rows(gather(appends))

    async def store_rows(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        """`store` of what was gathered already. Raises, Cancel: as `store`."""
        async with self._transaction():
            self._writer.append(rows)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """What the block writes is durable when this ends, or nothing of it is there."""
        async with self._writing:
            with self._undone_on_failure():
                self._writer.begin()
                yield
                await self._commit()

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, StorageFailed) as error:
            with suppress(sqlite3.Error):
                self._writer.rollback()
            self._writer.fail()
            if isinstance(error, StorageFailed):
                raise
            raise StorageFailed(f"the coValues cannot be written: {error}") from error
        except BaseException:
            self._writer.rollback()
            raise

    async def _commit(self) -> None:
        if self._waits_for_disk:
            await trio.to_thread.run_sync(self._writer.commit, limiter=self._writer_thread)
            return
        self._writer.commit()
        if self._writer.written_bytes >= CHECKPOINT_BYTES:
            await trio.to_thread.run_sync(self._writer.checkpoint, limiter=self._writer_thread)

    async def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        """As the protocol says. Raises: CorruptStore."""
        while page := self._reader.ids(prefix, after, _PAGE_IDS):
            for co_id in page:
                yield co_id
            after = page[-1]
            await trio.lowlevel.checkpoint()

    def count(self) -> int:
        """As the protocol says."""
        return self._writer.count

    async def totals(self) -> Totals:
        """How much can be loaded.

        Raises: CorruptStore.
        Cancel: nothing is changed.
        """
        return await trio.to_thread.run_sync(self._bulk.totals, limiter=self._bulk_thread)

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """As the protocol says."""
        async with self._transaction():
            self._writer.track_sync(changes)

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """As the protocol says."""
        async with self._transaction():
            self._writer.stop_tracking_sync(co_id)

    async def unsynced_ids(self) -> list[RawCoId]:
        """As the protocol says. Raises: CorruptStore."""
        return self._reader.unsynced_ids()

    async def read_lock(self, peer_id: str) -> ReconciliationLock | None:
        """As the protocol says. Raises: CorruptStore."""
        return self._reader.lock(peer_id)

    async def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        """As the protocol says."""
        async with self._transaction():
            self._writer.write_lock(peer_id, lock)

    async def pending_erasures(self) -> list[RawCoId]:
        """As the protocol says. Raises: CorruptStore."""
        return self._reader.pending_erasures()

    async def erase(self, co_id: RawCoId) -> Erased:
        """As the protocol says; what was erased is in no free page and not in the log, either.

        Cancel: as the protocol says, and what was erased already may be left in the log until
        the next erasure, or until the file is closed.
        """
        async with self._writing:
            erased = await trio.to_thread.run_sync(self._erase, co_id, limiter=self._writer_thread)
        if erased is None:
            return Erased()
        self._may_hold_copies = True
        await self._shrink()
        return erased

    async def recover(self) -> None:
        """As the protocol says."""
        async with self._writing:
            try:
                self._writer.recover()
            except sqlite3.Error as error:
                raise StorageFailed(f"the coValues cannot be written yet: {error}") from error

    async def reclaim(self) -> None:
        """As the protocol says; a large file may keep copies inside its pages (`sqlite_space`)."""
        if self._may_hold_copies:
            async with self._writing:
                await trio.to_thread.run_sync(self._scrub, limiter=self._writer_thread)
            self._may_hold_copies = False
        await self._shrink()

    def _scrub(self) -> None:
        with self._undone_on_failure():
            self._writer.scrub()

    async def _shrink(self) -> None:
        has_more = True
        while has_more:
            # Each step is a turn of its own: a `store` does not wait for them all.
            async with self._writing:
                has_more = await trio.to_thread.run_sync(self._reclaim, limiter=self._writer_thread)

    def _erase(self, co_id: RawCoId) -> Erased | None:
        with self._undone_on_failure():
            self._writer.begin()
            try:
                erased = self._writer.erase(co_id)
            except sqlite3.DatabaseError as error:
                raise CorruptStore(co_id, str(error)) from error
            self._writer.commit()
            return erased

    def _reclaim(self) -> bool:
        with self._undone_on_failure():
            return self._writer.reclaim()

    async def keep_fork(self, fork: SessionFork) -> None:
        """As the protocol says."""
        async with self._transaction():
            self._writer.keep_fork(fork)

    async def forks(self) -> list[SessionFork]:
        """As the protocol says. Raises: CorruptStore."""
        return self._reader.forks()


@asynccontextmanager
async def open_sqlite_store(
    path: Path, durability: Durability = Durability.COMMIT
) -> AsyncIterator[SqliteStore]:
    """Have the file open until the block ends; a new one is made. `group(ms)` is as `commit`.

    Raises: ConfigError when the file is something else; StoreLocked while somebody has it open;
    StorageFailed.
    """
    with ExitStack() as stack:
        store = await trio.to_thread.run_sync(_open, stack, path, durability)
        yield store


def _open(stack: ExitStack, path: Path, durability: Durability) -> SqliteStore:
    path = path.resolve()  # one file has one claim, whatever it is called
    stack.callback(FileClaim(path).close)
    prepare_file(path)
    try:
        writer = SqliteWriter(path, waits_for_disk=durability.waits_for_disk)
        stack.callback(writer.close)
        reader = SqliteReader(path, is_inline=True)
        stack.callback(reader.close)
        bulk = SqliteReader(path)
        stack.callback(bulk.close)
    except sqlite3.Error as error:
        raise StorageFailed(f"{path}: {error}") from error
    return SqliteStore(writer, reader, bulk, durability)
