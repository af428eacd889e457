"""Opening the database of a store: its settings, and what is checked before RocksDB opens it.

Source: hypercore-storage 3.3.1 index.js, for its settings.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
)

from hypercore.errors import (
    CorruptStorage,
    StorageError,
    StoreLocked,
    UsageError,
)
from hypercore.storage.lock_holder import lock_holder
from hypercore.storage.log_file import is_foreign, may_lack, turned_bit

COLUMN_FAMILY = "corestore"

# A whole bitfield page goes with every small append, so that a buffer holds some 2,000 of them.
# JavaScript has two of 64 MiB. Three of 8 MiB cost a client that takes in 64 KiB blocks 1.15 s of
# CPU where four of 4 MiB cost 1.4 s and three of 16 MiB 1.05 s; a busy writer stays at 52 MB,
# where those stay at 49 and 63 MB.
WRITE_BUFFER_BYTES = 8 << 20
WRITE_BUFFERS = 3

# With every buffer begins a new write-ahead log, which RocksDB writes while the old one is not
# synced. A power cut may keep the new one without the end of the old one, and then the store has
# a hole that nothing shows. So it is `rocks` that begins a buffer, with the old log synced.
# RocksDB begins one at the commit after the one that went beyond its own limit; by then ours, which
# is lower and measured every few commits, has been seen.
ROCKS_LIMIT_BYTES = WRITE_BUFFER_BYTES * 5 // 4

# Share of the blob files, oldest first, that a compaction of RocksDB's own choice rewrites.
BLOB_AGE_CUTOFF = 0.25

_BLOCK_CACHE_BYTES = 16 << 20
_FEWEST_OPEN_FILES = 32
_MIB = 1 << 20

_MEND = "`beemesh core verify --repair` turns it back"


_DAMAGE = ("Corruption", "No such file or directory", "Column family not found")


class NoRoom(StorageError):
    """The disk is too full for the files that opening makes; what is there can be read."""


def open_database(
    path: Path, *, read_only: bool, is_new: bool = True, is_lenient: bool = False
) -> Rdict:
    """Open the database in `path`. `is_new`: make it if there is none, unless `read_only`.

    `is_lenient`: open it even where tables are missing; reading from those fails.

    Raises: UsageError, StoreLocked, CorruptStorage, NoRoom, StorageError.
    """
    if not (path / "CURRENT").exists():
        _check_unused(path)
        if read_only:
            raise UsageError(f"there is no store in {path.parent}")
        if not is_new:
            raise CorruptStorage(str(path), "the database that was there is gone")
    cache = Cache(_BLOCK_CACHE_BYTES)
    access = AccessType.read_only(False) if read_only else AccessType.read_write()
    options = _options(cache)
    options.set_paranoid_checks(not is_lenient)
    families = {"default": _options(cache), COLUMN_FAMILY: _log_options(cache)}
    try:
        return Rdict(str(path), options, families, access)
    except Exception as error:
        text = str(error)
        if "While lock file" in text or "lock hold by current process" in text:
            raise StoreLocked(str(path.parent), lock_holder(path / "LOCK")) from None
        if is_damage(text):
            raise CorruptStorage(str(path), text) from error
        is_full = "No space left on device" in text and (path / "CURRENT").exists()
        kind = NoRoom if is_full and not read_only else StorageError
        raise kind(f"{path} cannot be opened: {text}") from error


def is_damage(text: str) -> bool:
    """Whether RocksDB complains of what is, or is not, in its files."""
    return any(words in text for words in _DAMAGE)


def table_options() -> Options:
    """For tables that are made apart, and for RocksDB's own repair, which makes families, too."""
    return _log_options(Cache(_BLOCK_CACHE_BYTES))


