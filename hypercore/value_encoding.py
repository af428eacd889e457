"""How values become blocks: bytes, text, JSON and MessagePack.

Source: compact-encoding 2 raw, utf8, raw.json: the bytes are those that JavaScript writes for
the value encodings `binary`, `utf-8` and `json`. MessagePack has no counterpart there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias, TypeVar

import msgpack

from hypercore.javascript_json import encode_json

T = TypeVar("T")

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Packable: TypeAlias = (
    "bool | int | float | str | bytes | Sequence[Packable] | Mapping[str, Packable] | None"
)


class ValueEncoding(Protocol[T]):
    """Turns values into blocks and back. `decode` raises ValueError for what it cannot read."""

    def encode(self, value: T, /) -> bytes: ...
    def decode(self, block: bytes, /) -> T: ...


class _Bytes:
    def encode(self, value: bytes, /) -> bytes:
        return value

    def decode(self, block: bytes, /) -> bytes:
        return block


class _Utf8:
    def encode(self, value: str, /) -> bytes:
        return str.encode(value)  # a TypeError for bytes

    def decode(self, block: bytes, /) -> str:
        return block.decode()


class _Json:
    def encode(self, value: Json, /) -> bytes:
        # JSON.stringify writes null for numbers that JSON does not have, and they would not come
        # back: refused.
        return encode_json(value)

    def decode(self, block: bytes, /) -> Json:
        try:
            value: Json = json.loads(block)
        except RecursionError:
            raise ValueError("JSON nested too deeply") from None
        return value


class _MessagePack:
    def encode(self, value: Packable, /) -> bytes:
        packed: bytes = msgpack.packb(value)
        return packed

    def decode(self, block: bytes, /) -> Packable:
        try:
            value: Packable = msgpack.unpackb(block)
        except (msgpack.UnpackException, TypeError) as error:
            raise ValueError(f"not MessagePack: {error}") from error
        return value


BYTES: ValueEncoding[bytes] = _Bytes()
UTF8: ValueEncoding[str] = _Utf8()
JSON: ValueEncoding[Json] = _Json()
MSGPACK: ValueEncoding[Packable] = _MessagePack()
