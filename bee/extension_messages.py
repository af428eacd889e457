"""Messages of the `hyperbee` extension, as bytes: what readers ask, and hints that answer.

| message  | field                                                                   |
|----------|-------------------------------------------------------------------------|
| hint     | 1 start, 2 end, 3 packed: seqs worth having,             extension, 1   |
|          | 14 answer to, 15 whether these are pushed (ours)                        |
| get      | 1 version, 2 key, 14 number, 15 push from (ours)         extension, 2   |
| iterator | 1 version, 2 gte, 3 gt, 4 lte, 5 lt, 6 limit (0 = none), extension, 3   |
|          | 7 reverse, 8 packed: triples (seq, offset, position),                   |
|          | 14 number, 15 push from (ours)                                          |
| diff     | 1 the other version, 2 iterator (without its number),    extension, 14  |
|          | 15 push from (ours)                                                     |
| keys     | 1 version, 2 keys (repeated), 14 number, 15 push from    extension, 15  |

Fields 14 and 15 are not Hyperbee's, whose peers pass over them. *Push from* asks for the
blocks themselves and not only for their numbers: 1 + the first seq that the asker lacks on the
way, so that what it has of the way is left out; 0 asks for numbers alone. With it, version 0 of
a get stands for the newest one that the answerer has.

A request with a *number* is *narrow*: it asks for the least that leads to the wanted keys, or to
where the range begins, and not for all the keys that a binary search looks at. The hint that
completes this repeats the number. When nothing is left to send, the block that the asker lacks
first comes.

Source: hyperbee 2.27.3 lib/messages.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bee.btree import MAX_DEPTH
from bee.protobuf import (
    as_bytes,
    as_int,
    decode_fields,
    decode_packed,
    encode_bytes_field,
    encode_packed,
    encode_varint_field,
)

MAX_SEQS = 2_176
"""Read of one hint; peers send 128 at most. A message may have 16 MB: decoding that took 4 s."""

_DIFF = 14
_NUMBER = 14
_PUSH = 15


@dataclass(frozen=True, slots=True)
class CacheHint:
    """Seqs worth having: the answer to a request. `pushed`: they follow by themselves.

    `answers` is the number of the narrow request that it answers, 0 for any other.
    """

    seqs: tuple[int, ...]
    pushed: bool = False
    answers: int = 0

    def encode(self) -> bytes:
        start = min(self.seqs, default=0)
        end = max(self.seqs, default=-1) + 1
        body = encode_varint_field(1, start) + encode_varint_field(2, end)
        if self.seqs:
            body += encode_bytes_field(3, encode_packed(self.seqs))
        if self.answers:
            body += encode_varint_field(_NUMBER, self.answers)
        if self.pushed:
            body += encode_varint_field(_PUSH, 1)
        return encode_bytes_field(1, body)


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Somebody looks for `key` (prefixes included) in that version."""

    version: int
    key: bytes
    push_from: int = 0
    number: int = 0

    def encode(self) -> bytes:
        body = encode_varint_field(1, self.version) + encode_bytes_field(2, self.key)
        if self.number:
            body += encode_varint_field(_NUMBER, self.number)
        if self.push_from:
            body += encode_varint_field(_PUSH, self.push_from)
        return encode_bytes_field(2, body)


@dataclass(frozen=True, slots=True)
class KeysRequest:
    """Somebody looks for all these keys in that version; only for peers that push."""

    version: int
    keys: tuple[bytes, ...]
    push_from: int = 0
    number: int = 0

    def encode(self) -> bytes:
        body = encode_varint_field(1, self.version)
        body += b"".join(encode_bytes_field(2, key) for key in self.keys)
        if self.number:
            body += encode_varint_field(_NUMBER, self.number)
        body += encode_varint_field(_PUSH, self.push_from)
        return encode_bytes_field(_PUSH, body)


