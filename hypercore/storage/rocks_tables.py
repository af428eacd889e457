"""[disk] One long commit whose rows do not wait in memory: tables that the database takes over.

RocksDB holds a batch in memory, and then all its rows once more, until they are on the disk. So
most rows of a long commit go into tables of their own as they come: files `ahead-*` beside those
of the database, which nobody else looks at. With the last row they become tables of the database in
one step, by hard links: after a crash all are there or none, and what it leaves of such files is
deleted when the store is opened.

A row that was taken over has no number of its own in its table. RocksDB's list of the tables has
it; where that is lost, any other row of the same key is taken for the newer one. So rows that may
not be new are written once more, in the usual way, and the many must be new.

When RocksDB cannot sync its list it deletes the tables that it was taking over, though the list may
name them later. So the files here are kept until the store is opened again (`restore_tables`).
"""

from __future__ import annotations

import contextlib
import filecmp
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import count
from pathlib import Path

from rocksdict import IngestExternalFileOptions, SstFileWriter

from hypercore.errors import StorageFailed
from hypercore.storage import RowBatch
from hypercore.storage.directory import sync_names
from hypercore.storage.rocks_opening import table_options

_AHEAD = "ahead-"
_numbers = count()

_TABLE_BYTES = 64 << 20
_AFTER_NUMBERS = b"\xff"
_MARK = b"external_sst_file."
"""In the properties at the end of each table that was made apart."""

_PROPERTIES_BYTES = 16 << 10

Rows = dict[bytes, bytes | None]
"""Values by their keys; None deletes."""


class TableBatch:
    """Rows and deletions; `put` is a dictionary's own method, to cost nothing on top."""

    __slots__ = ("__weakref__", "_database", "_rows", "_tables", "is_lost", "is_used", "put")

    def __init__(self, database: Path, rising: Iterable[bytes]) -> None:
        self._database = database
        self._tables = {prefix: _Table(database, prefix) for prefix in rising}
        self._rows: Rows = {}
        """What is in no table yet."""
        self.put = self._rows.__setitem__
        self.is_used = False
        self.is_lost = False

    def delete(self, key: bytes, /) -> None:
        self._rows[key] = None

    def settle(self) -> None:
        """Move rows that come after all that are there into tables; some tree nodes come late."""
        rows = self._rows
        keys = sorted(rows)
        try:
            for prefix, table in self._tables.items():
                start = bisect_right(keys, table.last)
                table.add(rows, keys[start : bisect_left(keys, prefix + _AFTER_NUMBERS)])
        except Exception as error:  # RocksDB's errors have no class of their own
            self.close()
            raise StorageFailed(f"{self._database} cannot be written: {error}") from error

    def finish(self) -> list[str]:
        """Paths of tables with all of the rows, which are on the disk, and not ours any more.

        Raises: OSError, whatever RocksDB does.
        """
        rest = self._tables[b""] = _Table(self._database, b"")
        rest.add(self._rows.copy(), sorted(self._rows))
        paths = [path for table in self._tables.values() for path in table.finish()]
        sync_names(self._database)  # for `is_left_behind`
        self._tables = {}
        return paths

    def pour(self, batch: RowBatch) -> None:
        """Put the rows that may not be new into a batch."""
        for key, value in self._rows.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)

    def close(self) -> None:
        """Give the batch up; the thread that closes the database may do so while its owner does."""
        self.is_used = True
        self._rows.clear()
        for table in list(self._tables.values()):
            table.delete()
        self._tables.clear()

    def lose(self) -> None:
        """The database is closed."""
        self.is_lost = not self.is_used
        self.close()


def taking_over() -> IngestExternalFileOptions:
    """How tables are taken over: of a row that is in two of them, the later one counts."""
    options = IngestExternalFileOptions()
    options.set_move_files(True)
    return options


class _Table:
    """Rows in the order of their keys, in files that are not too long."""

    def __init__(self, database: Path, prefix: bytes) -> None:
        self.last = prefix
        self._database = database
        self._paths: list[str] = []
        self._writer: SstFileWriter | None = None

    def add(self, rows: Rows, keys: Sequence[bytes]) -> None:
        """Move the rows of these keys, in order, here."""
        if not keys:
            return
        writer = self._writer
        if writer is None:
            self._paths.append(str(self._database / f"{_AHEAD}{next(_numbers)}"))
            writer = self._writer = SstFileWriter(table_options())
            writer.open(self._paths[-1])
        take = rows.pop
        for key in keys:
            value = take(key)
            if value is None:
                del writer[key]
            else:
                writer[key] = value
        self.last = keys[-1]
        if writer.file_size() >= _TABLE_BYTES:
            self._finish_file()

    def _finish_file(self) -> None:
        if self._writer is not None:
            self._writer.finish()
            self._writer = None

    def finish(self) -> list[str]:
        """The files, all of which are on the disk then."""
        self._finish_file()
        return self._paths

    def delete(self) -> None:
        self._writer = None
        for path in self._paths:
            Path(path).unlink(missing_ok=True)


def is_taken_over(table: Path) -> bool:
    """Whether a table of the database was made apart."""
    with table.open("rb") as file:
        file.seek(max(0, table.stat().st_size - _PROPERTIES_BYTES))
        return _MARK in file.read()


def tables_ahead(database: Path) -> list[Path]:
    return [*database.glob(f"{_AHEAD}*")]


def is_left_behind(table: Path, database: Path) -> bool:
    """Whether a crash came while a database was taking this table over: there is still another."""
    return any(filecmp.cmp(table, file, shallow=False) for file in tables_ahead(database))


def forget_ahead(database: Path, *, is_open: bool) -> None:
    """Delete what a crash left; until the database `is_open`, only files with no other link."""
    for file in tables_ahead(database):
        with contextlib.suppress(OSError):
            if is_open or file.stat().st_nlink == 1:  # else `is_left_behind` needs it still
                file.unlink()
