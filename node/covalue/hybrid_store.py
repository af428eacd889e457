"""[trio] CoValues in SQLite and in a bee: SQLite serves our clients, the bee the other nodes.

Every commit goes to both at once, since each may have to wait for the disk, and counts as stored
when both have it. So one of them can be behind the other: by the commit under way when the process
died, or the bee by what a JavaScript server wrote to the file while this node did not have it. That
is why comparing totals is enough to know, when both are opened, whether they hold the same: values
and deletions only become more, and with equally many deletions sessions only grow, so a store that
holds a part of what the other holds, and as much, holds all of it. Only if they differ are both
walked, value by value, and what is missing copied, either way: a power cut may have cost either
more than the other when commits do not wait for the disk, and a file may have been replaced by an
older copy.

Into SQLite that is done at once. Into the bee it waits for `catch_up`, and commits do so as well:
its log may have been longer than what a power cut or an old copy has left of it, and a member may
know that. To append before that is found out (`node.mesh.recall`) would be to fork it.

What is our own business (who has synced what, locks, evidence of forks) is in SQLite alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

import structlog
import trio

from hypercore.errors import StorageFailed
from node.covalue.bee_store import BeeStore
from node.covalue.gathering import ValueRows, gather
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.reconciling import NoteCopied, copy_value, reconcile
from node.covalue.session_fork import SessionFork
from node.covalue.sqlite_store import SqliteStore
from node.covalue.store import Erased, LoadedPieces, StoredText, StoredValue, ValueAppend
from node.errors import CorruptStore

_log = structlog.get_logger(__name__)


class HybridStore:
    """A `CoValueStore`; open it with `open_hybrid_store`."""

    def __init__(self, sqlite: SqliteStore, bee: BeeStore) -> None:
        self._sqlite = sqlite
        self._bee = bee
        self._writing = trio.Lock()
        self._in_doubt: Collection[RawCoId] = ()
        """Values of a commit of which one store may have more than the other."""
        self._caught_up = trio.Event()
        """The bee was seen to hold what SQLite holds."""
        self.not_shared = 0
        """How often damage kept what a commit brought of a value from the bee."""

    async def rebuild(self) -> int:
        """Rebuild what is beside the bee, and take over what SQLite lacks; nobody may write."""
        values = await self._bee.rebuild()
        async with self._writing:
            await self.fill_sqlite()
            self._caught_up = trio.Event()
        return values

    async def fill_sqlite(self) -> None:
        """Copy what only the bee has. Raises: CorruptStore, StorageFailed."""
        held, offered = await self._sqlite.totals(), self._bee.totals()
        if offered.is_ahead_of(held):
            _log.info("filling sqlite", sqlite=asdict(held), bee=asdict(offered))
            result = await reconcile(self._bee, self._sqlite, is_one_way=True)
            _log.info("sqlite filled", values=result.values, copied=result.copied)

    async def catch_up(self, note_copied: NoteCopied = lambda _: None) -> None:
        """Have the bee hold what SQLite holds, now that its log may be appended to.

        `note_copied` is told of each value of which it got more.

        Raises: CorruptStore, StorageFailed; what the bee's log raises.
        Cancel: some values are copied; the next call goes on.
        """
        async with self._writing:
            await self._bring_together(note_copied)
            self._caught_up.set()

    async def _bring_together(self, note_copied: NoteCopied) -> None:
        """Copy what either lacks, if their totals differ. Raises: as `catch_up`."""
        totals = await self._sqlite.totals()
        if totals != self._bee.totals():
            _log.info("reconciling", sqlite=asdict(totals), bee=asdict(self._bee.totals()))
            result = await reconcile(self._sqlite, self._bee, note_copied=note_copied)
            await self._bee.set_transaction_count(result.transactions)
            _log.info("reconciled", **asdict(result))

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        """As the protocol says."""
        return await self._sqlite.load(co_id, known, max_bytes)

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        """As the protocol says."""
        return await self._sqlite.load_text(co_id)

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """As the protocol says."""
        return await self._sqlite.load_value(co_id)

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        """As the protocol says, for what is loaded.

        Raises: StorageFailed; what the bee's log raises.
        Cancel: as the protocol says. Unless both have the batch, nothing more is stored until both
        are opened again, or `recover` brings them together.
        """
        await self._caught_up.wait()
        async with self._writing:
            if self._in_doubt:
                raise StorageFailed("SQLite and the bee were left apart; open them again")
            rows = gather(appends)
            self._in_doubt = rows.keys()  # a commit that failed may be on the disk all the same
            await self._store_in_both(rows)
            self._in_doubt = ()

    async def _store_in_both(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._store_in_bee, rows)
                await self._sqlite.store_rows(rows)
        except BaseExceptionGroup as group:
            failed, _ = group.split(Exception)
            if failed is None:
                raise
            raise failed.exceptions[0] from failed.exceptions[0].__cause__

    async def _store_in_bee(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        """What damaged blocks keep from the bee, our clients have all the same."""
        try:
            await self._bee.store_rows(rows)
        except CorruptStore:
            for co_id, value in rows.items():
                try:
                    await self._bee.store_rows({co_id: value})
                except CorruptStore as error:
                    self.not_shared += 1
                    _log.error("cannot share", co_id=co_id, error=str(error))

    def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        """As the protocol says."""
        return self._sqlite.ids(prefix, after)

    def count(self) -> int:
        """As the protocol says."""
        return self._sqlite.count()

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """As the protocol says."""
        await self._sqlite.track_sync(changes)

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """As the protocol says."""
        await self._sqlite.stop_tracking_sync(co_id)

    async def unsynced_ids(self) -> list[RawCoId]:
        """As the protocol says."""
        return await self._sqlite.unsynced_ids()

    async def read_lock(self, peer_id: str) -> ReconciliationLock | None:
        """As the protocol says."""
        return await self._sqlite.read_lock(peer_id)

    async def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        """As the protocol says."""
        await self._sqlite.write_lock(peer_id, lock)

    async def pending_erasures(self) -> list[RawCoId]:
        """As the protocol says: those of either."""
        both = [*await self._sqlite.pending_erasures(), *await self._bee.pending_erasures()]
        return list(dict.fromkeys(both))

    async def erase(self, co_id: RawCoId) -> Erased:
        """As the protocol says: from both."""
        await self._caught_up.wait()
        both = (await self._sqlite.erase(co_id), await self._bee.erase(co_id))
        return max(both, key=lambda erased: erased.transactions)

    async def recover(self) -> None:
        """As the protocol says: brings both together again, if they were left apart."""
        async with self._writing:
            await self._sqlite.recover()
            await self._bee.recover()
            for co_id in self._in_doubt:
                try:
                    await copy_value(co_id, self._sqlite, self._bee)
                    await copy_value(co_id, self._bee, self._sqlite)
                except CorruptStore as error:
                    _log.error("cannot reconcile", co_id=co_id, error=str(error))
            self._in_doubt = ()

    async def reclaim(self) -> None:
        """As the protocol says."""
        await self._sqlite.reclaim()
        await self._bee.reclaim()

    async def keep_fork(self, fork: SessionFork) -> None:
        """As the protocol says."""
        await self._sqlite.keep_fork(fork)

    async def forks(self) -> list[SessionFork]:
        """As the protocol says."""
        return await self._sqlite.forks()


@asynccontextmanager
async def open_hybrid_store(
    sqlite: SqliteStore, bee: BeeStore, *, catches_up: bool = True
) -> AsyncIterator[HybridStore]:
    """Bring both together, and write to both until the block ends; the caller closes them.

    Without `catches_up` nothing is appended to the bee's log, and no commit made, before the caller
    calls `catch_up`.

    Raises: CorruptStore; what both raise.
    """
    store = HybridStore(sqlite, bee)
    if catches_up:
        await store.catch_up()
    else:
        await store.fill_sqlite()
    yield store
