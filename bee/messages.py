"""Blocks of a bee, as bytes.

| message  | field                                                                   |
|----------|-------------------------------------------------------------------------|
| Header   | 1 protocol (text), 2 Metadata                            block 0        |
| Metadata | 1 content feed (key of another core), 2 user data                       |
| Node     | 1 index, 2 key, 3 value (absent = none)                  every other    |
| index    | 1 Level, repeated: level 0 is the root as of this block                 |
| Level    | 1 packed: seqs of the blocks that hold the keys,                        |
|          | 2 packed: pairs (seq, offset) = level `offset` of block `seq`           |

`seq` is Hyperbee's word for the index of a block.

Worked example: the first put, key "a" and value "b": index `0a 03 0a 01 01` (one level with
one key, in block 1), so the block is `0a 05 0a 03 0a 01 01 12 01 61 1a 01 62`.

Source: hyperbee 2.27.3 lib/messages.js.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from bee.protobuf import (
    as_bytes,
    decode_bytes,
    decode_fields,
    decode_varint,
    encode_bytes_field,
    encode_varint,
    split_varint_pairs,
    split_varints,
)
from hypercore.encoding import DecodeError

PROTOCOL = "hyperbee"

MAX_BROUGHT = 1 << 14
"""Tree nodes in a block; ours have a few hundred at most.

A reader of one passes all that come before it, in 0.1 us each: with a million of them, in a block
of 2 MB, a scan of 200 entries took ten seconds, in which nobody else ran.
"""

MAX_LEVEL_BYTES = 4_096
"""Of a tree node; eight keys and nine children take 208 at most."""

_LEVEL = 0x0A
_LEVEL_KEYS = 0x0A
_LEVEL_CHILDREN = 0x12
_NODE_INDEX = 0x0A
_NODE_KEY = 0x12
_NODE_VALUE = 0x1A


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the header may say besides its protocol."""

    content_feed: bytes | None = None
    user_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class Header:
    protocol: str = PROTOCOL
    metadata: Metadata | None = None

    def encode(self) -> bytes:
        encoded = encode_bytes_field(1, self.protocol.encode())
        if self.metadata is None:
            return encoded
        inner = b""
        if self.metadata.content_feed is not None:
            inner += encode_bytes_field(1, self.metadata.content_feed)
        if self.metadata.user_data is not None:
            inner += encode_bytes_field(2, self.metadata.user_data)
        return encoded + encode_bytes_field(2, inner)

    @classmethod
    def decode(cls, block: bytes) -> Header:
        """Raises: DecodeError."""
        protocol: str | None = None
        metadata: Metadata | None = None
        for number, value in decode_fields(block):
            if number == 1:
                try:
                    protocol = as_bytes(value).decode()
                except UnicodeDecodeError:
                    raise DecodeError("protocol is not UTF-8", 0) from None
            elif number == 2:
                fields = {n: v for n, v in decode_fields(as_bytes(value)) if n in (1, 2)}
                found = {n: as_bytes(v) for n, v in fields.items()}
                metadata = Metadata(found.get(1), found.get(2))
        if protocol is None:
            raise DecodeError("header without a protocol", len(block))
        return cls(protocol, metadata)


class NodeRecord(NamedTuple):
    """A block: what it holds, and the index of tree nodes it brought (still encoded)."""

    index: bytes  # type: ignore[assignment]  # the field's word wins over tuple.index
    key: bytes
    value: bytes | None


_new_record: Callable[[tuple[bytes, bytes, bytes | None]], NodeRecord]
_new_record = partial(tuple.__new__, NodeRecord)
"""Calling `NodeRecord` runs a Python function, which takes twice as long."""


def encode_record(index: bytes, key: bytes, value: bytes | None) -> bytes:
    encoded = b"\x0a%b%b\x12%b%b" % (
        encode_varint(len(index)),
        index,
        encode_varint(len(key)),
        key,
    )
    if value is None:
        return encoded
    return b"%b\x1a%b%b" % (encoded, encode_varint(len(value)), value)


