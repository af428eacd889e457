"""[disk] A database made of the files left of another, where the list of them is lost or wrong.

RocksDB's list (`MANIFEST-*`) says which tables there are. Without it, or where it names one that is
gone or cut off, nothing is opened. RocksDB's own repair lists what tables can be read, but knows
nothing of blob files, which hold the values of 4 KiB and more, leaves out the tables that were made
apart (`rocks_tables`), which do not say of which column family they are, and takes rows of the
write-ahead log for nobody's while no table is of their family. So all of that is added here.

| edit that adds a blob file | bytes      | meaning                                    |
|----------------------------|------------|--------------------------------------------|
| tag 400                    | varint     |                                            |
| number                     | varint     | that of the file                           |
| count, size                | 2 x varint | its records, and their bytes               |
| method, value              | 2 x 1      | of a checksum of the file: empty, length 0 |
| end                        | 1          | 0                                          |
| tag 200, family            | 2 x varint |                                            |

| edit that adds a table     | bytes      | meaning                                    |
|----------------------------|------------|--------------------------------------------|
| tag 3, number              | 2 x varint | that of the next file                      |
| tag 103, level             | 2 x varint | 0                                          |
| number, size               | 2 x varint | of the file                                |
| first, last                | 2 x text   | keys, and the numbers and kinds of the rows |
| lowest, highest            | 2 x varint | numbers of rows: 0, older than all others  |
| end                        | 1          | 1                                          |
| tag 200, family            | 2 x varint |                                            |

A list that was cut off is a list all the same, and RocksDB deletes the tables that it does not
name. A crash leaves such tables, too, but their rows are in the log or in other tables: the numbers
of the newest rows tell which it is.

Source: RocksDB 10 db/dbformat.h, db/repair.cc, db/version_edit.cc, db/blob/blob_file_addition.cc,
db/blob/blob_log_format.h.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from rocksdict import Rdict

from hypercore.errors import CorruptStorage, StorageError
from hypercore.storage.directory import REBUILT
from hypercore.storage.log_file import encode_log, payloads_of, turned_bit
from hypercore.storage.rocks_opening import COLUMN_FAMILY, NoRoom, open_database, table_options
from hypercore.storage.rocks_tables import is_left_behind, is_taken_over, tables_ahead, taking_over

_BLOB_FILE, _TABLE, _FAMILY = 400, 103, 200
_NEXT_FILE, _LAST_SEQUENCE = 3, 4
_NUMBERS = {2, _NEXT_FILE, _LAST_SEQUENCE, 9, 10, 203}
_TEXTS = {1, 8193}
"""Tags of what an edit begins with: numbers of logs, files, rows, families; comparator and id."""

_FAMILY_NUMBER = 1
"""That of `COLUMN_FAMILY`, in all stores: `default` comes first, and there is no other."""

_NEW_FAMILY = bytes((0xC9, 0x01, len(COLUMN_FAMILY))) + COLUMN_FAMILY.encode()
"""Part of the edit that adds the family: tag 201, and its name."""

_FIRST_KIND, _LAST_KIND = (kind.to_bytes(8, "little") for kind in (1, 0))
"""Number and kind of rows: values, and deletions, which come after those of the same number."""

_BLOB_HEADER_BYTES, _BLOB_FOOTER_BYTES = 30, 32
_BLOB_COUNT = Struct("<4xQ")

_LATER = 10**9
"""Added to the numbers of write-ahead logs: RocksDB reads none that is older than the list."""


@dataclass(frozen=True, slots=True)
class LostTable:
    """A table that is gone, or cannot be read."""

    name: str
    keys: tuple[bytes, bytes] | None
    """The first and last key that it had; None if unknown."""


@dataclass(frozen=True, slots=True)
class RebuiltList:
    """What a list made anew could not take over."""

    lost: tuple[LostTable, ...]
    is_complete: bool
    """Whether the old list told of all tables there were; else there may have been others."""


def rebuild_list(source: Path, target: Path) -> RebuiltList:
    """Make `target` a database of what can be read in `source`, which stays as it is.

    Both share the files that are never written to again. Raises: OSError, CorruptStorage.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    tables = sorted(source.glob("*.sst"))
    apart = [file for file in tables if is_taken_over(file)]
    for file in tables:
        if file not in apart:
            _link(file, target / file.name)
    if COLUMN_FAMILY not in _repair(target):  # there is no table at all
        shutil.rmtree(target)
        open_database(target, read_only=False).close()
    blobs = sorted(source.glob("*.blob"))
    manifest = _manifest(target)
    assert manifest is not None
    added = _new_tables(apart, manifest, target / "apart")
    _complete(manifest, blobs, added.values())
    for file in (*blobs, *added):
        _link(file, target / file.name)
    for log in target.glob("*.log"):
        log.unlink()
    for log in source.glob("*.log"):
        shutil.copyfile(log, target / f"{int(log.stem) + _LATER}.log")
    named = None if _later_tables(source) else _named_tables(source)
    kept = {file.name for file in target.glob("*.sst")}
    if named is None:
        gone = sorted({file.name for file in source.glob("*.sst")} - kept)
        return RebuiltList(tuple(LostTable(name, None) for name in gone), is_complete=False)
    lost = tuple(LostTable(name, keys) for name, keys in named.items() if name not in kept)
    return RebuiltList(lost, is_complete=True)


