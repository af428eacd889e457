"""[disk] Reading coValues from cojson's SQLite file.

Whoever wrote the file may have made mistakes, and disks do: every row is checked, and what is
wrong costs the one value that it belongs to. Whether transactions verify is not checked again.

Two or three short queries make a value, 60 µs for one of ten transactions; a hop to a thread
would cost twice that. They see one state of the file: no append in part, nothing half erased.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from hypercore.encoding import DecodeError
from node.cojson.crypto import decode_signature
from node.covalue.content import SessionContent, Transaction
from node.covalue.dependencies import value_dependencies
from node.covalue.header import CoValueHeader, parse_header_text
from node.covalue.ids import (
    CoSessionId,
    RawCoId,
    is_co_id,
    is_delete_session,
    parse_session_id,
)
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.many_sessions import MANY_SESSIONS
from node.covalue.pieces import PieceBuilder, sessions_beyond
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.records import decode_fork
from node.covalue.session_fork import SessionFork
from node.covalue.sqlite_schema import add_stand_ins, check_version
from node.covalue.store import LoadedPieces, StoredSession, StoredText, StoredValue
from node.covalue.text_reading import MAX_TEXT_BYTES
from node.covalue.totals import Totals
from node.covalue.transaction_json import check_transactions, parse_transactions
from node.errors import ConfigError, CorruptStore

LOCK_PREFIX = "lock#"
FORK_TABLE = "beemeshForks"
"""Evidence of forks; the first makes the table, and JavaScript does not look at it."""

MAX_CACHED_HEADERS = 256
"""A value is looked at, then served: parsing its header twice would be a third of the work."""

MAX_CACHED_HEADER_CHARACTERS = 4096

CHECKPOINTS_AT_ONCE = 16
"""Of a large value, which has thousands, each part that is read needs one or two."""

_T = TypeVar("_T")

_VALUE = """SELECT v.rowID, v.header, d.coValueID IS NOT NULL
    FROM coValues v LEFT JOIN deletedCoValues d ON d.coValueID = v.id WHERE v.id = ?"""
_HAS = "SELECT 1 FROM coValues WHERE id = ?"
_SESSIONS = """SELECT rowID, sessionID, lastIdx, lastSignature, bytesSinceLastSignature,
    EXISTS (SELECT 1 FROM signatureAfter WHERE ses = sessions.rowID)
    FROM sessions WHERE coValue = ?"""
_CHECKPOINTS = """SELECT idx, signature FROM signatureAfter
    WHERE ses = ? AND idx >= ? AND idx < ? ORDER BY idx LIMIT ?"""
_TRANSACTIONS = "SELECT tx FROM transactions WHERE ses = ? AND idx >= ? AND idx < ? ORDER BY idx"
# Texts that are not UTF-8 must not get as far as Python, which could not say whose they are.
_IDS = """SELECT id FROM coValues WHERE id > ? AND id >= ? AND id < ?
    AND id NOT GLOB '*[^0-9A-Za-z_]*' ORDER BY id LIMIT ?"""
_UNSYNCED = """SELECT DISTINCT co_value_id FROM unsynced_covalues
    WHERE co_value_id NOT GLOB '*[^0-9A-Za-z_]*'"""
_PENDING = """SELECT coValueID FROM deletedCoValues
    WHERE status = 0 AND coValueID NOT GLOB '*[^0-9A-Za-z_]*'"""
_ABOVE_LETTERS = "\x7f"
_LOCK = """SELECT holderSessionId, acquiredAt, lastProcessedOffset, releasedAt
    FROM storageReconciliationLocks WHERE key = ?"""
_TOTALS = """SELECT
    (SELECT count(*) FROM coValues),
    (SELECT count(*) FROM deletedCoValues d JOIN coValues v ON v.id = d.coValueID),
    (SELECT ifnull(sum(lastIdx), 0) FROM sessions) - (
        SELECT ifnull(sum(s.lastIdx), 0) FROM deletedCoValues d
        JOIN coValues v ON v.id = d.coValueID JOIN sessions s ON s.coValue = v.rowID
        WHERE s.sessionID NOT GLOB '*_session_d*$'
    )"""
_TABLES = "SELECT v.id, s.sessionID, t.tx FROM coValues v, sessions s, transactions t LIMIT 0"
_HAS_TABLE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"


class _ValueRow(NamedTuple):
    row_id: int
    header: CoValueHeader
    is_deleted: bool


class _SessionRow(NamedTuple):
    row_id: int
    stored: StoredSession
    has_checkpoints: bool


def _describe(
    co_id: RawCoId,
    value: _ValueRow,
    rows: Mapping[CoSessionId, _SessionRow],
    transactions: Iterable[Transaction],
) -> StoredValue:
    """The value without its transactions; a group's must all be given, others' need not be."""
    sessions = {session_id: row.stored for session_id, row in rows.items()}
    dependencies = value_dependencies(co_id, value.header, sessions, transactions)
    return StoredValue(value.header, sessions, dependencies, value.is_deleted)


class TakesLong(Exception):
    """The value has so many sessions that it is to be read in a thread."""


class SqliteReader:
    """One connection for reading, used by one thread at a time."""

    def __init__(self, path: Path, *, is_foreign: bool = False, is_inline: bool = False) -> None:
        """A foreign file may be of an older version, and in use; it is not changed.

        One that is used inline raises `TakesLong` instead of reading the rows of many sessions.

        Raises: sqlite3.Error.
        """
        self._is_inline = is_inline
        mode = _foreign_mode(path) if is_foreign else "rw"
        self._tidied = path if is_foreign and not _has_journal(path) else None
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
        )
        with ExitStack() as unless_usable:
            unless_usable.callback(self.close)
            self._execute = self._connection.execute
            if is_foreign:
                add_stand_ins(self._connection)
            self._execute("PRAGMA query_only=ON")
            unless_usable.pop_all()
        self._headers: dict[object, CoValueHeader] = {}

    def close(self) -> None:
        self._connection.close()
        if self._tidied is not None and _has_journal(self._tidied):
            _tidy(self._tidied)

    def _read(self, what: str, question: Callable[[], _T]) -> _T:
        """One state of the file for all its queries; `what` is damaged if they fail."""
        try:
            self._execute("BEGIN")
            try:
                return question()
            finally:
                self._execute("COMMIT")
        except (DecodeError, sqlite3.DatabaseError) as error:
            raise CorruptStore(what, str(error)) from error

    def load(self, co_id: RawCoId, known: KnownState, max_bytes: int | None) -> LoadedPieces:
        """As `CoValueStore.load`. Raises: CorruptStore."""
        return self._read(co_id, lambda: self._load(co_id, known, max_bytes))

    def load_text(self, co_id: RawCoId) -> StoredText | None:
        """As `CoValueStore.load_text`. Raises: CorruptStore."""
        return self._read(co_id, lambda: self._load_text(co_id))

    def load_value(self, co_id: RawCoId) -> StoredValue | None:
        """As `CoValueStore.load_value`. Raises: CorruptStore.

        Most values asked for are what somebody brings, and not here: one query tells.
        """
        if not self._has(co_id):
            return None
        return self._read(co_id, lambda: self._load_value(co_id))

    def _has(self, co_id: RawCoId) -> bool:
        try:
            return self._execute(_HAS, (co_id,)).fetchone() is not None
        except sqlite3.DatabaseError as error:
            raise CorruptStore(co_id, str(error)) from error

    def _load(self, co_id: RawCoId, known: KnownState, max_bytes: int | None) -> LoadedPieces:
        value = self._find(co_id)
        if value is None:
            return LoadedPieces()
        rows = self._sessions(value)
        loaded = self._pieces(co_id, value.header, rows, known, max_bytes)
        if known != NOTHING or not loaded.is_complete:
            return loaded
        transactions = (
            transaction
            for piece in loaded.pieces
            for part in piece.new.values()
            for transaction in part.transactions
        )
        return replace(loaded, value=_describe(co_id, value, rows, transactions))

    def _load_text(self, co_id: RawCoId) -> StoredText | None:
        value = self._find(co_id)
        if value is None or value.header.is_group:
            return None
        rows = self._sessions(value)
        size = sum([row.stored.bytes_since_checkpoint for row in rows.values()])
        if size > MAX_TEXT_BYTES or any(row.has_checkpoints for row in rows.values()):
            return None
        texts = {
            session_id: check_transactions(
                self._texts(rows[session_id].row_id, 0, rows[session_id].stored.count)
            )
            for session_id in sorted(rows)
        }
        return StoredText(_describe(co_id, value, rows, ()), texts)

    def _load_value(self, co_id: RawCoId) -> StoredValue | None:
        value = self._find(co_id)
        if value is None:
            return None
        rows = self._sessions(value)
        transactions: list[Transaction] = []
        if value.header.is_group:
            for row in rows.values():
                transactions += self._transactions(row.row_id, 0, row.stored.count)
        return _describe(co_id, value, rows, transactions)

    def _find(self, co_id: RawCoId) -> _ValueRow | None:
        found = self._execute(_VALUE, (co_id,)).fetchone()
        if found is None:
            return None
        row_id, text, is_deleted = found
        header = self._headers.get(text)
        if header is None:
            header = _decode_header(text)
            if len(self._headers) >= MAX_CACHED_HEADERS:
                self._headers.clear()
            if len(text) <= MAX_CACHED_HEADER_CHARACTERS:
                self._headers[text] = header
        if not header.has_id(co_id):
            raise DecodeError("stored header of another value", 0)
        return _ValueRow(row_id, header, bool(is_deleted))

    def _sessions(self, value: _ValueRow) -> dict[CoSessionId, _SessionRow]:
        """Those of a value; of a tombstone the delete sessions only."""
        rows: dict[CoSessionId, _SessionRow] = {}
        found = self._execute(_SESSIONS, (value.row_id,))
        for row_id, text, count, signature, since, has_checkpoints in found:
            if self._is_inline and len(rows) == MANY_SESSIONS:
                found.close()
                raise TakesLong
            if not isinstance(text, str):
                raise DecodeError("stored session id is not text", 0)
            session_id = parse_session_id(text)
            if value.is_deleted and not is_delete_session(session_id):
                continue
            if count:
                stored = _decode_session(count, signature, since)
                rows[session_id] = _SessionRow(row_id, stored, bool(has_checkpoints))
        return rows

    def _pieces(
        self,
        co_id: RawCoId,
        header: CoValueHeader,
        rows: Mapping[CoSessionId, _SessionRow],
        known: KnownState,
        max_bytes: int | None,
    ) -> LoadedPieces:
        counts = {session_id: row.stored for session_id, row in rows.items()}
        lacking = sessions_beyond(counts, known)
        if known.header and not lacking:
            return LoadedPieces()
        builder = PieceBuilder(co_id, None if known.header else header, header.priority)
        is_complete = True
        for session_id, start in lacking.items():
            if not is_complete:
                break
            row = rows[session_id]
            for stop, signature, is_checkpoint in self._signed_ends(row, start):
                if max_bytes is not None and builder.size >= max_bytes:
                    is_complete = False
                    break
                transactions = self._transactions(row.row_id, start, stop)
                part = SessionContent(start, transactions, signature)
                builder.add(session_id, part, is_checkpoint=is_checkpoint)
                start = stop
        until = {session_id: counts[session_id].count for session_id in lacking}
        return LoadedPieces(builder.finish(until), is_complete)

    def _signed_ends(self, row: _SessionRow, start: int) -> Iterator[tuple[int, bytes, bool]]:
        """Where parts of a session may end: (count, signature, is a checkpoint), in order."""
        count = row.stored.count
        end = start
        has_more = row.has_checkpoints
        while has_more:
            place = (row.row_id, end, count, CHECKPOINTS_AT_ONCE)
            found = self._execute(_CHECKPOINTS, place).fetchall()
            has_more = len(found) == CHECKPOINTS_AT_ONCE
            for index, signature in found:
                if not isinstance(index, int) or not isinstance(signature, str):
                    raise DecodeError("stored checkpoint is not (index, signature)", 0)
                end = index + 1
                yield end, decode_signature(signature), True
        if end < count:
            yield count, row.stored.signature, False

    def _transactions(self, row_id: int, start: int, stop: int) -> list[Transaction]:
        return parse_transactions(self._texts(row_id, start, stop))

    def _texts(self, row_id: int, start: int, stop: int) -> list[str]:
        found = self._execute(_TRANSACTIONS, (row_id, start, stop)).fetchall()
        if len(found) != stop - start:
            raise DecodeError(f"only {len(found)} of {stop - start} transactions are stored", 0)
        return [text for (text,) in found]

    def ids(self, prefix: str, after: str, limit: int) -> list[RawCoId]:
        """At most `limit` ids, in order; texts that are not ids are passed over."""
        return self._read("ids", lambda: self._page_of_ids(prefix, after, limit))

    def _page_of_ids(self, prefix: str, after: str, limit: int) -> list[RawCoId]:
        ids: list[RawCoId] = []
        while len(ids) < limit:
            found = self._execute(_IDS, (after, prefix, prefix + _ABOVE_LETTERS, limit))
            texts = [text for (text,) in found]
            if not texts:
                break
            after = texts[-1]
            ids += [RawCoId(text) for text in texts if is_co_id(text)]
        return ids

    def totals(self) -> Totals:
        """Raises: CorruptStore. Reads all rows of two tables: a second per million sessions."""
        found = self._read("totals", lambda: self._execute(_TOTALS).fetchone())
        return Totals(*map(int, found))

    def check_tables(self) -> None:
        """Raises: CorruptStore when the tables that hold the values are not there."""
        self._read("tables", lambda: self._execute(_TABLES).fetchone())

    def schema_version(self) -> int:
        """How many of cojson's migrations the file has seen."""
        (version,) = self._execute("PRAGMA user_version").fetchone()
        return int(version)

    def unsynced_ids(self) -> list[RawCoId]:
        """As `CoValueStore.unsynced_ids`."""
        return self._ids_of("sync", _UNSYNCED)

    def pending_erasures(self) -> list[RawCoId]:
        """As `CoValueStore.pending_erasures`."""
        return self._ids_of("deleted", _PENDING)

    def _ids_of(self, what: str, query: str) -> list[RawCoId]:
        found = self._read(what, lambda: self._execute(query).fetchall())
        return [RawCoId(text) for (text,) in found if isinstance(text, str) and is_co_id(text)]

    def lock(self, peer_id: str) -> ReconciliationLock | None:
        """As `CoValueStore.read_lock`. Raises: CorruptStore."""
        return self._read(f"lock of {peer_id}", lambda: self._lock(LOCK_PREFIX + peer_id))

    def _lock(self, key: str) -> ReconciliationLock | None:
        match self._execute(_LOCK, (key,)).fetchone():
            case None:
                return None
            case (str(holder), int(acquired_at), int(offset), released_at) if isinstance(
                released_at, int | None
            ):
                return ReconciliationLock(holder, acquired_at, offset, released_at)
        raise DecodeError("not (holder, acquired, offset, released)", 0)

    def forks(self) -> list[SessionFork]:
        """As `CoValueStore.forks`. Raises: CorruptStore."""
        return self._read("forks", self._forks)

    def _forks(self) -> list[SessionFork]:
        if self._execute(_HAS_TABLE, (FORK_TABLE,)).fetchone() is None:
            return []
        query = f"SELECT record FROM {FORK_TABLE} ORDER BY coValueID, sessionID"
        return [decode_fork(_blob(record)) for (record,) in self._execute(query)]


