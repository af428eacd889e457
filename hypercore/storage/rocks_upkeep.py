"""What is done to an open database as a whole: compacting and copying it. Both block."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rocksdict import BottommostLevelCompaction, Checkpoint, CompactOptions, Rdict

from hypercore.storage.rocks_opening import BLOB_AGE_CUTOFF

_SCRATCH = "copying"
"""Beside the database: what a copy to another disk is made from; a crash leaves it there."""


def compact_column(database: Rdict, column: Rdict) -> None:
    """Rewrite a column. Raises: whatever RocksDB does."""
    options = CompactOptions()
    # Otherwise the lowest level stays where nothing above overlaps it, and with it the blob files
    # that it shares with deleted values.
    options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
    database.flush_wal(True)  # see `rocks_opening`
    column.flush()
    column.set_options({"blob_garbage_collection_age_cutoff": "1.0"})
    try:
        column.compact_range(None, None, options)
    finally:
        column.set_options({"blob_garbage_collection_age_cutoff": str(BLOB_AGE_CUTOFF)})


def copy_database(
    database: Rdict, source: Path, target: Path, check: Callable[[], None] = lambda: None
) -> None:
    """All that is committed, as a database in the directory `target`, which is made.

    On one disk the two share those files that never change. To another disk they are copied from
    such a twin: the binding keeps the interpreter's lock while it makes one, which is short only
    as long as nothing has to be copied. Before each file that is copied, `check` may raise.

    Raises: OSError, whatever RocksDB and `check` do; nothing is left of the copy then.
    """
    scratch = source.with_name(_SCRATCH)
    shutil.rmtree(scratch, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    is_near = target.parent.stat().st_dev == source.stat().st_dev
    try:
        database.flush_wal(True)  # see `rocks_opening`
        Checkpoint(database).create_checkpoint(str(target if is_near else scratch))
        if not is_near:
            target.mkdir()
            for path in scratch.iterdir():
                check()
                shutil.copy2(path, target)
        shutil.copymode(source, target)
        _sync_all(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        with suppress(OSError):
            target.parent.rmdir()
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sync_all(directory: Path) -> None:
    for path in (*directory.iterdir(), directory, directory.parent):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
