"""Stores that are marked as having lost a part: their logs may have been longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypercore import Core, Corestore, open_corestore
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys, Hints
from tests.support.replicating_cores import replicating

BEFORE = [b"a", b"b", b"c"]
LOST = [b"d", b"e"]


def mark_all_recovering(store: Corestore) -> None:
    """Mark all logs, none of which is open, as JavaScript's `setRecovering` does."""
    storage = store.storage
    catalog = Catalog(storage)
    batch = storage.batch()
    for discovery_key in store.discovery_keys():
        record = catalog.find(discovery_key)
        assert record is not None
        batch.put(DataKeys(record.data_pointer).hints, Hints(recovering=1_764_000_000_000).encode())
    storage.commit(batch)


@asynccontextmanager
async def recovering() -> AsyncIterator[tuple[Corestore, Core, Core]]:
    """A store with a core put back to its first three blocks, and a copy of what it was."""
    seed = bytes(range(32))
    async with (
        open_corestore(None, primary_key=seed) as lost,
        open_corestore(None) as far,
        open_corestore(None, primary_key=seed) as store,
    ):
        async with await store.get(name="log") as writer:
            await writer.append(BEFORE)
        mark_all_recovering(store)
        full = await lost.get(name="log")
        await full.append([*BEFORE, *LOST])
        copy = await far.get(key=full.key)
        async with replicating(full, copy):
            await copy.download(0, 5)
        yield store, await store.get(name="log"), copy
