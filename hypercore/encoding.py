"""Compact encoding: the variable integers, buffers and arrays of every Hypercore format.

| type   | bytes                                                                     |
|--------|---------------------------------------------------------------------------|
| uint   | n <= 252: one byte; else `fd` + u16, `fe` + u32, `ff` + u64, little endian |
| signed | zig-zag (n >= 0: 2n, n < 0: -2n - 1), then uint                            |
| buffer | uint length, then the bytes                                               |
| string | a buffer of UTF-8                                                         |
| array  | uint count, then the items                                                |

Worked example: 252 is `fc`, 253 is `fd fd 00`, "hi" is `02 68 69`.

Source: compact-encoding 3.5.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

MAX_UINT = 2**53 - 1
"""Largest integer the JavaScript originals read; larger ones are refused, as there."""

MAX_ARRAY_ITEMS = 0x100000

_TAGGED_U16 = struct.Struct("<BH")
_TAGGED_U32 = struct.Struct("<BI")
_U64 = struct.Struct("<Q")
_SMALL_UINTS = tuple(bytes((n,)) for n in range(0xFD))


class DecodeError(ValueError):
    """These bytes are not what they should be; `offset` is where reading stopped.

    The one error decoders raise. It never leaves a package: whoever knows where the bytes
    came from turns it into `MalformedMessage` or `CorruptStorage`.
    """

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.reason = reason
        self.offset = offset


class Reader:
    """A cursor over bytes; every method consumes what it returns.

    Bytes left over at the end are no error: trailing optional fields are how the formats
    grow. Raises: DecodeError, and nothing else.
    """

    __slots__ = ("data", "offset", "stop")

    def __init__(self, data: bytes, offset: int = 0, stop: int | None = None) -> None:
        self.data = data
        self.offset = offset
        self.stop = len(data) if stop is None else stop

    @property
    def remaining(self) -> int:
        return self.stop - self.offset

    def uint(self) -> int:
        offset = self.offset
        if offset >= self.stop:
            raise DecodeError("integer cut off", offset)
        first = self.data[offset]
        if first <= 0xFC:
            self.offset = offset + 1
            return first
        return self._long_uint(first, offset + 1)

    def _long_uint(self, first: int, offset: int) -> int:
        size = 2 if first == 0xFD else 4 if first == 0xFE else 8
        end = offset + size
        if end > self.stop:
            raise DecodeError("integer cut off", offset)
        value = int.from_bytes(self.data[offset:end], "little")
        if value > MAX_UINT:
            raise DecodeError(f"integer {value} above {MAX_UINT}", offset)
        self.offset = end
        return value

    def signed(self) -> int:
        value = self.uint()
        return -((value + 1) >> 1) if value & 1 else value >> 1

    def fixed(self, size: int) -> bytes:
        """Exactly `size` raw bytes."""
        offset = self.offset
        end = offset + size
        if end > self.stop:
            raise DecodeError(f"{size} bytes wanted, {self.stop - offset} left", offset)
        self.offset = end
        return self.data[offset:end]

    def fixed32(self) -> bytes:
        return self.fixed(32)

    def fixed64(self) -> bytes:
        return self.fixed(64)

    def uint8(self) -> int:
        return self.fixed(1)[0]

    def uint16(self) -> int:
        return int.from_bytes(self.fixed(2), "little")

    def uint24(self) -> int:
        return int.from_bytes(self.fixed(3), "little")

    def uint32(self) -> int:
        return int.from_bytes(self.fixed(4), "little")

    def uint64(self) -> int:
        """Eight bytes; at most `MAX_UINT`, as in the originals."""
        offset = self.offset
        value = int.from_bytes(self.fixed(8), "little")
        if value > MAX_UINT:
            raise DecodeError(f"integer {value} above {MAX_UINT}", offset)
        return value

    def buffer(self) -> bytes:
        return self.fixed(self.uint())

    def optional_buffer(self) -> bytes | None:
        """A buffer, or None. An empty buffer cannot be told from none and reads as None."""
        size = self.uint()
        return self.fixed(size) if size else None

    def string(self) -> str:
        offset = self.offset
        try:
            return self.buffer().decode()
        except UnicodeDecodeError:
            raise DecodeError("text is not UTF-8", offset) from None

    def flag(self) -> bool:
        """True for the byte 1 and for nothing else."""
        return self.fixed(1) == b"\x01"

    def rest(self) -> bytes:
        data = self.data[self.offset : self.stop]
        self.offset = self.stop
        return data

    def array(self, decode: Callable[[Reader], T]) -> list[T]:
        offset = self.offset
        count = self.uint()
        if count > MAX_ARRAY_ITEMS:
            raise DecodeError(f"array of {count} items, at most {MAX_ARRAY_ITEMS}", offset)
        return [decode(self) for _ in range(count)]

    def uint32_array(self) -> bytes:
        """The raw little-endian words (4 bytes each) of a counted array of u32."""
        return self.fixed(4 * self.uint())


def encode_uint(value: int) -> bytes:
    """Requires 0 <= value <= 2**64 - 1."""
    if value <= 0xFC:
        return _SMALL_UINTS[value]
    if value <= 0xFFFF:
        return _TAGGED_U16.pack(0xFD, value)
    if value <= 0xFFFFFFFF:
        return _TAGGED_U32.pack(0xFE, value)
    return b"\xff" + _U64.pack(value)


def encode_signed(value: int) -> bytes:
    return encode_uint(2 * value if value >= 0 else -2 * value - 1)


def encode_uint64(value: int) -> bytes:
    """Eight bytes, little endian."""
    return _U64.pack(value)


def encode_buffer(data: bytes) -> bytes:
    return encode_uint(len(data)) + data


def encode_optional_buffer(data: bytes | None) -> bytes:
    return b"\x00" if data is None else encode_buffer(data)


def encode_string(text: str) -> bytes:
    return encode_buffer(text.encode())


def encode_array(items: Iterable[bytes]) -> bytes:
    """Frame items that are encoded already."""
    encoded = list(items)
    return encode_uint(len(encoded)) + b"".join(encoded)


def encode_uint32_array(words: bytes) -> bytes:
    """`words` are little-endian u32 already; requires len(words) % 4 == 0."""
    return encode_uint(len(words) // 4) + words


def uint_at(data: bytes, offset: int) -> tuple[int, int]:
    """The integer at `offset`, and where the next field starts; for loops without a Reader.

    Raises: DecodeError.
    """
    size = len(data)
    if offset < size:
        first = data[offset]
        if first < 0xFD:
            return first, offset + 1
        if first == 0xFD and offset + 3 <= size:
            return data[offset + 1] | data[offset + 2] << 8, offset + 3
        if first == 0xFE and offset + 5 <= size:
            return int.from_bytes(data[offset + 1 : offset + 5], "little"), offset + 5
    reader = Reader(data, offset)
    return reader.uint(), reader.offset
