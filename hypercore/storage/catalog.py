"""Which cores a store has: counters, names and pointers.

The counters never go down, and are written in the batch that uses them: a core that reused
another's pointers would overwrite its blocks.

Source: hypercore-storage 3.3.1 index.js (createCore, resumeCore), corestore 7.12.5 (seed).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hypercore.crypto import Entropy, KeyPair, blake2b, namespace, system_entropy
from hypercore.encoding import Reader, encode_uint
from hypercore.errors import CorruptStorage, UsageError
from hypercore.storage import Storage
from hypercore.storage.layout import (
    CORES,
    STORE_HEAD_KEY,
    Alias,
    AuthRecord,
    CoreGroup,
    CoreRecord,
    DataKeys,
    StoreHead,
    alias_key,
    alias_range,
    auth_key,
    core_group_key,
    core_key,
    core_range,
    decode_alias_key,
    group_key,
    group_updates,
)
from hypercore.storage.purging import plan_purge
from hypercore.storage.records import decode_record

_SEED_BYTES = 32
_SEED_DOMAIN = namespace("corestore", 1)[0]
_ALL_RECORDS = (b"\x01", b"\xff")


def sub_namespace(parent: bytes, name: str) -> bytes:
    """Raises: TypeError for a name that is not text."""
    return blake2b(parent, str.encode(name))


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
        if primary_key is not None and len(primary_key) != _SEED_BYTES:
            # The store's head has room for no other length: what follows would be read as a part.
            raise UsageError(f"a primary key has {_SEED_BYTES} bytes, not {len(primary_key)}")
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
            head = replace(head, seed=primary_key or entropy(_SEED_BYTES))
            batch = self.storage.batch()
            batch.put(STORE_HEAD_KEY, head.encode())
            self.storage.commit(batch)
        return head

    def reload(self) -> None:
        """Read the store's head anew, after others had the files, or a failure.

        Raises: CorruptStorage when this is another store now.
        """
        data = self.storage.get(STORE_HEAD_KEY)
        head = StoreHead() if data is None else decode_record("store head", StoreHead.decode, data)
        if head.seed != self.primary_key:
            raise CorruptStorage("store head", "another store was put in this one's place")
        self._head = head

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
        """Make an empty core, all its records in one batch.

        Raises: CorruptStorage when the next pointers are in use.
        """
        head = self._head
        for start, stop in (core_range(head.cores), DataKeys(head.datas).everything):
            if next(self.storage.items(start, stop), None) is not None:
                raise CorruptStorage("store head", "its counters are below the pointers in use")
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

    def join_group(self, core_pointer: int, topic: bytes) -> CoreGroup:
        """Have changes of a core noted in the group of `topic` (32 bytes), for good.

        Raises: UsageError when it is in another one.
        """
        data = self.storage.get(core_group_key(core_pointer))
        if data is not None:
            group = decode_record("group of a core", CoreGroup.decode, data)
            if group.topic != topic:
                raise UsageError(f"the core is in another group, {(group.topic or b'').hex()}")
            return group
        head = self._head
        batch = self.storage.batch()
        pointer = self.find_group(topic)
        if pointer is None:
            pointer = head.groups
            head = replace(head, groups=head.groups + 1)
            batch.put(group_key(topic), encode_uint(pointer))
            batch.put(STORE_HEAD_KEY, head.encode())
        group = CoreGroup(topic, pointer)
        batch.put(core_group_key(core_pointer), group.encode())
        self.storage.commit(batch)
        self._head = head
        return group

    def find_group(self, topic: bytes) -> int | None:
        data = self.storage.get(group_key(topic))
        return None if data is None else decode_record("group", _decode_pointer, data)

    def group_updates(self, topic: bytes) -> list[bytes]:
        """Keys of the cores of a group that ever changed, the last change first."""
        pointer = self.find_group(topic)
        if pointer is None:
            return []
        keys = [key for _, key in self.storage.items(*group_updates(pointer))]
        return keys[::-1]

    def purge(self, discovery_key: bytes) -> int | None:
        """Remove all that is kept of a core, in one batch; returns its sequence.

        None when there is no such core. Raises: UsageError when JavaScript's drafts of another
        core need it.
        """
        record = self.find(discovery_key)
        if record is None:
            return None
        head = self._head
        purge = plan_purge(self.storage, discovery_key, record, head.datas)
        batch = self.storage.batch()
        purge.stage(batch)
        if head.default_discovery_key == discovery_key:
            head = replace(head, default_discovery_key=None)
            batch.put(STORE_HEAD_KEY, head.encode())
        sequence = self.storage.commit(batch)
        self._head = head
        return sequence


def _decode_pointer(data: bytes) -> int:
    return Reader(data).uint()
