"""What each core had in rows that can no longer be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypercore.encoding import DecodeError
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.layout import AuthRecord, CoreRecord, DataKeys, auth_key
from hypercore.storage.records import decode_record


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows with start <= key < stop that cannot be read, if any: all may have been deleted."""

    start: bytes
    stop: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Loss:
    """What a core had in the gaps, as far as it was here."""

    discovery_key: bytes
    name: str | None
    is_ours: bool
    """Whether its secret key is here: nobody else may have the blocks."""
    blocks: tuple[tuple[int, int | None], ...]
    """Runs [start, stop); `stop` is None where the gap has no end."""
    has_head: bool

    def __str__(self) -> str:
        parts = ["its newest head may be lost"] if self.has_head else []
        if self.blocks:
            runs = ", ".join(_in_words(start, stop) for start, stop in self.blocks)
            parts.append(f"these of its blocks are lost, as far as they were here: {runs}")
        if not parts:
            parts.append("rows beside its blocks are lost")
        return f"{self.name or self.discovery_key.hex()}: {'; '.join(parts)}"


def _in_words(start: int, stop: int | None) -> str:
    if stop is None:
        return f"some of {start:,} and later" if start else "any"
    return f"{start:,}" if stop - start == 1 else f"{start:,} to {stop - 1:,}"


def losses_in(storage: Storage, gaps: tuple[Gap, ...]) -> Iterator[Loss]:
    """What each core had in the gaps."""
    catalog = Catalog(storage)
    for discovery_key in catalog.discovery_keys():
        record = catalog.find(discovery_key)
        if record is None:
            continue
        keys = DataKeys(record.data_pointer)
        touching = [gap for gap in gaps if _overlap(gap, keys.everything)]
        if touching:
            runs = [_blocks_of(gap, keys) for gap in touching if _overlap(gap, keys.blocks())]
            yield Loss(
                discovery_key,
                None if record.alias is None else record.alias.name,
                _is_ours(storage, record),
                tuple(runs),
                any(_overlap(gap, (keys.head, keys.block(0))) for gap in touching),
            )


def _overlap(gap: Gap, rows: tuple[bytes, bytes]) -> bool:
    return max(gap.start, rows[0]) < min(gap.stop, rows[1])


def _blocks_of(gap: Gap, keys: DataKeys) -> tuple[int, int | None]:
    """The blocks that may have been in a gap."""
    first, last = keys.blocks()
    start = _first_from(max(gap.start, first), keys, 0)
    return start, None if gap.stop >= last else _first_from(gap.stop, keys, start + 1)


def _first_from(key: bytes, keys: DataKeys, otherwise: int) -> int:
    """The first block whose key is not below this one."""
    try:
        index = keys.block_index(key)
    except DecodeError:
        return otherwise  # cut short, as where reading begins anew
    return index + (keys.block(index) < key)


def _is_ours(storage: Storage, record: CoreRecord) -> bool:
    data = storage.get(auth_key(record.core_pointer))
    return data is not None and decode_record("keys", AuthRecord.decode, data).key_pair is not None
