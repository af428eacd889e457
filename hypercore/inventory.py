"""What a store holds, core by core, without opening any of them.

Read from the records as they are: nothing is verified, which opening a core does.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.errors import CorruptStorage
from hypercore.storage import Storage
from hypercore.storage.core_storage import decode_stored_node
from hypercore.storage.layout import (
    AuthRecord,
    CoreRecord,
    DataKeys,
    HeadRecord,
    auth_key,
)
from hypercore.storage.records import decode_record


@dataclass(frozen=True, slots=True)
class CoreSummary:
    """A stored core, as far as its records say."""

    discovery_key: bytes
    key: bytes
    name: str | None
    """None for a core that was opened by its key."""
    namespace: bytes | None
    """Of the name: 32 bytes, all zeros for the root."""
    has_secret_key: bool
    length: int
    byte_length: int
    """Bytes of all blocks as they are stored, held here or not."""
    fork: int
    blocks_held: int
    changed_unix_ms: int
    """When its head was last written; 0 when it never was, or is not known."""


def summarize(storage: Storage, discovery_key: bytes, record: CoreRecord) -> CoreSummary:
    """Raises: CorruptStorage for records that are missing or do not decode."""
    where = f"core {discovery_key.hex()[:16]}"
    data = storage.get(auth_key(record.core_pointer))
    if data is None:
        raise CorruptStorage(where, "its keys are missing")
    auth = decode_record(where, AuthRecord.decode, data)
    keys = DataKeys(record.data_pointer)
    data = storage.get(keys.head)
    head = HeadRecord(0, 0, b"") if data is None else decode_record(where, HeadRecord.decode, data)
    return CoreSummary(
        discovery_key=discovery_key,
        key=auth.key,
        name=record.alias.name if record.alias else None,
        namespace=record.alias.namespace if record.alias else None,
        has_secret_key=auth.key_pair is not None,
        length=head.length,
        byte_length=_byte_length(storage, keys, head.length, where),
        fork=head.fork,
        blocks_held=_held(storage, keys, head.length, where),
        changed_unix_ms=head.unix_ms,
    )


def _byte_length(storage: Storage, keys: DataKeys, length: int, where: str) -> int:
    total = 0
    for index in flat_tree.full_roots(length):
        data = storage.get(keys.node(index))
        if data is None:
            raise CorruptStorage(where, f"tree node {index}, a root, is missing")
        total += decode_record(where, decode_stored_node, data).size
    return total


def _held(storage: Storage, keys: DataKeys, length: int, where: str) -> int:
    held = Bitfield()
    for key, page in storage.items(*keys.pages()):
        held.load_page(decode_record(where, keys.page_number, key), page)
    return held.count(0, length)
