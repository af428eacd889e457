"""What a store holds, core by core, without opening any of them.

Read from the records as they are: nothing is verified, which opening a core does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.errors import CorruptStorage
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import decode_stored_node
from hypercore.storage.layout import (
    AuthRecord,
    CoreRecord,
    DataKeys,
    HeadRecord,
    auth_key,
)
from hypercore.storage.records import decode_record

_LOOKED_AT_ONCE = 64
"""Records read before others run: about a millisecond."""


@dataclass(frozen=True, slots=True)
class CoreSummary:
    """A stored core, as far as its records say."""

    discovery_key: bytes
    key: bytes
    name: str | None
    """None for a core that was opened by its key."""
    namespace: bytes | None
    """That of the name: 32 bytes, all zeros for the root."""
    has_secret_key: bool
    length: int
    byte_length: int
    """Bytes of all blocks as they are stored, held here or not."""
    fork: int
    blocks_held: int
    changed_unix_ms: int
    """When its head was last written; 0 when it never was, or is not known."""


class CoreSummaries:
    """Summaries of a store's cores, or of those named in one namespace; may be left at any time."""

    def __init__(
        self,
        catalog: Catalog,
        namespace: bytes | None,
        check_open: Callable[[], None],
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        """`check_open` raises when the store is closed, `pause` lets others run."""
        self._catalog = catalog
        self._namespace = namespace
        self._check_open = check_open
        self._pause = pause
        self._discovery_keys = catalog.discovery_keys()
        self._looked_at = 0

    def __aiter__(self) -> CoreSummaries:
        return self

    async def __anext__(self) -> CoreSummary:
        while True:
            if self._looked_at == _LOOKED_AT_ONCE:
                await self._pause()  # before a core is taken: a cancel skips none
                self._looked_at = 0
            self._check_open()
            discovery_key = next(self._discovery_keys, None)
            if discovery_key is None:
                raise StopAsyncIteration
            self._looked_at += 1
            record = self._catalog.find(discovery_key)
            if record is not None and self._is_asked_for(record):  # not purged while others ran
                return summarize(self._catalog.storage, discovery_key, record)

    def _is_asked_for(self, record: CoreRecord) -> bool:
        alias = record.alias
        return self._namespace is None or (alias is not None and alias.namespace == self._namespace)


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
