"""[trio] CoValues in a bee: the data that other nodes may read, and beside it what is ours alone.

One `store` is one atomic append: the rows of every message in it, and the local rows (`id:`,
`count`, `short:`) that belong to them. After a crash all of it is there, or none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import trio

from bee.batch import Batch
from bee.bee import Bee
from bee.errors import CorruptTree, HistoryReplaced
from hypercore.encoding import DecodeError
from hypercore.errors import BlockNotAvailable, CorruptStorage
from node.covalue.gathering import ValueRows, gather
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.keys import (
    COUNT_KEY,
    DELETED_RANGE,
    FORK_RANGE,
    ID_PREFIX,
    TRANSACTIONS_KEY,
    RowKind,
    decode_deleted_key,
    decode_key,
    decode_sync_key,
    deleted_key,
    fork_key,
    header_key,
    id_key,
    lock_key,
    session_key,
    short_key,
    sync_key,
    sync_range,
    value_range,
)
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local_rows import rebuild_local_rows
from node.covalue.many_sessions import put_together
from node.covalue.reading import Tree, read_last_run, read_pieces, read_value
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.records import (
    decode_count,
    decode_fork,
    decode_is_erased,
    decode_lock,
    decode_run,
    decode_session,
    encode_count,
    encode_deletion,
    encode_fork,
    encode_header,
    encode_lock,
    pack_transactions,
)
from node.covalue.session_fork import SessionFork
from node.covalue.session_rows import Records, extend
from node.covalue.short_values import make_short, read_short
from node.covalue.store import (
    Erased,
    LoadedPieces,
    SessionSize,
    StoredText,
    StoredValue,
    ValueAppend,
)
from node.covalue.tails import EndCache, SessionEnd, Stretch
from node.covalue.text_reading import read_text
from node.covalue.totals import Totals, hidden_by_deletion
from node.errors import CorruptStore

T = TypeVar("T")

_DAMAGE = (DecodeError, CorruptTree, CorruptStorage)
"""What reading a value ends with whose blocks, or rows, are not what was written."""

_PRESENT = b"\xc3"
"""msgpack's true: a row whose existence says everything."""

_AFTER_IDS = b"id;"

MAX_EDITED = 65_536
"""Values that are known to have no short row; about 200 bytes each."""

_TURN = 32
"""Rows after which others may run: a large batch must not keep them waiting for 20 ms."""


