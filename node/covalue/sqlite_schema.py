"""[disk] cojson's SQLite file: its tables, its migrations, and who has it open.

| table                      | columns                                                             |
|----------------------------|---------------------------------------------------------------------|
| coValues                   | rowID, id, header (JSON text)                                       |
| sessions                   | rowID, coValue, sessionID, lastIdx (a count), lastSignature,        |
|                            | bytesSinceLastSignature                                             |
| transactions               | ses, idx, tx (JSON text)                                            |
| signatureAfter             | ses, idx (of the last transaction covered), signature               |
| unsynced_covalues          | co_value_id, peer_id                                                |
| deletedCoValues            | coValueID, status: 0 while it waits to be erased, 1 when it is      |
| storageReconciliationLocks | key, holderSessionId, acquiredAt, lastProcessedOffset, releasedAt   |

`user_version` counts the migrations: 1, 3, 4, 5, 6, 7 (there was no 2). Ours are not quite those
of JavaScript: all of them are one transaction, and a column that is there already is left alone,
since JavaScript makes each change by itself and may have stopped in between.

**One program at a time.** JavaScript keeps counts in memory and does not expect another writer,
nor do we. A lock beside the file keeps a second node away, and the file is opened exclusively for
a moment first, which fails while any other program has it open. A program that opens it later
cannot be kept away; the writer notices its first write.

Source: cojson 0.20.19 storage/sqlite/sqliteMigrations.ts.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path

from hypercore.errors import StorageFailed, StoreLocked
from hypercore.storage.lock_holder import lock_holder
from node.errors import ConfigError

SCHEMA_VERSION = 7

_BUSY_SECONDS = 2.0
"""A server that was told to stop may take a moment to close the file."""

_MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE IF NOT EXISTS transactions (
            ses INTEGER, idx INTEGER, tx TEXT NOT NULL, PRIMARY KEY (ses, idx)
        ) WITHOUT ROWID""",
        """CREATE TABLE IF NOT EXISTS sessions (
            rowID INTEGER PRIMARY KEY, coValue INTEGER NOT NULL, sessionID TEXT NOT NULL,
            lastIdx INTEGER, lastSignature TEXT, UNIQUE (sessionID, coValue)
        )""",
        "CREATE INDEX IF NOT EXISTS sessionsByCoValue ON sessions (coValue)",
        """CREATE TABLE IF NOT EXISTS coValues (
            rowID INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, header TEXT NOT NULL UNIQUE
        )""",
        "CREATE INDEX IF NOT EXISTS coValuesByID ON coValues (id)",
    ),
    3: (
        """CREATE TABLE IF NOT EXISTS signatureAfter (
            ses INTEGER, idx INTEGER, signature TEXT NOT NULL, PRIMARY KEY (ses, idx)
        ) WITHOUT ROWID""",
        "ALTER TABLE sessions ADD COLUMN bytesSinceLastSignature INTEGER",
    ),
    4: (
        """CREATE TABLE IF NOT EXISTS unsynced_covalues (
            rowID INTEGER PRIMARY KEY, co_value_id TEXT NOT NULL, peer_id TEXT NOT NULL,
            UNIQUE (co_value_id, peer_id)
        )""",
        """CREATE INDEX IF NOT EXISTS idx_unsynced_covalues_co_value_id
            ON unsynced_covalues (co_value_id)""",
    ),
    5: (
        """CREATE TABLE IF NOT EXISTS deletedCoValues (
            coValueID TEXT PRIMARY KEY, status INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS deletedCoValuesByStatus ON deletedCoValues (status)",
    ),
    6: (
        """CREATE TABLE IF NOT EXISTS storageReconciliationLocks (
            key TEXT PRIMARY KEY, holderSessionId TEXT NOT NULL, acquiredAt INTEGER NOT NULL,
            expiresAt INTEGER NOT NULL, lastProcessedOffset INTEGER NOT NULL DEFAULT 0,
            releasedAt INTEGER
        ) WITHOUT ROWID""",
    ),
    7: ("ALTER TABLE storageReconciliationLocks DROP COLUMN expiresAt",),
}

_LATE_COLUMN = "bytesSinceLastSignature"
_STAND_INS = {
    "signatureAfter": "ses, idx, signature",
    "unsynced_covalues": "co_value_id, peer_id",
    "deletedCoValues": "coValueID, status",
    "storageReconciliationLocks": (
        "key, holderSessionId, acquiredAt, lastProcessedOffset, releasedAt"
    ),
}
_TABLES = frozenset({"coValues", "sessions", "transactions"})
_ALTERED = {
    3: ("sessions", _LATE_COLUMN, True),
    7: ("storageReconciliationLocks", "expiresAt", False),
}
"""Table, column, and whether it is there once that migration is done."""


class FileClaim:
    """Keeps other nodes from a file: a lock beside it, which is gone when it is closed.

    Not on the file itself: where flock and SQLite's own locks know of each other, they would
    stand in each other's way.
    """

    def __init__(self, path: Path) -> None:
        """Raises: StoreLocked; ConfigError when there can be no file."""
        self._path = path.with_name(path.name + "-claim")
        self._file = -1
        while self._file < 0:
            file = self._lock(path)
            # Its owner may have removed it between our opening and our locking it.
            if _is_at(file, self._path):
                self._file = file
            else:
                os.close(file)

    def _lock(self, path: Path) -> int:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be opened for writing: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise StoreLocked(str(path), lock_holder(self._path)) from None
        return file

    def close(self) -> None:
        """Let others have it."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def prepare_file(path: Path) -> None:
    """Bring a file that is claimed to version 7, a new one too. Blocks.

    Raises: ConfigError when it is something else; StoreLocked while another program has it open;
    StorageFailed. No new file is left then.
    """
    is_new = not path.exists()
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened for writing: {error.strerror}") from error
    with ExitStack() as unless_usable:
        if is_new:
            unless_usable.callback(path.unlink)
        _bring_up(path)
        unless_usable.pop_all()


def _bring_up(path: Path) -> None:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        _prepare(connection, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise StoreLocked(str(path), lock_holder(path)) from error
        raise StorageFailed(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path} is not a usable SQLite database: {error}") from error
    finally:
        connection.close()


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
    # Must come before the first table; of a file that has tables it changes nothing.
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    _check_origin(connection, path, version)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("BEGIN EXCLUSIVE")
    for number, statements in _MIGRATIONS.items():
        if number > version:
            _migrate(connection, number, statements)
    connection.execute("COMMIT")


def check_version(path: Path, version: int) -> None:
    """Raises: ConfigError for a version that is newer than what this node knows."""
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{path} has schema version {version}, written by a newer cojson: this node knows "
            f"versions up to {SCHEMA_VERSION}"
        )


def _check_origin(connection: sqlite3.Connection, path: Path, version: int) -> None:
    check_version(path, version)
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    tables = {name for (name,) in connection.execute(query)}
    # JavaScript may have stopped between the first tables.
    if not tables >= _TABLES and (version or not tables <= _TABLES):
        raise ConfigError(f"{path} is a SQLite database, but none of cojson's")


def _migrate(connection: sqlite3.Connection, number: int, statements: tuple[str, ...]) -> None:
    for statement in statements:
        if statement.startswith("ALTER"):
            table, column, is_there_after = _ALTERED[number]
            if _has_column(connection, table, column) is is_there_after:
                continue
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version={number}")


def add_stand_ins(connection: sqlite3.Connection) -> None:
    """Let a file of an older version be read as one of version 7, without changing it.

    What it lacks is made in the connection's own temporary schema, where SQLite looks first.
    """
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in found.fetchall()}
    for name, columns in _STAND_INS.items():
        if name not in tables:
            connection.execute(f"CREATE TEMP TABLE {name} ({columns})")
    if "sessions" in tables and not _has_column(connection, "sessions", _LATE_COLUMN):
        connection.execute(
            f"CREATE TEMP VIEW sessions AS SELECT *, NULL AS {_LATE_COLUMN} FROM main.sessions"
        )


def _has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return (column,) in columns.fetchall()