def decode_record(block: bytes) -> NodeRecord:
    """Raises: DecodeError."""
    total = len(block)
    try:  # fields in the order in which all write them, lengths mostly of one byte
        if block[0] == _NODE_INDEX:
            size, start = block[1], 2
            if size > 0x7F:
                size, start = decode_varint(block, 1)
            stop = start + size
            if block[stop] == _NODE_KEY:
                size, key_start = block[stop + 1], stop + 2
                if size > 0x7F:
                    size, key_start = decode_varint(block, stop + 1)
                key_stop = key_start + size
                if key_stop == total:
                    return _new_record((block[start:stop], block[key_start:], None))
                if block[key_stop] == _NODE_VALUE:
                    size, value_start = decode_varint(block, key_stop + 1)
                    if value_start + size == total:
                        index, key = block[start:stop], block[key_start:key_stop]
                        return _new_record((index, key, block[value_start:]))
    except IndexError:
        pass
    fields = {number: value for number, value in decode_fields(block) if number in (1, 2, 3)}
    found = {number: as_bytes(value) for number, value in fields.items()}
    if 1 not in found or 2 not in found:
        raise DecodeError("a block without index or key", total)
    return NodeRecord(found[1], found[2], found.get(3))


def decode_key_value(block: bytes) -> tuple[bytes, bytes | None]:
    """Key and value of a block. Raises: DecodeError.

    Most blocks are decoded for these alone: it takes two thirds of what `decode_record` does.
    """
    total = len(block)
    try:  # as in `decode_record`, and lengths of two bytes
        if block[0] == _NODE_INDEX:
            size, start = block[1], 2
            if size > 0x7F:
                size, start = size + (block[2] - 1 << 7), 3
                if block[2] > 0x7F:
                    size, start = decode_varint(block, 1)
            start += size
            if block[start] == _NODE_KEY:
                size, start = block[start + 1], start + 2
                if size > 0x7F:
                    size, start = decode_varint(block, start - 1)
                stop = start + size
                if stop == total:
                    return block[start:], None
                if block[stop] == _NODE_VALUE:
                    size, value_start = block[stop + 1], stop + 2
                    if size > 0x7F:
                        size, value_start = size + (block[value_start] - 1 << 7), value_start + 1
                        if block[value_start - 1] > 0x7F:
                            size, value_start = decode_varint(block, stop + 1)
                    if value_start + size == total:
                        return block[start:stop], block[value_start:]
    except IndexError:
        pass
    record = decode_record(block)
    return record.key, record.value


def decode_brought(  # noqa: C901, PLR0912, PLR0915  # a node in 4.6 us and not in 7.5
    block: bytes, offset: int
) -> tuple[bytes, list[bytes], list[bytes]]:
    """The key of a block, and what level `offset` of its index holds (`Level`).

    Raises: DecodeError, also when there are not that many levels.
    """
    try:  # fields in the order in which all write them
        if block[0] == _NODE_INDEX:
            size, start = block[1], 2
            if size > 0x7F:
                size, start = decode_varint(block, 1)
            index_stop = start + size
            if block[index_stop] == _NODE_KEY:
                size, key_start = block[index_stop + 1], index_stop + 2
                if size > 0x7F:
                    size, key_start = decode_varint(block, index_stop + 1)
                key_stop = value_stop = key_start + size
                if key_stop < len(block) and block[key_stop] == _NODE_VALUE:
                    size, start_of_value = decode_varint(block, key_stop + 1)
                    value_stop = start_of_value + size
                for _ in range(offset):
                    if block[start] != _LEVEL:
                        raise IndexError
                    size, start = block[start + 1], start + 2
                    if size > 0x7F:
                        size, start = decode_varint(block, start - 1)
                    start += size
                if value_stop == len(block) and block[start] == _LEVEL:
                    size, start = block[start + 1], start + 2
                    if size > 0x7F:
                        size, start = decode_varint(block, start - 1)
                    stop = start + size
                    is_small = stop <= index_stop and 1 < size <= MAX_LEVEL_BYTES
                    if is_small and block[start] == _LEVEL_KEYS:
                        size, start = block[start + 1], start + 2
                        if size > 0x7F:
                            size, start = decode_varint(block, start - 1)
                        end = start + size
                        if end == stop:
                            return block[key_start:key_stop], split_varints(block[start:end]), []
                        if end < stop and block[end] == _LEVEL_CHILDREN:
                            size, position = decode_varint(block, end + 1)
                            if position + size == stop:
                                children = split_varint_pairs(block[position:stop])
                                keys = split_varints(block[start:end])
                                return block[key_start:key_stop], keys, children
    except IndexError:
        pass
    record = decode_record(block)
    level = decode_level(record.index, offset)
    return record.key, level.keys, level.children


