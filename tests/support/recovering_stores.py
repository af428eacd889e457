"""Stores that are marked as having lost a part: their logs may have been longer."""

from __future__ import annotations

from hypercore import Corestore
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import DataKeys, Hints


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
