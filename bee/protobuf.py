"""Protocol buffers: the few field types of Hyperbee.

| wire type | bytes                                                              |
|-----------|--------------------------------------------------------------------|
| 0 varint  | 7 bits a byte, lowest first, the top bit says that more follow     |
| 2 bytes   | varint length, then the bytes: text, messages, packed varints      |

A field is a varint `number << 3 | wire type`, then its value. Unknown fields are skipped.

Worked example: 300 is `ac 02`; field 2 holding "hi" is `12 02 68 69`.

Numbers of a packed list can stay encoded (`split_varints`): the tree compares and copies
them far more often than it needs their value. For that they must be canonical.

Source: protocol-buffers-encodings 1.2.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from hypercore.encoding import DecodeError

MAX_VARINT_BYTES = 8
"""Enough for the 2**53 - 1 that JavaScript can count to."""

MAX_FIELDS = 1_000
"""Fields in one message; the largest of ours has eight."""

_VARINT = re.compile(rb"[\x80-\xff]*+[\x00-\x7f]")
_VARINT_PAIR = re.compile(rb"[\x80-\xff]*+[\x00-\x7f][\x80-\xff]*+[\x00-\x7f]")
_CANONICAL = re.compile(
    rb"(?:[\x80-\xff]{1,%d}+[\x01-\x7f]|[\x00-\x7f])*+" % (MAX_VARINT_BYTES - 1)
)
_TOO_LONG = re.compile(rb"[\x80-\xff]{%d}" % MAX_VARINT_BYTES)
_ALL_MORE = bytes(range(0x80, 0x100))
SMALL_VARINTS = tuple(bytes((n,)) for n in range(128))


def encode_varint(value: int) -> bytes:
    """Requires 0 <= value."""
    if value < 0x80:
        return SMALL_VARINTS[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The number at `offset`, and where the next thing starts.

    Raises: DecodeError.
    """
    try:
        # Nearly all are of up to three bytes; written out they take a third less.
        first = data[offset]
        if first < 0x80:
            return first, offset + 1
        second = data[offset + 1]
        if second < 0x80:
            return first & 0x7F | second << 7, offset + 2
        third = data[offset + 2]
        value = first & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14
        if third < 0x80:
            return value, offset + 3
        position, shift = offset + 3, 21
        while True:
            byte = data[position]
            position += 1
            if byte < 0x80:
                return value | byte << shift, position
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift == 7 * MAX_VARINT_BYTES:
                raise DecodeError(f"varint of more than {MAX_VARINT_BYTES} bytes", offset)
    except IndexError:
        raise DecodeError("varint cut off", offset) from None


def decode_varints(encoded: Iterable[bytes]) -> list[int]:
    """Numbers, each encoded by itself, and canonically. Raises: DecodeError."""
    # Written out for three bytes: half of what a call for each takes.
    return [
        one[0] & 0x7F | (one[1] & 0x7F) << 7 | one[2] << 14
        if len(one) == 3
        else decode_varint(one, 0)[0]
        for one in encoded
    ]


def decode_bytes(data: bytes, offset: int) -> tuple[bytes, int]:
    """A length and as many bytes, and where the next thing starts.

    Raises: DecodeError.
    """
    size, start = decode_varint(data, offset)
    stop = start + size
    if stop > len(data):
        raise DecodeError(f"{size} bytes wanted, {len(data) - start} left", start)
    return data[start:stop], stop


def encode_bytes_field(number: int, value: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


def encode_varint_field(number: int, value: int) -> bytes:
    return encode_varint(number << 3) + encode_varint(value)


def encode_packed(values: Iterable[int]) -> bytes:
    return b"".join(map(encode_varint, values))


def decode_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """All fields of a message, in order: number and value.

    Raises: DecodeError.
    """
    offset = 0
    for _ in range(MAX_FIELDS):
        if offset == len(data):
            return
        tag, offset = decode_varint(data, offset)
        value: int | bytes
        match tag & 7:
            case 0:
                value, offset = decode_varint(data, offset)
            case 2:
                value, offset = decode_bytes(data, offset)
            case 1 | 5 as wire_type:
                size = 8 if wire_type == 1 else 4
                if offset + size > len(data):
                    raise DecodeError("fixed field cut off", offset)
                value, offset = data[offset : offset + size], offset + size
            case wire_type:
                raise DecodeError(f"unknown wire type {wire_type}", offset)
        yield tag >> 3, value
    if offset != len(data):
        raise DecodeError(f"more than {MAX_FIELDS} fields", offset)


def as_bytes(value: int | bytes) -> bytes:
    """The value of a field that must be bytes. Raises: DecodeError."""
    if isinstance(value, bytes):
        return value
    raise DecodeError("a number where bytes belong", 0)


def as_int(value: int | bytes) -> int:
    """The value of a field that must be a varint. Raises: DecodeError."""
    if isinstance(value, int):
        return value
    raise DecodeError("bytes where a number belongs", 0)


def decode_packed(packed: bytes, limit: int | None = None) -> list[int]:
    """The numbers of a packed list; with a limit, only the first ones. Raises: DecodeError."""
    values: list[int] = []
    offset = 0
    while offset < len(packed) and len(values) != limit:
        value, offset = decode_varint(packed, offset)
        values.append(value)
    return values


def split_varints(packed: bytes) -> list[bytes]:
    """The numbers of a packed list, each still encoded (and canonical).

    Raises: DecodeError.
    """
    return _VARINT.findall(_canonical(packed))


def split_varint_pairs(packed: bytes) -> list[bytes]:
    """Like `split_varints`, two numbers an item. Raises: DecodeError."""
    packed = _canonical(packed)
    if len(packed.translate(None, _ALL_MORE)) & 1:
        raise DecodeError("an odd count of numbers in a list of pairs", len(packed))
    return _VARINT_PAIR.findall(packed)


def _canonical(packed: bytes) -> bytes:
    # The check also keeps the other patterns from running over and over again through a long run of
    # continuation bytes.
    if _CANONICAL.fullmatch(packed):
        return packed
    if packed[-1] > 0x7F:
        raise DecodeError("varint cut off", len(packed))
    if _TOO_LONG.search(packed):
        raise DecodeError(f"varint of more than {MAX_VARINT_BYTES} bytes", 0)
    return encode_packed(decode_packed(packed))