class Level(NamedTuple):
    """A tree node on the wire: seqs of keys, (seq, offset) of children, each still encoded."""

    keys: list[bytes]
    children: list[bytes]


def encode_level(keys: bytes, children: bytes) -> bytes:
    """Both already packed; what is empty is left out, as in the original."""
    body = b""
    if keys:
        body = b"\x0a%b%b" % (encode_varint(len(keys)), keys)
    if children:
        body = b"%b\x12%b%b" % (body, encode_varint(len(children)), children)
    return b"\x0a%b%b" % (encode_varint(len(body)), body)


def decode_level(index: bytes, offset: int) -> Level:
    """Level number `offset` of a block's index.

    Raises: DecodeError, also when there are not that many levels.
    """
    size = len(index)
    start = stop = 0
    for _ in range(offset + 1):
        if stop >= size:
            raise DecodeError(f"no level {offset} in this index", size)
        if index[stop] != _LEVEL:
            raise DecodeError("something else among the levels", stop)
        length, start = decode_varint(index, stop + 1)
        stop = start + length
    if stop > size:
        raise DecodeError("level cut off", size)
    return _decode_level_body(index, start, stop)


def decode_levels(index: bytes) -> list[Level]:
    """All levels of a block's index. Raises: DecodeError."""
    levels: list[Level] = []
    position = 0
    while position < len(index):
        if index[position] != _LEVEL:
            raise DecodeError("something else among the levels", position)
        if len(levels) == MAX_BROUGHT:
            raise DecodeError(f"more than {MAX_BROUGHT} levels", position)
        length, start = decode_varint(index, position + 1)
        position = start + length
        if position > len(index):
            raise DecodeError("level cut off", len(index))
        levels.append(_decode_level_body(index, start, position))
    return levels


def _decode_level_body(index: bytes, start: int, stop: int) -> Level:
    if stop - start > MAX_LEVEL_BYTES:
        raise DecodeError(f"a level of {stop - start} bytes", start)
    if start < stop and index[start] == _LEVEL_KEYS:  # as all write them
        keys, position = decode_bytes(index, start + 1)
        if position == stop:
            return Level(split_varints(keys), [])
        if position < stop and index[position] == _LEVEL_CHILDREN:
            children, position = decode_bytes(index, position + 1)
            if position == stop:
                return Level(split_varints(keys), split_varint_pairs(children))
    keys = children = b""
    for number, value in decode_fields(index[start:stop]):
        if number == 1:
            keys += as_bytes(value)
        elif number == 2:
            children += as_bytes(value)
    return Level(split_varints(keys), split_varint_pairs(children))


def has_key(index: bytes, seq: int) -> bool:
    """Whether some level names block `seq` as the home of a key. Raises: DecodeError."""
    wanted = encode_varint(seq)
    return any(wanted in level.keys for level in decode_levels(index))


def is_deletion(record: NodeRecord, seq: int) -> bool:
    """Whether block `seq` says that its key is gone (and not that its value is none).

    Raises: DecodeError.
    """
    return record.value is None and not has_key(record.index, seq)
