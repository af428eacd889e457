"""The log files of RocksDB (`*.log` and `MANIFEST-*`): which bit of one was turned.

A file is blocks of 32 KiB, each with records one after the other; fewer than 7 bytes at the end of
a block are zeros. A record that does not fit is cut into fragments.

| field    | bytes | meaning                                                          |
|----------|-------|------------------------------------------------------------------|
| checksum | 4     | CRC-32C from `type` on, rotated, plus a constant (`_masked`)     |
| length   | 2     | of the payload, little endian                                    |
| type     | 1     | 1 whole, 2 first, 3 middle, 4 last fragment; 0 for zeros to skip |
| payload  |       | of a write: u64 sequence, u32 count, little endian, and rows     |

The end of a file may be torn by a power cut, and RocksDB drops all from the first record on that is
not whole. But it does the same when one bit is turned in a record that has long been on the disk,
and then drops what was acknowledged. CRCs are linear: a single turned bit can be told from any
other damage, with one error in some 16,000, and be turned back.

Source: RocksDB 10 db/log_format.h, util/crc32c.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from struct import Struct

BLOCK_BYTES = 32_768

_HEADER = Struct("<IHB")
_BATCH = Struct("<QI")
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_ALL_ONES = 0xFFFFFFFF


def _make_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_TABLE = _make_table()


def crc32c(data: bytes) -> int:
    """About 60 ns a byte."""
    table = _TABLE
    value = _ALL_ONES
    for byte in data:
        value = value >> 8 ^ table[value & 0xFF ^ byte]
    return value ^ _ALL_ONES


def _masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & _ALL_ONES


def _unmasked(masked: int) -> int:
    rotated = (masked - _MASK_DELTA) & _ALL_ONES
    return (rotated >> 17 | rotated << 15) & _ALL_ONES


@dataclass(frozen=True, slots=True)
class Record:
    """A record or fragment; `stop` may lie beyond the file, or the block, when it is damaged."""

    start: int
    stop: int
    type: int
    last_sequence: int
    """That of the write that begins here; 0 where none does."""


@dataclass(frozen=True, slots=True)
class TurnedBit:
    """A bit that is not as it was written."""

    offset: int
    """Byte of the file."""
    bit: int

    def __str__(self) -> str:
        return f"bit {self.bit} of byte {self.offset} is not as it was written"


def encode_log(payloads: Iterable[bytes]) -> bytes:
    """A file of these records."""
    encoded = bytearray()
    for payload in payloads:
        kind, rest = _FIRST, payload
        while kind != _LAST:
            room = BLOCK_BYTES - len(encoded) % BLOCK_BYTES
            if room < _HEADER.size:
                encoded += bytes(room)
                continue
            piece, rest = rest[: room - _HEADER.size], rest[room - _HEADER.size :]
            is_first, kind = kind == _FIRST, _MIDDLE if rest else _LAST
            tag = (_FIRST if rest else _WHOLE) if is_first else kind
            checksum = _masked(crc32c(bytes((tag,)) + piece))
            encoded += _HEADER.pack(checksum, len(piece), tag) + piece
    return bytes(encoded)


def payloads_of(data: bytes) -> list[bytes]:
    """What `encode_log` was given, up to where the file was cut. Nothing is verified."""
    payloads = []
    parts: list[bytes] = []
    for record in records(data):
        if record.stop > len(data):
            break
        parts.append(data[record.start + _HEADER.size : record.stop])
        if record.type in (_WHOLE, _LAST):
            payloads.append(b"".join(parts))
            parts = []
    return payloads


def records(data: bytes) -> Iterator[Record]:
    """What the headers say, unverified. After a wrong length it goes on with the next block."""
    position = 0
    while position + _HEADER.size <= len(data):
        block_stop = position - position % BLOCK_BYTES + BLOCK_BYTES
        if block_stop - position < _HEADER.size:
            position = block_stop
            continue
        checksum, length, kind = _HEADER.unpack_from(data, position)
        if kind == length == checksum == 0:
            position = block_stop
            continue
        stop = position + _HEADER.size + length
        yield Record(position, stop, kind, _last_sequence(data, position, length, kind))
        position = min(stop, block_stop)


def _last_sequence(data: bytes, position: int, length: int, kind: int) -> int:
    start = position + _HEADER.size
    if kind not in (_WHOLE, _FIRST) or length < _BATCH.size or start + _BATCH.size > len(data):
        return 0
    sequence, count = _BATCH.unpack_from(data, start)
    return int(sequence + max(count, 1) - 1)


def may_lack(data: bytes, sequence: int) -> bool:
    """Whether a write-ahead log has, or may have had, writes beyond `sequence`. Cheap.

    True for a torn end, and for a record with a turned bit: `turned_bit` tells them apart.
    """
    last = None
    for last in records(data):
        if last.last_sequence > sequence:
            return True
    if last is None:
        return bool(data)
    return not _is_whole(data, last.start, last.stop) or any(data[last.stop :])


def is_foreign(data: bytes) -> bool:
    """Whether some record has a type that is not written here, such as those of reused files.

    RocksDB looks for the rest of such a record for ever. Cheap.
    """
    return any(record.type > _LAST for record in records(data))


def turned_bit(data: bytes) -> TurnedBit | None:
    """The one bit that makes the first bad record whole; None when there is no such bit.

    Costs 60 ns a byte up to that record, and 0.2 s for it.
    """
    for record in records(data):
        if not _is_whole(data, record.start, record.stop):
            return _turned_bit_of(data, record)
    return None


def _is_whole(data: bytes, start: int, stop: int) -> bool:
    block_stop = start - start % BLOCK_BYTES + BLOCK_BYTES
    if stop > min(len(data), block_stop):
        return False
    (stored, _, _) = _HEADER.unpack_from(data, start)
    return bool(_masked(crc32c(data[start + 6 : stop])) == stored)


def _turned_bit_of(data: bytes, record: Record) -> TurnedBit | None:
    start = record.start
    stored, length, _ = _HEADER.unpack_from(data, start)
    for bit in range(16):
        other = length ^ 1 << bit
        if _is_whole(data, start, start + _HEADER.size + other):
            return TurnedBit(start + 4 + bit // 8, bit % 8)
    if record.stop > len(data):
        return None
    content = data[start + 6 : record.stop]
    actual = crc32c(content)
    for bit in range(32):
        if stored ^ 1 << bit == _masked(actual):
            return TurnedBit(start + bit // 8, bit % 8)
    place = _place(len(content), actual ^ _unmasked(stored))
    return None if place is None else TurnedBit(start + 6 + place // 8, place % 8)


def _place(length: int, difference: int) -> int | None:
    """Which bit of `length` bytes changes their CRC by `difference` when it is turned."""
    table = _TABLE
    for bit in range(8):
        change = table[1 << bit]
        for offset in range(length - 1, -1, -1):
            if change == difference:
                return 8 * offset + bit
            change = change >> 8 ^ table[change & 0xFF]
    return None
