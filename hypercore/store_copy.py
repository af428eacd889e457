"""[trio] A copy of an open store, made while it is used."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import trio

from hypercore.corestore import Corestore
from hypercore.errors import UsageError
from hypercore.storage import Durability, Storage
from hypercore.storage.rocks import RocksStorage

_LAST_KEY = b"\xff" * 8


async def copy_store(store: Corestore, path: str | PathLike[str]) -> None:
    """Copy all that is committed now to `path`, which must not exist, as a store of its own.

    Reads and appends go on meanwhile. On one disk the two share files that never change, so that
    the copy takes no room at first. It is as good as the original, keys included: two that write
    to the same core sign two histories of it. Whoever opens the copy decides which one goes on.

    Raises: UsageError, StorageFailed, StoreSuspended; OSError from the other disk.
    Cancel: it is finished first, or nothing is left of it.
    """
    target = Path(path)
    if await trio.Path(target).exists():
        raise UsageError(f"{target} is there already: a copy needs a directory of its own")
    storage = store.storage
    if isinstance(storage, RocksStorage):
        await storage.copy_to(target)
    else:
        await trio.to_thread.run_sync(_copy_rows, storage, target)


def _copy_rows(source: Storage, path: Path) -> None:
    target = RocksStorage(path, Durability.COMMIT)
    try:
        batch = target.batch()
        for key, value in source.items(b"", _LAST_KEY):
            batch.put(key, value)
        target.commit(batch)
    finally:
        target.close()