def _foreign_mode(path: Path) -> str:
    """How SQLite is to open it.

    SQLite reads a file with a write-ahead log only with shared memory beside it. Where it cannot
    make that, and no journal is there, as there would be with a writer, the file is read as it is,
    without a lock.
    """
    file = path.resolve()
    if os.access(file.parent, os.W_OK) or _has_journal(file):
        return "ro"
    return "ro&immutable=1" if _has_write_ahead_log(file) else "ro"


def _has_write_ahead_log(file: Path) -> bool:
    """Source: https://www.sqlite.org/fileformat2.html#file_format_version_numbers."""
    try:
        with file.open("rb") as opened:
            return opened.read(20)[18:] == b"\x02\x02"
    except OSError:
        return False  # SQLite will say why


def _has_journal(path: Path) -> bool:
    file = path.resolve()  # what SQLite keeps beside it is not beside a link to it
    beside = (file.with_name(file.name + ending) for ending in ("-wal", "-shm", "-journal"))
    return any(map(os.path.lexists, beside))


def _tidy(path: Path) -> None:
    """Remove what reading has left beside a file that had nothing beside it.

    SQLite does so itself when the last connection that may write is closed, and knows which it is.
    """
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True, timeout=0)) as connection:
        connection.execute("PRAGMA user_version").fetchone()


