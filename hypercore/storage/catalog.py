"""Which cores a store has: counters, names and pointers.

The counters are never written lower and always in the batch that uses them: a core that reused
another's pointers would overwrite its blocks.

Source: hypercore-storage 3.3.1 index.js (createCore, resumeCore), corestore 7.12.5 (seed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from hypercore.crypto import Entropy, KeyPair, blake2b, namespace, system_entropy
from hypercore.encoding import DecodeError
from hypercore.errors import CorruptStorage, UsageError
from hypercore.storage import Storage
from hypercore.storage.layout import (
    CORES,
    STORE_HEAD_KEY,
    Alias,
    AuthRecord,
    CoreRecord,
    DataKeys,
    StoreHead,
    alias_key,
    alias_range,
    auth_key,
    core_key,
    decode_alias_key,
)

_SEED_DOMAIN = namespace("corestore", 1)[0]
_ALL_RECORDS = (b"\x01", b"\xff")

T = TypeVar("T")


def decode_record(where: str, decode: Callable[[bytes], T], data: bytes) -> T:
    """Raises: CorruptStorage, naming the record."""
    try:
        return decode(data)
    except DecodeError as error:
        raise CorruptStorage(where, str(error)) from error


def sub_namespace(parent: bytes, name: str) -> bytes:
    return blake2b(parent, name.encode())


class Catalog:
    """The store's own records, above any storage."""

    def __init__(
        self,
        storage: Storage,
        primary_key: bytes | None = None,
        entropy: Entropy = system_entropy,
    ) -> None:
        """Read the store's head; write one to an empty store.

        `primary_key` (32 bytes) is drawn for a new store, and must be the same for an old one.
        Raises: UsageError for another one, CorruptStorage.
        """
        self.storage = storage
        self._head = self._load_head(primary_key, entropy)
        if self._head.seed is None:
            raise CorruptStorage("store head", "it has no seed")
        self.primary_key = self._head.seed
        if primary_key is not None and primary_key != self.primary_key:
            raise UsageError("the store has another primary key than the one given")

    def _load_head(self, primary_key: bytes | None, entropy: Entropy) -> StoreHead:
        data = self.storage.get(STORE_HEAD_KEY)
        head = StoreHead() if data is None else decode_record("store head", StoreHead.decode, data)
        if data is None and any(True for _ in self.storage.items(*_ALL_RECORDS)):
            raise CorruptStorage("store head", "missing, though there are other records")
        if head.seed is None and not self.storage.is_read_only:
            head = replace(head, seed=primary_key or entropy(32))
            batch = self.storage.batch()
            batch.put(STORE_HEAD_KEY, head.encode())
            self.storage.commit(batch)
        return head

    def reload(self) -> None:
        """Read the counters anew: the storage has recovered from a failure.

        Raises: StorageError.
        """
        self._head = self._load_head(self.primary_key, system_entropy)

    def key_pair(self, namespace: bytes, name: str) -> KeyPair:
        """The key pair that a name stands for in this store."""
        return KeyPair.from_seed(
            blake2b(_SEED_DOMAIN, namespace, name.encode(), key=self.primary_key)
        )

    def find(self, discovery_key: bytes) -> CoreRecord | None:
        data = self.storage.get(core_key(discovery_key))
        if data is None:
            return None
        return decode_record(f"core {discovery_key.hex()}", CoreRecord.decode, data)

    def find_name(self, namespace: bytes, name: str) -> bytes | None:
        """The discovery key that the name stands for, if such a core was made."""
        return self.storage.get(alias_key(namespace, name))

    def names(self, namespace: bytes) -> Iterator[tuple[str, bytes]]:
        """(name, discovery key) in order of the names."""
        for key, discovery_key in self.storage.items(*alias_range(namespace)):
            yield decode_record("name", decode_alias_key, key), discovery_key

    def discovery_keys(self) -> Iterator[bytes]:
        for key, _ in self.storage.items(*CORES):
            yield key[1:]

    def create(
        self, auth: AuthRecord, alias: Alias | None, user_data: Mapping[str, bytes]
    ) -> CoreRecord:
        """Make an empty core, all its records in one batch."""
        head = self._head
        record = CoreRecord(head.cores, head.datas, alias)
        head = replace(
            head,
            cores=head.cores + 1,
            datas=head.datas + 1,
            default_discovery_key=head.default_discovery_key or auth.discovery_key,
        )
        batch = self.storage.batch()
        batch.put(STORE_HEAD_KEY, head.encode())
        batch.put(core_key(auth.discovery_key), record.encode())
        if alias is not None:
            batch.put(alias_key(alias.namespace, alias.name), auth.discovery_key)
        batch.put(auth_key(record.core_pointer), auth.encode())
        keys = DataKeys(record.data_pointer)
        for name, value in user_data.items():
            batch.put(keys.user_data(name), value)
        self.storage.commit(batch)
        self._head = head
        return record