@dataclass(frozen=True, slots=True)
class IteratorRequest:
    """Somebody reads this range of that version.

    `checkpoint` is the stack of an iteration under way, root first, flat: (seq, offset,
    position) and so on; a position 2i is before key i, 2i + 1 is at it.
    """

    version: int
    gte: bytes | None = None
    gt: bytes | None = None
    lte: bytes | None = None
    lt: bytes | None = None
    limit: int = 0
    reverse: bool = False
    checkpoint: tuple[int, ...] = ()
    push_from: int = 0
    number: int = 0

    def encode(self) -> bytes:
        return encode_bytes_field(3, self.encode_body())

    def encode_body(self) -> bytes:
        body = encode_varint_field(1, self.version)
        for number, bound in enumerate((self.gte, self.gt, self.lte, self.lt), 2):
            if bound is not None:
                body += encode_bytes_field(number, bound)
        body += encode_varint_field(6, self.limit) + encode_varint_field(7, int(self.reverse))
        if self.checkpoint:
            body += encode_bytes_field(8, encode_packed(self.checkpoint))
        if self.number:
            body += encode_varint_field(_NUMBER, self.number)
        if self.push_from:
            body += encode_varint_field(_PUSH, self.push_from)
        return body


@dataclass(frozen=True, slots=True)
class DiffRequest:
    """Somebody compares a range of two versions; only for peers that push."""

    other: int
    range: IteratorRequest
    push_from: int = 0

    @property
    def version(self) -> int:
        """The newer one."""
        return max(self.range.version, self.other)

    def encode(self) -> bytes:
        body = encode_varint_field(1, self.other) + encode_bytes_field(2, self.range.encode_body())
        body += encode_varint_field(_PUSH, self.push_from)
        return encode_bytes_field(_DIFF, body)


Request = GetRequest | KeysRequest | IteratorRequest | DiffRequest
ExtensionMessage = CacheHint | Request


def narrow_number(request: Request) -> int:
    """The number of a narrow request, 0 for any other."""
    if isinstance(request, DiffRequest) or not request.push_from:
        return 0
    return request.number


def is_hint(payload: bytes) -> bool:
    """Whether a payload, with its length before it, can be a hint."""
    size_bytes = {0xFD: 2, 0xFE: 4, 0xFF: 8}.get(payload[0], 0) if payload else 0
    return payload[1 + size_bytes : 2 + size_bytes] == b"\x0a"


def decode_extension(payload: bytes) -> Sequence[ExtensionMessage]:
    """The messages in one payload: one, from all peers we know of. Raises: DecodeError.

    Of a list only as much is read as is used.
    """
    messages: list[ExtensionMessage] = []
    for number, value in decode_fields(payload):
        if number not in (1, 2, 3, _DIFF, _PUSH):
            continue
        pairs = list(decode_fields(as_bytes(value)))
        fields = dict(pairs)
        if number == 1:
            seqs = tuple(decode_packed(as_bytes(fields.get(3, b"")), MAX_SEQS))
            answers = as_int(fields.get(_NUMBER, 0))
            messages.append(CacheHint(seqs, as_int(fields.get(_PUSH, 0)) == 1, answers))
        elif number == 2:
            version, push_from = as_int(fields.get(1, 0)), as_int(fields.get(_PUSH, 0))
            wanted = as_int(fields.get(_NUMBER, 0))
            messages.append(GetRequest(version, as_bytes(fields.get(2, b"")), push_from, wanted))
        elif number == 3:
            messages.append(_decode_iterator(fields))
        elif number == _DIFF:
            inner = dict(decode_fields(as_bytes(fields.get(2, b""))))
            other, push_from = as_int(fields.get(1, 0)), as_int(fields.get(_PUSH, 0))
            messages.append(DiffRequest(other, _decode_iterator(inner), push_from))
        else:
            version, push_from = as_int(fields.get(1, 0)), as_int(fields.get(_PUSH, 0))
            keys = tuple(as_bytes(item) for field, item in pairs if field == 2)
            wanted = as_int(fields.get(_NUMBER, 0))
            messages.append(KeysRequest(version, keys, push_from, wanted))
    return messages


def _decode_iterator(fields: dict[int, int | bytes]) -> IteratorRequest:
    def bound(number: int) -> bytes | None:
        value = fields.get(number)
        return None if value is None else as_bytes(value)

    return IteratorRequest(
        version=as_int(fields.get(1, 0)),
        gte=bound(2),
        gt=bound(3),
        lte=bound(4),
        lt=bound(5),
        limit=as_int(fields.get(6, 0)),
        reverse=as_int(fields.get(7, 0)) == 1,
        checkpoint=tuple(decode_packed(as_bytes(fields.get(8, b"")), 3 * MAX_DEPTH)),
        push_from=as_int(fields.get(_PUSH, 0)),
        number=as_int(fields.get(_NUMBER, 0)),
    )