def _check_unused(path: Path) -> None:
    """Do not let RocksDB make a new database over one whose first file was lost.

    It would delete the tables of the old one. A database that a crash left half made has none.
    Raises: CorruptStorage.
    """
    if any(
        file.stat().st_size for kind in ("sst", "blob", "log") for file in path.glob(f"*.{kind}")
    ):
        manifests = ", ".join(sorted(file.name for file in path.glob("MANIFEST-*"))) or "none is"
        raise CorruptStorage(
            str(path),
            f"its file CURRENT, one line with the name of a manifest ({manifests}), is lost",
        )


def check_recovered(path: Path) -> None:
    """Raises: CorruptStorage while JavaScript has a recovery to finish."""
    if (path / "RECOVERING").exists():
        raise CorruptStorage(
            str(path / "RECOVERING"),
            "a damaged write-ahead log was dropped; open the store once with the JavaScript "
            "corestore, or read-only",
        )


def check_logs(path: Path) -> None:
    """Keep RocksDB from dropping what was acknowledged because a bit of its log was turned.

    Where one was turned in its manifest, it may even look for the rest of a record for ever. There
    is a log with anything in it only after a crash.

    Raises: CorruptStorage.
    """
    current = path / "CURRENT"
    if not current.exists():
        return
    logs = {log: log.read_bytes() for log in path.glob("*.log") if log.stat().st_size}
    manifest = path / current.read_text(errors="replace").strip()
    for log, data in logs.items():
        if is_foreign(data):
            _check_bits(log, data)
    if manifest.is_file():  # else RocksDB says that it is missing
        _check_bits(manifest, manifest.read_bytes())
    if not logs:
        return
    database = open_database(path, read_only=True)  # writes nothing
    recovered = database.latest_sequence_number()
    database.close()
    del database
    for log, data in logs.items():
        if may_lack(data, recovered):
            _check_bits(log, data)


def _check_bits(log: Path, data: bytes) -> None:
    bit = turned_bit(data)
    if bit is not None:
        raise CorruptStorage(str(log), f"{bit}; {_MEND}")


def _open_files() -> int:
    """How many tables may stay open: half of what the process may have, the rest is for peers.

    RocksDB's default is all of them, however many, and where it cannot open one it fails.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return -1 if allowed == resource.RLIM_INFINITY else max(_FEWEST_OPEN_FILES, allowed // 2)


def _options(cache: Cache) -> Options:
    """Settings of both families; with any other compression JavaScript opens neither."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_compression_type(DBCompressionType.none())
    options.set_bottommost_compression_type(DBCompressionType.none())
    options.set_blob_compression_type(DBCompressionType.none())
    table = BlockBasedOptions()
    table.set_format_version(6)  # what JavaScript's RocksDB reads; a newer default may not be
    # JavaScript has 8 KiB. Scans take 5 to 8 % less time than with that, for 0.4 % more disk.
    table.set_block_size(4096)
    table.set_bloom_filter(10, False)
    # Index and filters in pieces that go through the cache: whole ones would not fit into it, and
    # be read again at every get (55 us instead of 5); outside of it nothing bounds them.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(8192)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_top_level_index_and_filter(True)
    table.set_block_cache(cache)
    options.set_block_based_table_factory(table)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_bytes_per_sync(_MIB)
    options.set_wal_bytes_per_sync(_MIB)  # so that little is left for the sync before a rotation
    options.set_max_background_jobs(2)
    options.set_max_open_files(_open_files())
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(_MIB)
    options.set_stats_dump_period_sec(0)
    options.set_level_compaction_dynamic_level_bytes(True)
    return options


def _log_options(cache: Cache) -> Options:
    options = _options(cache)
    options.set_write_buffer_size(ROCKS_LIMIT_BYTES)
    options.set_max_write_buffer_number(WRITE_BUFFERS)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(4096)
    options.set_blob_file_size(256 * _MIB)
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(BLOB_AGE_CUTOFF)
    options.set_blob_gc_force_threshold(1.0)
    return options


def bytes_in_logs(path: Path) -> int:
    """How much opening the database will write out. While it closes, a log may be deleted."""
    total = 0
    for log in path.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):
            total += log.stat().st_size
    return total
