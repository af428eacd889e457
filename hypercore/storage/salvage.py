"""[disk] A new database of all that can be read of a damaged one.

RocksDB stops writing when it comes to rewrite a file of which a part cannot be read, and comes to
it again whenever it is opened. Log files of which one bit was turned are mended in place; any other
damaged store is copied, row by row, into a new one that takes its place, with a gap where rows
cannot be read. Where whole files are gone or cut off, or the list of them is, the copy is made of
what is left (`rocks_rebuilding`), and there is a gap wherever the lost ones may have had rows.
`losses` tells what was in the gaps; `hypercore.store_repair` finds out what that means for a core.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypercore.errors import CorruptStorage, StorageFailed
from hypercore.storage import Durability, Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.directory import StoreDirectory
from hypercore.storage.layout import (
    CORES,
    STORE_HEAD_KEY,
    CoreRecord,
    DataKeys,
    Hints,
    StoreHead,
)
from hypercore.storage.log_file import turned_bit
from hypercore.storage.losses import Gap, Loss, losses_in
from hypercore.storage.records import decode_record
from hypercore.storage.rocks import RocksStorage
from hypercore.storage.rocks_rebuilding import check_tables, rebuild_list

_FIRST_KEY = b"\x00"
_LAST_KEY = b"\xff"
_DATA = b"\x04"
"""Where the rows of logs begin; below are the rows that say which cores there are."""

_BATCH_BYTES = 1 << 20
_SPARE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was done to a store."""

    gaps: tuple[Gap, ...]
    damaged: Path | None
    """Where the damaged database is now, to be deleted; None when it had no gaps."""
    mended: tuple[str, ...]
    """What was mended in place, in words."""
    lost: tuple[Loss, ...] = ()
    """What was in the gaps, or may have been, core by core."""


def readable_rows(storage: RocksStorage) -> Iterator[tuple[bytes, bytes] | Gap]:
    """All rows that can be read, in order, with the gaps between them."""
    position, stop = _FIRST_KEY, _LAST_KEY
    while position < stop:
        try:
            for key, value in storage.items(position, stop):
                yield key, value
                position = key + b"\x00"
        except CorruptStorage as error:
            resumed = _next_readable(storage, position, stop)
            yield from _rows_within(storage, Gap(position, resumed, error.reason))
            position = resumed
        else:
            return


def _rows_within(storage: RocksStorage, gap: Gap) -> Iterator[tuple[bytes, bytes] | Gap]:
    """What can be read in a gap after all, and what is left of the gap.

    One damaged block stops an iteration over all files that have keys in its range; a single row
    is read from the file that has it, and its checksums are verified.
    """
    lost: list[bytes] = []
    has_any = False
    for key in storage.unverified_keys(gap.start, gap.stop):
        has_any = True
        try:
            value = storage.get(key)
        except CorruptStorage:
            lost = [*lost[:1], key]
        else:
            if value is not None:
                yield key, value
    if not has_any:
        yield gap
    elif lost:
        yield Gap(lost[0], lost[-1] + b"\x00", gap.reason)
    else:
        yield Gap(gap.start, gap.start, gap.reason)


def _next_readable(storage: Storage, position: bytes, stop: bytes) -> bytes:
    """A key after `position` where reading works again, about the closest there is."""
    width = len(position) + _SPARE_BYTES
    bad = int.from_bytes(position.ljust(width, b"\x00"), "big")
    end = int.from_bytes(stop.ljust(width, b"\x00"), "big")
    step = 1
    while bad + step < end and not _is_readable(storage, (bad + step).to_bytes(width, "big"), stop):
        bad += step
        step *= 256
    good = min(bad + step, end)
    while good - bad > 1:
        middle = (bad + good) // 2
        if _is_readable(storage, middle.to_bytes(width, "big"), stop):
            good = middle
        else:
            bad = middle
    return stop if good == end else good.to_bytes(width, "big")


def _is_readable(storage: Storage, key: bytes, stop: bytes) -> bool:
    try:
        next(storage.items(key, stop), None)
    except CorruptStorage:
        return False
    return True


def salvage(path: Path) -> Salvage:
    """Replace the database of the closed store in `path`, if it is damaged. Blocks; takes long.

    Afterward our own cores whose newest head may be lost refuse appends.

    Raises: StoreLocked, CorruptStorage for damage that cannot be read around, or to the records
    that say which cores there are; StorageFailed. The database is replaced only at the end.
    """
    directory = StoreDirectory(path)
    try:
        mended = tuple(_mend_log_files(path / "db"))
        storage, missing = _open(path, directory.rebuilt_path)
        try:
            found = tuple(row for row in readable_rows(storage) if isinstance(row, Gap))
            gaps = (*missing.gaps, *found)
            _check_catalog(path, storage, gaps, missing)
            if not gaps and not missing.is_rebuilt:
                return Salvage((), None, mended)
            try:
                lost = _copy(storage, directory.salvaged_path, gaps)
            except BaseException:  # it must not take the room of a full disk
                shutil.rmtree(directory.salvaged_path, ignore_errors=True)
                raise
        finally:
            storage.close()
        return Salvage(gaps, directory.replace_database(), mended, lost)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be salvaged: {error}") from error
    finally:
        shutil.rmtree(directory.rebuilt_path, ignore_errors=True)
        directory.close()


