"""Everything that a store keeps because of one core, to be removed in one batch.

hypercore-storage 3.3.1 cannot remove a core. It opens a store from which one was removed here,
and makes a core of the same name anew, under other pointers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypercore.encoding import Reader
from hypercore.errors import UsageError
from hypercore.storage import Storage, WriteBatch
from hypercore.storage.layout import (
    ALIASES,
    CORES,
    CoreGroup,
    CoreRecord,
    DataKeys,
    core_group_key,
    core_key,
    core_range,
    decode_sessions,
    encode_number,
    group_updates,
    sessions_key,
)
from hypercore.storage.records import decode_record


@dataclass(frozen=True, slots=True)
class Purge:
    """Rows that are to go."""

    keys: list[bytes]
    ranges: list[tuple[bytes, bytes]]
    """[start, stop)."""

    def stage(self, batch: WriteBatch) -> None:
        for key in self.keys:
            batch.delete(key)
        for start, stop in self.ranges:
            batch.delete_range(start, stop)


def plan_purge(storage: Storage, discovery_key: bytes, record: CoreRecord, datas: int) -> Purge:
    """All that is kept of a core; `datas` is the store's next free data pointer.

    Rows that another core shares (a static core made of this one) stay.

    Raises: UsageError when a draft of another core is built upon this one's blocks.
    """
    keys = [core_key(discovery_key)]
    keys += [key for key, named in storage.items(*ALIASES) if named == discovery_key]
    ranges = []
    pointers = set()
    others = [other for key, other in _cores(storage) if key != discovery_key]
    if all(other.core_pointer != record.core_pointer for other in others):
        pointers = _sessions(storage, record.core_pointer)
        keys += _group_updates(storage, record.core_pointer)
        ranges.append(core_range(record.core_pointer))
    if all(other.data_pointer != record.data_pointer for other in others):
        pointers.add(record.data_pointer)
    _check_dependents(storage, pointers, datas)
    ranges += [DataKeys(pointer).everything for pointer in sorted(pointers)]
    return Purge(keys, ranges)


def _cores(storage: Storage) -> Iterator[tuple[bytes, CoreRecord]]:
    for key, data in storage.items(*CORES):
        yield key[1:], decode_record(f"core {key[1:].hex()}", CoreRecord.decode, data)


def _sessions(storage: Storage, core_pointer: int) -> set[int]:
    """Data pointers of the core's drafts, which only JavaScript makes."""
    data = storage.get(sessions_key(core_pointer))
    if data is None:
        return set()
    return set(decode_record("sessions of a core", decode_sessions, data).values())


def _group_updates(storage: Storage, core_pointer: int) -> list[bytes]:
    data = storage.get(core_group_key(core_pointer))
    if data is None:
        return []
    start, stop = group_updates(decode_record("group", CoreGroup.decode, data).pointer)
    suffix = encode_number(core_pointer)
    return [key for key, _ in storage.items(start, stop) if key[len(start) + 8 :] == suffix]


def _check_dependents(storage: Storage, doomed: set[int], datas: int) -> None:
    for pointer in range(datas):
        data = None if pointer in doomed else storage.get(DataKeys(pointer).dependency)
        if data is not None and decode_record("dependency", _first_uint, data) in doomed:
            raise UsageError(
                "a draft made by JavaScript is built upon this core's blocks: commit or drop it "
                "there first"
            )


def _first_uint(data: bytes) -> int:
    return Reader(data).uint()