def _repair(path: Path) -> list[str]:
    """Have RocksDB list the tables in a directory; returns the families that it found."""
    try:
        Rdict.repair(str(path), table_options())
        return Rdict.list_cf(str(path))
    except Exception as error:  # RocksDB's errors have no class of their own
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise CorruptStorage(str(path), f"RocksDB cannot list its files anew: {error}") from error


def check_tables(path: Path, scratch: Path) -> None:
    """Keep RocksDB from deleting tables with rows that nothing else has.

    Raises: CorruptStorage, NoRoom, StorageError.
    """
    later = [table for table in _later_tables(path) if not is_left_behind(table, path)]
    if not later:
        return
    database = open_database(path, read_only=True)
    newest = database.latest_sequence_number()
    database.close()
    del database
    try:
        found = _newest_row(later, scratch)
    except OSError as error:
        kind = NoRoom if error.errno == errno.ENOSPC else StorageError
        raise kind(f"{path} cannot be examined: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if found > newest or any(map(is_taken_over, later)):
        names = ", ".join(sorted(file.name for file in later))
        raise CorruptStorage(
            str(_manifest(path)), f"it lacks tables that have the newest rows: {names}"
        )


def _newest_row(tables: list[Path], scratch: Path) -> int:
    """The number of the newest row in those of the tables that can be read; 0 without any."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for table in tables:
        _link(table, scratch / table.name)
    _repair(scratch)
    made = _manifest(scratch)
    return 0 if made is None else _numbers(made).get(_LAST_SEQUENCE, 0)


def restore_tables(path: Path) -> None:
    """Give back tables that RocksDB took over, and deleted because it could not sync its list.

    The list may name them all the same, and then it is right. Raises: StorageError.
    """
    ahead, manifest = tables_ahead(path), _manifest(path)
    if not ahead or manifest is None or not manifest.is_file():
        return
    if turned_bit(manifest.read_bytes()) is not None:
        return  # RocksDB might never finish with it, and `check_logs` reports it
    named = _named_tables(path) or {}
    missing = {keys: name for name, keys in named.items() if not (path / name).exists()}
    if not missing:
        return
    scratch = path.with_name(REBUILT)
    try:
        for table in ahead:
            keys = _keys_of(table, scratch)
            if keys in missing:
                _link(table, path / missing[keys])
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _later_tables(path: Path) -> list[Path]:
    """Tables that are newer than any that the list may name."""
    manifest = _manifest(path)
    if manifest is None or not manifest.is_file():
        return []  # reported when the database is opened
    next_file = _numbers(manifest).get(_NEXT_FILE, 0)
    return [file for file in path.glob("*.sst") if int(file.stem) >= next_file]


def _manifest(path: Path) -> Path | None:
    """The list in use, if any."""
    current = path / "CURRENT"
    return path / current.read_text(errors="replace").strip() if current.is_file() else None


def _numbers(manifest: Path) -> dict[int, int]:
    """The last numbers that the edits of a list begin with, by their tags."""
    numbers: dict[int, int] = {}
    for edit in payloads_of(manifest.read_bytes()):
        reader = _Varints(edit)
        while reader.offset < len(edit):
            tag = reader.next()
            if tag in _TEXTS:
                size = reader.next()
                reader.offset += size
            elif tag in _NUMBERS:
                numbers[tag] = reader.next()
            else:
                break
    return numbers


def _named_tables(path: Path) -> dict[str, tuple[bytes, bytes]] | None:
    """The tables that the list names, with their first and last keys; None without a list."""
    try:
        database = open_database(path, read_only=True, is_lenient=True)
    except CorruptStorage:
        return None
    files = database.live_files()
    database.close()
    return {
        file["name"].lstrip("/"): (file["start_key"], file["end_key"])
        for file in files
        if file["name"].endswith(".sst")
    }


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(file, target)


def _complete(manifest: Path, blobs: list[Path], tables: Iterable[bytes]) -> None:
    """Name blob files before any table: one named earlier would not be known to need them."""
    edits = payloads_of(manifest.read_bytes())
    place = next(place for place, edit in enumerate(edits) if _NEW_FAMILY in edit) + 1
    edits[place:place] = map(_new_blob_file, blobs)
    manifest.write_bytes(encode_log([*edits, *tables]))


def _new_tables(files: list[Path], manifest: Path, scratch: Path) -> dict[Path, bytes]:
    """The edits that add the tables made apart, as far as they can be read."""
    next_file = _numbers(manifest).get(_NEXT_FILE, 0)
    edits = {}
    for file in files:
        keys = _keys_of(file, scratch)
        if keys is not None:
            number = int(file.stem)
            next_file = max(next_file, number + 1)
            numbers = (_NEXT_FILE, next_file, _TABLE, 0, number, file.stat().st_size)
            first, last = keys[0] + _FIRST_KIND, keys[1] + _LAST_KIND
            edits[file] = (
                b"".join(map(_varint, numbers))
                + _text(first)
                + _text(last)
                + b"".join(map(_varint, (0, 0, 1, _FAMILY, _FAMILY_NUMBER)))
            )
    shutil.rmtree(scratch, ignore_errors=True)
    return edits


def _keys_of(table: Path, scratch: Path) -> tuple[bytes, bytes] | None:
    """A table's first and last key, from a database of nothing else; None if it is unreadable."""
    shutil.rmtree(scratch, ignore_errors=True)
    database = open_database(scratch, read_only=False)
    link = scratch / "table"
    _link(table, link)
    try:
        database.get_column_family(COLUMN_FAMILY).ingest_external_file([str(link)], taking_over())
        (file,) = database.live_files()
    except Exception as error:  # RocksDB's errors have no class of their own
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(scratch)) from error
        return None
    finally:
        database.close()
    return file["start_key"], file["end_key"]


def _text(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _new_blob_file(blob: Path) -> bytes:
    size = blob.stat().st_size
    with blob.open("rb") as file:
        file.seek(max(0, size - _BLOB_FOOTER_BYTES))
        footer = file.read().ljust(_BLOB_FOOTER_BYTES, b"\x00")
    (count,) = _BLOB_COUNT.unpack_from(footer)
    records = max(0, size - _BLOB_HEADER_BYTES - _BLOB_FOOTER_BYTES)
    numbers = (_BLOB_FILE, int(blob.stem), count, records, 0, 0, 0, _FAMILY, _FAMILY_NUMBER)
    return b"".join(map(_varint, numbers))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class _Varints:
    """Reads varints one after the other; zeros beyond the end."""

    def __init__(self, data: bytes) -> None:
        self.offset = 0
        self._data = data

    def next(self) -> int:
        number = shift = 0
        while True:
            byte = self._data[self.offset] if self.offset < len(self._data) else 0
            self.offset += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