class LocalRows(Protocol):
    """The data core's private key-value space, which is not replicated."""

    def exclusive(self) -> AbstractAsyncContextManager[object]: ...
    def get_local_value(self, key: bytes, /) -> bytes | None: ...

    def local_items(self, start: bytes, stop: bytes, /) -> Iterable[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, in order."""

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        """Write rows, None deletes; returns when they are durable."""


class BeeStore:
    """A `CoValueStore` over a bee and the local rows of its log.

    `reclaim` makes the files under it let go of deleted rows. `keeps_texts` says whether short
    values are also kept as text, for clients that load them: it takes their size once more.
    """

    def __init__(
        self,
        bee: Bee[bytes, bytes],
        local: LocalRows,
        reclaim: Callable[[], Awaitable[None]] | None = None,
        *,
        keeps_texts: bool = True,
    ) -> None:
        self._bee = bee
        self._local = local
        self._reclaim = reclaim
        self._keeps_texts = keeps_texts
        self._ends = EndCache()
        self._edited: set[RawCoId] = set()
        """Values that have no short row any more: to delete it with every edit costs 2 us each."""

    async def rebuild(self) -> int:
        """Make what is beside the bee anew from it; nobody may write. See `local_rows`."""
        return await rebuild_local_rows(self._bee, self._local)

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces:
        """As the protocol says."""
        if not self.has(co_id):
            return LoadedPieces()
        is_tombstone = self._is_deleted(co_id)
        return await self._read(
            co_id,
            lambda tree: read_pieces(
                *(tree, co_id, known, max_bytes),
                is_tombstone=is_tombstone,
                is_ours=True,
                put_together=put_together,
            ),
        )

    async def _read(self, co_id: RawCoId, step: Callable[[Tree], Awaitable[T]]) -> T:
        """What `step` reads of the present; again if a compaction or erasure came in between.

        Raises: CorruptStore.
        """
        while True:
            version = self._bee.version
            try:
                return await step(self._bee.snapshot(is_held=False))
            except HistoryReplaced:
                continue
            except _DAMAGE as error:
                raise CorruptStore(co_id, str(error)) from error
            except BlockNotAvailable as error:
                # What the present needs is never given up; what was the present may be.
                if version == self._bee.version:
                    raise CorruptStore(co_id, str(error)) from error

    async def load_text(self, co_id: RawCoId) -> StoredText | None:
        """As the protocol says."""
        record = self._local.get_local_value(short_key(co_id))
        if record is not None:
            return read_short(co_id, record)
        if not self.has(co_id) or self._is_deleted(co_id):
            return None
        return await self._read(co_id, lambda tree: read_text(tree, co_id, put_together))

    async def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """As the protocol says."""
        if not self.has(co_id):
            return None
        is_tombstone = self._is_deleted(co_id)
        return await self._read(
            co_id,
            lambda tree: read_value(
                tree, co_id, is_tombstone=is_tombstone, put_together=put_together
            ),
        )

    def has(self, co_id: RawCoId) -> bool:
        """Whether the value is stored: a point read, where the bee would cost a descent."""
        return self._local.get_local_value(id_key(co_id)) is not None

    async def store(self, appends: Sequence[ValueAppend]) -> None:
        """As the protocol says. Raises: what the log raises; nothing was stored then."""
        await self.store_rows(gather(appends))

    async def store_rows(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        """`store` of what was gathered already. Raises, Cancel: as `store`."""
        try:
            await self._store_rows(rows)
        except (*_DAMAGE, BlockNotAvailable) as error:
            # Blocks on the way to where a row belongs: of one value, for all that is known here.
            raise CorruptStore(next(iter(rows)), str(error)) from error

    async def _store_rows(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        ends: dict[tuple[RawCoId, CoSessionId], SessionEnd] = {}
        async with self._bee.batch() as batch:
            local: dict[bytes, bytes | None] = {}
            records: Records = []
            added = transactions = 0
            for co_id, value in rows.items():
                transactions += (
                    await self._count_loaded(co_id, value)
                    if value.is_deletion
                    else value.transaction_count
                )
                if value.header is not None:
                    records.append((header_key(co_id), encode_header(value.header)))
                    local[id_key(co_id)] = _PRESENT
                    added += 1
                    self._edited.discard(co_id)
                if co_id not in self._edited:
                    local[short_key(co_id)] = make_short(value) if self._keeps_texts else None
                if value.is_deletion:
                    local[deleted_key(co_id)] = encode_deletion(is_erased=False)
                for session_id, session in value.sessions.items():
                    end = self._ends.take(co_id, session_id) or SessionEnd()
                    while (new := extend(co_id, session_id, session, end, records)) is None:
                        end = await self._read_end(batch, co_id, session_id, session.after, end)
                    ends[co_id, session_id] = new
                if len(records) >= _TURN:
                    await batch.put_many(records)
                    records.clear()
                    await trio.lowlevel.checkpoint()
            await batch.put_many(records)
            if added:
                local[COUNT_KEY] = encode_count(self.count() + added)
            if transactions:
                local[TRANSACTIONS_KEY] = encode_count(self._count(TRANSACTIONS_KEY) + transactions)
            await batch.flush(local=local)
        for (co_id, session_id), end in ends.items():
            self._ends.keep(co_id, session_id, end)
        if len(self._edited) + len(rows) > MAX_EDITED:
            self._edited.clear()
        self._edited.update([co_id for co_id, value in rows.items() if value.header is None])

    async def _read_end(
        self,
        batch: Batch[bytes, bytes],
        co_id: RawCoId,
        session_id: CoSessionId,
        count: int,
        end: SessionEnd,
    ) -> SessionEnd:
        """`end`, or how a session of `count` transactions ends, with one thing more read of it.

        Raises: CorruptStore.
        """
        if end.tail.stop == count:
            return SessionEnd(
                await read_last_run(self._bee.snapshot(), co_id, session_id), end.tail
            )
        return SessionEnd(None, await _read_tail(batch, session_key(co_id, session_id), count))

    async def _count_loaded(self, co_id: RawCoId, value: ValueRows) -> int:
        """By how much a deletion changes the number of transactions that are loaded."""
        stored = await self.load_value(co_id)
        hidden = 0 if stored is None else hidden_by_deletion(stored)
        return (
            sum(
                len(session.transactions)
                for session_id, session in value.sessions.items()
                if is_delete_session(session_id)
            )
            - hidden
        )

    def totals(self) -> Totals:
        """How much can be loaded; reads one row per deleted value. Raises: CorruptStore."""
        deleted = sum(1 for _ in self._local.local_items(*DELETED_RANGE))
        return Totals(self.count(), deleted, self._count(TRANSACTIONS_KEY))

    async def set_transaction_count(self, count: int) -> None:
        """Correct it, for a bee that was written before it was counted.

        Cancel: it is corrected, or not.
        """
        await self._local.write_local({TRANSACTIONS_KEY: encode_count(count)})

    async def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]:
        """As the protocol says."""
        # 0x7f is above every letter of an id.
        stop = id_key(prefix) + b"\x7f" if prefix else _AFTER_IDS
        start = id_key(max(prefix, after))
        for key, _ in self._local.local_items(start, stop):
            co_id = RawCoId(key[len(ID_PREFIX) :].decode())
            if co_id != after:
                yield co_id

    def count(self) -> int:
        """How many values are stored. Raises: CorruptStore."""
        return self._count(COUNT_KEY)

    def _count(self, key: bytes) -> int:
        record = self._local.get_local_value(key)
        if record is None:
            return 0
        try:
            return decode_count(record)
        except DecodeError as error:
            raise CorruptStore(key.decode(), str(error)) from error

    async def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """As the protocol says: a row is there for what is not synced yet."""
        await self._local.write_local(
            {
                sync_key(co_id, peer_id): None if is_synced else _PRESENT
                for (co_id, peer_id), is_synced in changes.items()
            }
        )

    async def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """As the protocol says."""
        rows = [key for key, _ in self._local.local_items(*sync_range(co_id))]
        if rows:
            await self._local.write_local(dict.fromkeys(rows))

    async def unsynced_ids(self) -> list[RawCoId]:
        """As the protocol says. Raises: CorruptStore."""
        try:
            keys = [decode_sync_key(key) for key, _ in self._local.local_items(*sync_range())]
        except DecodeError as error:
            raise CorruptStore("sync", str(error)) from error
        return list(dict.fromkeys(co_id for co_id, _ in keys))

    async def read_lock(self, peer_id: str) -> ReconciliationLock | None:
        """As the protocol says. Raises: CorruptStore."""
        record = self._local.get_local_value(lock_key(peer_id))
        try:
            return None if record is None else decode_lock(record)
        except DecodeError as error:
            raise CorruptStore(f"lock of {peer_id}", str(error)) from error

    async def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        """As the protocol says."""
        await self._local.write_local({lock_key(peer_id): encode_lock(lock)})

    def _is_deleted(self, co_id: RawCoId) -> bool:
        return self._local.get_local_value(deleted_key(co_id)) is not None

    async def pending_erasures(self) -> list[RawCoId]:
        """As the protocol says. Raises: CorruptStore."""
        async with self._local.exclusive():
            pass  # as long as our own log is being fetched back not all of it can be read
        try:
            return [
                decode_deleted_key(key)
                for key, record in self._local.local_items(*DELETED_RANGE)
                if not decode_is_erased(record)
            ]
        except DecodeError as error:
            raise CorruptStore("deleted", str(error)) from error

    async def erase(self, co_id: RawCoId) -> Erased:
        """As the protocol says: no block of ours holds any of it then.

        Peers that have copies of those blocks keep them; older versions of the bee may not be
        readable any more.
        """
        if not self._is_deleted(co_id):
            return Erased()
        start, stop = value_range(co_id)
        await self._bee.finish_erasures()
        kept, erased = await self._read(co_id, lambda tree: _survey(tree, start, stop))
        try:
            await self._bee.erase(gte=start, lt=stop, keep=kept)
        except _DAMAGE as error:
            raise CorruptStore(co_id, str(error)) from error
        await self._local.write_local({deleted_key(co_id): encode_deletion(is_erased=True)})
        return erased

    async def recover(self) -> None:
        """As the protocol says: all that is remembered is read from the log each time."""
        await trio.lowlevel.checkpoint()

    async def reclaim(self) -> None:
        """As the protocol says."""
        if self._reclaim is not None:
            await self._reclaim()

    async def keep_fork(self, fork: SessionFork) -> None:
        """As the protocol says."""
        key = fork_key(fork.co_id, fork.session_id)
        # What is there is written once more: whoever brought it may still wait for the disk.
        kept = self._local.get_local_value(key)
        await self._local.write_local({key: encode_fork(fork) if kept is None else kept})

    async def forks(self) -> list[SessionFork]:
        """As the protocol says. Raises: CorruptStore."""
        try:
            return [decode_fork(record) for _, record in self._local.local_items(*FORK_RANGE)]
        except DecodeError as error:
            raise CorruptStore("forks", str(error)) from error


async def _survey(tree: Tree, start: bytes, stop: bytes) -> tuple[list[bytes], Erased]:
    """Keys of a deleted value that stay, and what goes. Raises: DecodeError."""
    kept: list[bytes] = []
    sizes: dict[CoSessionId, SessionSize] = {}
    async for entry in tree.range(gte=start, lt=stop):
        row = decode_key(entry.key)
        if row.kind is RowKind.HEADER or is_delete_session(row.session_id):
            kept.append(entry.key)
        elif row.kind in (RowKind.SESSION, RowKind.RUN):
            value = entry.value or b""
            is_run = row.kind is RowKind.RUN
            transactions = decode_run(value) if is_run else decode_session(value)[1]
            size = sizes.get(row.session_id, SessionSize())
            sizes[row.session_id] = size.plus(transactions)
    return kept, Erased(sizes)


async def _read_tail(batch: Batch[bytes, bytes], key: bytes, count: int) -> Stretch:
    """The tail of a session of which `count` transactions are stored, from its row.

    Raises: CorruptStore.
    """
    entry = await batch.get(key)
    try:
        session, tail = decode_session(b"" if entry is None else entry.value or b"")
    except DecodeError as error:
        raise CorruptStore(key.decode(), str(error)) from error
    if session.count != count:
        raise CorruptStore(key.decode(), f"{session.count} are stored where {count} should be")
    packed = b"".join(pack_transactions(tail))
    return Stretch(count - len(tail), len(tail), packed)
