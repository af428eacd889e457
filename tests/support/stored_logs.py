"""Logs on a storage that tests can damage or make fail."""

from __future__ import annotations

from hypercore.crypto import KeyPair, discovery_key
from hypercore.manifest import Manifest
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import AuthRecord
from hypercore.storage.memory import MemoryStorage
from hypercore.stored_log import StoredLog

KEY_PAIR = KeyPair.from_seed(b"\x07" * 32)
MANIFEST = Manifest.single_signer(KEY_PAIR.public_key)


class FaultyStorage(MemoryStorage):
    """Fails the commits it is told to, before or after they were stored."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_before = False
        self.fails_after = False

    def commit(self, batch: WriteBatch) -> int:
        if self.fails_before:
            raise OSError("no space left on device")
        sequence = super().commit(batch)
        if self.fails_after:
            raise OSError("input/output error")
        return sequence


def open_log(storage: Storage, *, is_ours: bool = True) -> StoredLog:
    """The log of `KEY_PAIR`, made if it is new; with `is_ours` false known by its key only."""
    key = MANIFEST.key
    catalog = Catalog(storage, bytes(32))
    record = catalog.find(discovery_key(key))
    if record is None:
        auth = AuthRecord.of(key, MANIFEST if is_ours else None, KEY_PAIR if is_ours else None)
        record = catalog.create(auth, None, {})
    return StoredLog(CoreStorage(storage, discovery_key(key), record))