def open_foreign(path: Path) -> SqliteReader:
    """Read a file of any version up to ours, which may be in use, without changing it. Blocks.

    Raises: FileNotFoundError; ConfigError when it is not a file of cojson.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        reader = SqliteReader(path, is_foreign=True)
        with ExitStack() as unless_usable:
            unless_usable.callback(reader.close)
            reader.check_tables()
            check_version(path, reader.schema_version())
            unless_usable.pop_all()
    except (sqlite3.Error, CorruptStore) as error:
        reason = error.reason if isinstance(error, CorruptStore) else error
        raise ConfigError(f"{path} cannot be read as a SQLite file of cojson: {reason}") from error
    return reader


def _decode_header(text: object) -> CoValueHeader:
    if not isinstance(text, str):
        raise DecodeError("stored header is not text", 0)
    return parse_header_text(text)


def _decode_session(count: object, signature: object, since: object) -> StoredSession:
    # Files of version 1 do not count the bytes; JavaScript goes on from 0, too.
    match count, signature, since if since is not None else 0:
        case int(count), str(signature), int(since) if count > 0 and since >= 0:
            return StoredSession(count, decode_signature(signature), since)
    raise DecodeError("stored session is not (count, signature, bytes)", 0)


def _blob(record: object) -> bytes:
    if not isinstance(record, bytes):
        raise DecodeError("stored fork is not a blob", 0)
    return record