@dataclass(frozen=True, slots=True)
class _Missing:
    """What was in whole files that are gone."""

    gaps: tuple[Gap, ...] = ()
    is_rebuilt: bool = False
    has_unknown: bool = False
    """Whether there are tables that cannot be read, of which it is unknown what they had."""


def _open(path: Path, rebuilt_path: Path) -> tuple[RocksStorage, _Missing]:
    """The store as it is, or made of the files that are left. Raises: as `salvage`, OSError."""
    try:
        check_tables(path / "db", rebuilt_path)
        return RocksStorage(path, Durability.OS, read_only=True), _Missing()
    except CorruptStorage:
        pass
    rebuilt = rebuild_list(path / "db", rebuilt_path / "db")
    gaps = [
        Gap(table.keys[0], table.keys[1] + b"\x00", f"{table.name} is lost")
        for table in rebuilt.lost
        if table.keys is not None
    ]
    unknown = [table.name for table in rebuilt.lost if table.keys is None]
    if not rebuilt.is_complete:
        names = f"; {', '.join(unknown)} cannot be read" if unknown else ""
        gaps.append(Gap(_DATA, _LAST_KEY, f"the list of the tables is lost{names}"))
    storage = RocksStorage(rebuilt_path, Durability.OS, read_only=True)
    return storage, _Missing(tuple(gaps), is_rebuilt=True, has_unknown=bool(unknown))


def _check_catalog(
    path: Path, storage: RocksStorage, gaps: tuple[Gap, ...], missing: _Missing
) -> None:
    """Raises: CorruptStorage when the store may not know all its cores any more.

    Such a core would begin another history.
    """
    reason = next((gap.reason for gap in gaps if gap.start < min(gap.stop, _DATA)), "")
    if missing.is_rebuilt and not reason:
        reason = _doubt(storage, missing)
    if reason:
        raise CorruptStorage(str(path / "db"), f"what cores it has cannot be read: {reason}")


def _doubt(storage: Storage, missing: _Missing) -> str:
    """Why there may have been cores that are not known any more; empty when nothing says so."""
    data = storage.get(STORE_HEAD_KEY)
    if data is None:
        return "their number is lost"
    head = decode_record("store", StoreHead.decode, data)
    records = [decode_record("core", CoreRecord.decode, core) for _, core in storage.items(*CORES)]
    if missing.has_unknown and len(records) < head.cores:
        return "some may have been in tables that cannot be read"
    if _has_orphans(storage, head, {record.data_pointer for record in records}):
        return "there are blocks of some that are not named"
    return ""


def _has_orphans(storage: Storage, head: StoreHead, known: set[int]) -> bool:
    """Whether there are rows of a core whose record is lost; JavaScript's drafts have none."""
    for pointer in set(range(head.datas)) - known:
        keys = DataKeys(pointer)
        row = next(storage.items(*keys.everything, 1), None)
        if row is not None and storage.get(keys.dependency) is None:
            return True
    return False


def _mend_log_files(path: Path) -> Iterator[str]:
    """Turn back a bit of a write-ahead log, or of what names the files; tells what was done."""
    manifests = sorted(path.glob("MANIFEST-*"))
    current = path / "CURRENT"
    if len(manifests) == 1:
        text = f"{manifests[0].name}\n".encode()
        if not current.exists() or current.read_bytes() != text:
            current.touch()
            _overwrite(current, 0, text)
            yield f"{current}: names the only manifest there is"
    for file in [*manifests, *path.glob("*.log")]:
        data = file.read_bytes()
        bit = turned_bit(data)
        if bit is not None:
            _overwrite(file, bit.offset, bytes((data[bit.offset] ^ 1 << bit.bit,)))
            yield f"{file}: {bit}; it was turned back"


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy(source: RocksStorage, path: Path, gaps: tuple[Gap, ...]) -> tuple[Loss, ...]:
    shutil.rmtree(path, ignore_errors=True)
    target = RocksStorage(path, Durability.COMMIT)
    try:
        batch, size = target.batch(), 0
        for row in readable_rows(source):
            if isinstance(row, Gap):
                continue
            batch.put(*row)
            size += len(row[0]) + len(row[1])
            if size >= _BATCH_BYTES:
                target.commit(batch)
                batch, size = target.batch(), 0
        target.commit(batch)
        losses = tuple(losses_in(target, gaps))
        _mark_recovering(target, losses)
        target.compact()
        return losses
    finally:
        target.close()


def _mark_recovering(target: Storage, losses: tuple[Loss, ...]) -> None:
    """Keep our own cores whose head may be lost from being appended to: see `Hints`."""
    catalog = Catalog(target)
    batch = target.batch()
    for loss in losses:
        record = catalog.find(loss.discovery_key)
        if record is not None and loss.is_ours and loss.has_head:
            hints = DataKeys(record.data_pointer).hints
            batch.put(hints, Hints(recovering=1).encode())  # the rest is derived anew
    target.commit(batch)
