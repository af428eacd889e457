"""[disk] A new database of all that can be read of a damaged one.

RocksDB stops writing when it comes to rewrite a file of which a part cannot be read, and comes to
it again whenever it is opened. Log files, of which one bit was turned, are put right in place;
else a damaged store is copied, row by row, into a new one that takes
its place; where rows cannot be read there is a gap. What the gap means for a core is for
`hypercore.store_repair` to find out.
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
from hypercore.storage.layout import AuthRecord, CoreRecord, DataKeys, Hints, auth_key
from hypercore.storage.log_file import turned_bit
from hypercore.storage.records import decode_record
from hypercore.storage.rocks import RocksStorage

_FIRST_KEY = b"\x00"
_LAST_KEY = b"\xff"
_DATA = b"\x04"
"""Where the rows of cores begin; below are those that say which cores there are."""

_BATCH_BYTES = 1 << 20
_SPARE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows with start <= key < stop that cannot be read; none when all of them were deleted."""

    start: bytes
    stop: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Salvage:
    """What was done to a store."""

    gaps: tuple[Gap, ...]
    damaged: Path | None
    """Where the damaged database is now, to be deleted; None when it had no gaps."""
    mended: tuple[str, ...]
    """What was put right in place, in words."""


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
    """What can be read in a gap after all, and what is left of it.

    One damaged block stops an iteration over all files that have keys in its range; a single row
    is read from the one that has it, and its checksums are verified.
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
    """A key after `position` where reading works again, about as close as there is one."""
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

    Afterwards our own cores of which the newest head may be lost refuse appends.

    Raises: StoreLocked, CorruptStorage for damage that nothing can be read around, or to the
    records that say which cores there are; StorageFailed. Before the end nothing is changed.
    """
    directory = StoreDirectory(path)
    try:
        mended = tuple(_mend_log_files(path / "db"))
        storage = RocksStorage(path, Durability.OS, read_only=True)
        try:
            gaps = tuple(row for row in readable_rows(storage) if isinstance(row, Gap))
            for gap in gaps:
                if gap.start < min(gap.stop, _DATA):
                    raise CorruptStorage(
                        str(path / "db"), f"what cores it has cannot be read: {gap.reason}"
                    )
            if not gaps:
                return Salvage((), None, mended)
            _copy(storage, directory.salvaged_path, gaps)
        finally:
            storage.close()
        return Salvage(gaps, directory.replace_database(), mended)
    except OSError as error:
        raise StorageFailed(f"{path} cannot be salvaged: {error}") from error
    finally:
        directory.close()


def _mend_log_files(path: Path) -> Iterator[str]:
    """Turn back a bit of a write-ahead log, or of what names the files; says which."""
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


def _copy(source: RocksStorage, path: Path, gaps: tuple[Gap, ...]) -> None:
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
        _mark_recovering(target, gaps)
        target.compact()
    finally:
        target.close()


def _mark_recovering(target: Storage, gaps: tuple[Gap, ...]) -> None:
    """Our own cores of which the head may be lost are not to be appended to: see `Hints`."""
    catalog = Catalog(target)
    batch = target.batch()
    for discovery_key in catalog.discovery_keys():
        record = catalog.find(discovery_key)
        if record is None or not _is_ours(target, record):
            continue
        keys = DataKeys(record.data_pointer)
        if any(max(gap.start, keys.head) < min(gap.stop, keys.block(0)) for gap in gaps):
            batch.put(keys.hints, Hints(recovering=1).encode())  # the rest is found anew
    target.commit(batch)


def _is_ours(storage: Storage, record: CoreRecord) -> bool:
    data = storage.get(auth_key(record.core_pointer))
    return data is not None and decode_record("keys", AuthRecord.decode, data).key_pair is not None
