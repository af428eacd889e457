"""[disk] Writing coValues into cojson's SQLite file: one connection, one transaction at a time.

Statements run where they are called; only `commit` waits for the disk. (SQLite lets go of the
interpreter's lock for every row, so rows written in a thread would wait, each of them, until a
busy event loop lets go of it, too.)

Row ids are given out here, from the largest ones found when the file was opened: nobody else
writes to it. Should somebody do so all the same, the next transaction finds out and refuses.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from hypercore.encoding import DecodeError
from hypercore.errors import StorageFailed, StoreLocked
from node.cojson.crypto import encode_signature
from node.covalue import sqlite_space
from node.covalue.content import split_lines
from node.covalue.gathering import ValueRows
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.records import encode_fork
from node.covalue.session_fork import SessionFork
from node.covalue.sqlite_reader import FORK_TABLE, LOCK_PREFIX
from node.covalue.store import Erased, SessionSize
from node.covalue.transaction_json import parse_transactions

MAX_CACHED_ROWS = 65_536
"""Row ids kept of values and sessions, about 200 bytes each; a lookup in the file is 5 µs."""

_ROW_BYTES = 256
"""What a row costs in pages besides its text, indexes included; a guess for `written_bytes`."""

_MAX_SPACES = 16

_ROWS_TOGETHER = 16
"""Transactions that one statement writes, if there are as many: 1.2 us each, alone 1.6."""

_INSERT_SESSION = """INSERT INTO sessions
    (rowID, coValue, sessionID, lastIdx, lastSignature, bytesSinceLastSignature)
    VALUES (?, ?, ?, ?, ?, ?)"""
_UPDATE_SESSION = """UPDATE sessions
    SET lastIdx = ?, lastSignature = ?, bytesSinceLastSignature = ? WHERE rowID = ?"""
# Rows beyond a session's count mean nothing: whatever left them there, they are replaced.
_INSERT_TRANSACTION = "INSERT OR REPLACE INTO transactions (ses, idx, tx) VALUES (?, ?, ?)"
_INSERT_TOGETHER = _INSERT_TRANSACTION + ", (?, ?, ?)" * (_ROWS_TOGETHER - 1)
_INSERT_CHECKPOINT = "INSERT OR REPLACE INTO signatureAfter (ses, idx, signature) VALUES (?, ?, ?)"
_INSERT_DELETED = """INSERT INTO deletedCoValues (coValueID) VALUES (?)
    ON CONFLICT (coValueID) DO NOTHING"""
_SET_ERASED = """INSERT INTO deletedCoValues (coValueID, status) VALUES (?, 1)
    ON CONFLICT (coValueID) DO UPDATE SET status = 1"""
_ERASED_SESSIONS = (
    "SELECT rowID, sessionID FROM sessions WHERE coValue = ? AND sessionID NOT GLOB ?"
)
_DELETE_SESSIONS = "*_session_d*$"
_SIZED_AT_ONCE = 256
_REPLACE_LOCK = """INSERT OR REPLACE INTO storageReconciliationLocks
    (key, holderSessionId, acquiredAt, lastProcessedOffset, releasedAt) VALUES (?, ?, ?, ?, ?)"""
_MAKE_FORKS = f"""CREATE TABLE IF NOT EXISTS {FORK_TABLE} (
    coValueID TEXT, sessionID TEXT, record BLOB NOT NULL, PRIMARY KEY (coValueID, sessionID)
) WITHOUT ROWID"""
_KEEP_FORK = f"""INSERT INTO {FORK_TABLE} VALUES (?, ?, ?)
    ON CONFLICT (coValueID, sessionID) DO NOTHING"""


class SqliteWriter:
    """Between `begin` and `commit` or `rollback` lies one transaction."""

    def __init__(self, path: Path, *, waits_for_disk: bool) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with ExitStack() as unless_usable:
            unless_usable.callback(self._connection.close)
            self._execute = self._connection.execute
            # What is removed is overwritten, and so is what moves to another page.
            self._execute("PRAGMA secure_delete=ON")
            self._execute(f"PRAGMA synchronous={'FULL' if waits_for_disk else 'NORMAL'}")
            if not waits_for_disk:
                # Commits run inline then, and a checkpoint syncs: it gets a thread (`checkpoint`).
                self._execute("PRAGMA wal_autocheckpoint=0")
            self.count = self._number("SELECT count(*) FROM coValues")
            self._version = self._number("PRAGMA data_version")
            self._find_last_rows()
            unless_usable.pop_all()
        self.written_bytes = 0
        """About what was committed since the last checkpoint."""
        self._added = 0
        self._first_new_row = 0
        """Values from here on came with this transaction: no session of theirs is stored."""
        self._has_failed = False
        self._value_rows: dict[RawCoId, int] = {}
        self._session_rows: dict[tuple[int, CoSessionId], int] = {}

    def close(self) -> None:
        self._connection.close()

    def _number(self, query: str, values: Sequence[object] = ()) -> int:
        found = self._execute(query, values).fetchone()
        return found[0] if found is not None and isinstance(found[0], int) else 0

    def _find_last_rows(self) -> None:
        # Orphans of what is gone would come to life under what is new, if that got its row id.
        self._last_value_row = max(
            self._number("SELECT max(rowID) FROM coValues"),
            self._number("SELECT max(coValue) FROM sessions"),
        )
        self._last_session_row = max(
            self._number("SELECT max(rowID) FROM sessions"),
            self._number("SELECT max(ses) FROM transactions"),
        )

    def begin(self) -> None:
        """Raises: StoreLocked if another program wrote to it; StorageFailed after a failure."""
        if self._has_failed:
            raise StorageFailed(f"{self._path}: a write failed before; open it again")
        self._execute("BEGIN IMMEDIATE")
        if self._number("PRAGMA data_version") != self._version:
            raise StoreLocked(str(self._path), "another program, which wrote to it")
        self._first_new_row = self._last_value_row + 1

    def commit(self) -> None:
        """Raises: StorageFailed; what reached the disk is unknown then."""
        try:
            self._execute("COMMIT")
        except sqlite3.Error as error:
            raise StorageFailed(f"{self._path}: {error}") from error
        self.count += self._added
        self._added = 0

    def rollback(self) -> None:
        """Undo what was begun, if anything was. Raises: sqlite3.Error; all is refused then."""
        self._has_failed = True
        if self._connection.in_transaction:
            self._execute("ROLLBACK")
        self._added = 0
        self._value_rows.clear()
        self._session_rows.clear()
        self._find_last_rows()
        self._has_failed = False

    def recover(self) -> None:
        """After a failure: undo what was begun, look how much is stored, and go on.

        Raises: sqlite3.Error; all is still refused then.
        """
        if not self._has_failed:
            return
        self.rollback()
        self.count = self._number("SELECT count(*) FROM coValues")

    def fail(self) -> None:
        """Refuse everything from now on: what reached the disk is unknown."""
        self._has_failed = True

    # What clients uploaded.

    def append(self, rows: Mapping[RawCoId, ValueRows]) -> None:
        """Write what a commit adds.

        Rows of one kind go in together: a statement of its own for each takes a fifth longer. What
        must be new is not looked up first.
        """
        new: list[tuple[int, int, CoSessionId, int, str, int]] = []
        grown: list[tuple[int, str, int, int]] = []
        transactions: list[int | str] = []
        for co_id, value in rows.items():
            value_row = self._value_row(co_id, value)
            if value.is_deletion:
                self._execute(_INSERT_DELETED, (co_id,))
            for session_id, session in value.sessions.items():
                last = session.last
                count, signature = session.count, encode_signature(last.signature)
                row_id = self._session_row(value_row, session_id)
                if row_id:
                    grown.append((count, signature, last.bytes_since_checkpoint, row_id))
                else:
                    row_id = self._last_session_row = self._last_session_row + 1
                    counter = last.bytes_since_checkpoint
                    new.append((row_id, value_row, session_id, count, signature, counter))
                texts = split_lines(session.lines)
                for index, text in enumerate(texts, session.after):
                    transactions += (row_id, index, text)
                for index, checkpoint in session.checkpoints:
                    row = (row_id, index, encode_signature(checkpoint))
                    self._execute(_INSERT_CHECKPOINT, row)
                self.written_bytes += sum(map(len, texts)) + _ROW_BYTES * (len(texts) // 4 + 2)
        self._connection.executemany(_INSERT_SESSION, new)
        self._connection.executemany(_UPDATE_SESSION, grown)
        self._insert_transactions(transactions)

    def _insert_transactions(self, values: Sequence[int | str]) -> None:
        """Rows of three values, one after the other."""
        many, one = 3 * _ROWS_TOGETHER, 3
        rest = len(values) - len(values) % many
        groups = [values[start : start + many] for start in range(0, rest, many)]
        self._connection.executemany(_INSERT_TOGETHER, groups)
        rows = [values[start : start + one] for start in range(rest, len(values), one)]
        self._connection.executemany(_INSERT_TRANSACTION, rows)

    def _value_row(self, co_id: RawCoId, value: ValueRows) -> int:
        row_id = self._value_rows.get(co_id)
        if row_id is None:
            if value.header is not None:
                row_id = self._insert_value(co_id, value.header.canonical)
            elif not (row_id := self._stored_row(co_id)):
                raise ValueError(f"{co_id} is not stored, and has no header")
            if len(self._value_rows) >= MAX_CACHED_ROWS:
                self._value_rows.clear()
            self._value_rows[co_id] = row_id
        return row_id

    def _stored_row(self, co_id: RawCoId) -> int:
        """0 for a value that is not stored."""
        return self._number("SELECT rowID FROM coValues WHERE id = ?", (co_id,))

    def _insert_value(self, co_id: RawCoId, header: str) -> int:
        """The row of a value that comes with its header: a new one, unless it has one already."""
        row_id = self._last_value_row + 1
        for spaces in range(_MAX_SPACES):
            try:
                # No two rows may have the same header. Should a damaged row have this one, then
                # blanks make it another text and the same JSON.
                values = (row_id, co_id, header + " " * spaces)
                self._execute("INSERT INTO coValues (rowID, id, header) VALUES (?, ?, ?)", values)
            except sqlite3.IntegrityError:
                if stored := self._stored_row(co_id):
                    return stored
                if spaces == _MAX_SPACES - 1:
                    raise
            else:
                break
        self._last_value_row = row_id
        self._added += 1
        self.written_bytes += 2 * len(header) + _ROW_BYTES
        return row_id

    def _session_row(self, value_row: int, session_id: CoSessionId) -> int:
        """0 for a session that is new, which gets the next row."""
        key = (value_row, session_id)
        row_id = self._session_rows.get(key)
        if row_id is None:
            query = "SELECT rowID FROM sessions WHERE coValue = ? AND sessionID = ?"
            row_id = 0 if value_row >= self._first_new_row else self._number(query, key)
            if len(self._session_rows) >= MAX_CACHED_ROWS:
                self._session_rows.clear()
            self._session_rows[key] = row_id or self._last_session_row + 1
        return row_id

    # Bookkeeping.

    def track_sync(self, changes: Mapping[tuple[RawCoId, str], bool]) -> None:
        """A row is there for what is not synced yet."""
        self._connection.executemany(
            "DELETE FROM unsynced_covalues WHERE co_value_id = ? AND peer_id = ?",
            [pair for pair, is_synced in changes.items() if is_synced],
        )
        self._connection.executemany(
            "INSERT OR IGNORE INTO unsynced_covalues (co_value_id, peer_id) VALUES (?, ?)",
            [pair for pair, is_synced in changes.items() if not is_synced],
        )

    def stop_tracking_sync(self, co_id: RawCoId) -> None:
        """Forget who still lacks something of this value."""
        self._execute("DELETE FROM unsynced_covalues WHERE co_value_id = ?", (co_id,))

    def write_lock(self, peer_id: str, lock: ReconciliationLock) -> None:
        """Replace the lock of a peer."""
        self._execute(
            _REPLACE_LOCK,
            (
                LOCK_PREFIX + peer_id,
                lock.holder_session_id,
                lock.acquired_at,
                lock.last_processed_offset,
                lock.released_at,
            ),
        )

    def keep_fork(self, fork: SessionFork) -> None:
        """Keep evidence; of one session only the first is kept."""
        self._execute(_MAKE_FORKS)
        self._execute(_KEEP_FORK, (fork.co_id, fork.session_id, encode_fork(fork)))

    # Removing, and giving space back.

    def erase(self, co_id: RawCoId) -> Erased | None:
        """Remove all but the tombstone of a deleted value; returns what that was.

        None when there was nothing to remove; blocks for as long as it takes.
        """
        status = "SELECT count(*) FROM deletedCoValues WHERE coValueID = ? AND status = 0"
        if not self._number(status, (co_id,)):
            return None
        sizes: dict[CoSessionId, SessionSize] = {}
        value_row = self._number("SELECT rowID FROM coValues WHERE id = ?", (co_id,))
        sessions = self._execute(_ERASED_SESSIONS, (value_row, _DELETE_SESSIONS)).fetchall()
        for row_id, session_id in sessions:
            sizes[CoSessionId(session_id)] = self._session_size(row_id)
            self._execute("DELETE FROM transactions WHERE ses = ?", (row_id,))
            self._execute("DELETE FROM signatureAfter WHERE ses = ?", (row_id,))
            self._execute("DELETE FROM sessions WHERE rowID = ?", (row_id,))
        self._execute(_SET_ERASED, (co_id,))
        self._session_rows.clear()
        return Erased(sizes)

    def _session_size(self, row_id: int) -> SessionSize:
        size = SessionSize()
        rows = self._execute("SELECT tx FROM transactions WHERE ses = ?", (row_id,))
        while texts := [text for (text,) in rows.fetchmany(_SIZED_AT_ONCE)]:
            try:
                size = size.plus(parse_transactions(texts))
            except DecodeError:  # another server's file: what cannot be read goes all the same
                size = SessionSize(size.transactions + len(texts), size.characters)
        return size

    def checkpoint(self) -> None:
        """Move what is in the write-ahead log into the file. Blocks: it syncs."""
        self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.written_bytes = 0

    def scrub(self) -> None:
        """Rewrite a small file: copies that moving rows left in its pages are gone then. Blocks."""
        if sqlite_space.is_small(self._connection):
            sqlite_space.rewrite(self._connection)

    def reclaim(self) -> bool:
        """Give back one step of what was erased; returns whether there is more to do. Blocks.

        The last step empties the write-ahead log, unless a reader is in the way for longer than
        5 s: the next erasure does it then, or whoever closes the file last.
        """
        if sqlite_space.is_shrinkable(self._connection):
            if sqlite_space.shrink(self._connection):
                return True
        elif sqlite_space.is_worth_rewriting(self._connection):
            sqlite_space.rewrite(self._connection)
        sqlite_space.cut_log(self._connection)
        return False
