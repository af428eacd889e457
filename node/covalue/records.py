"""The stored form of headers, sessions and transactions: msgpack.

| record     | is                                                                         |
|------------|----------------------------------------------------------------------------|
| header     | a map: the header's fields                                                 |
| session    | [count, last signature (64 bytes), bytes since the last checkpoint]        |
| run        | an array of transactions: [made at, changes, key used or nil, meta or nil] |
| checkpoint | a signature (64 bytes)                                                     |

Further array items are ignored: that is how the formats grow. Worked example: the run of
`Transaction(5, "[]")` is 91 94 05 a2 5b 5d c0 c0.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from hypercore.encoding import DecodeError
from node.cojson.crypto import SIGNATURE_BYTES
from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.store import StoredSession

_pack = msgpack.Packer(autoreset=True).pack


def _unpack(data: bytes) -> object:
    try:
        value: object = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a record: {error}", 0) from None
    return value


def encode_header(header: CoValueHeader) -> bytes:
    return _pack(header.fields)


def decode_header(data: bytes) -> CoValueHeader:
    """Raises: DecodeError."""
    fields = _unpack(data)
    if not isinstance(fields, dict):
        raise DecodeError("stored header is not a map", 0)
    _check_json(fields)
    return parse_header(fields)


def _check_json(value: object) -> None:
    """Refuse what msgpack can hold and JSON cannot."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                raise DecodeError("stored header has a key that is no text", 0)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif not isinstance(item, str | int | float | None):
            raise DecodeError("stored header holds what JSON cannot", 0)


def encode_session(count: int, signature: bytes, bytes_since_checkpoint: int) -> bytes:
    return _pack((count, signature, bytes_since_checkpoint))


def decode_session(data: bytes) -> StoredSession:
    """Raises: DecodeError."""
    match _unpack(data):
        case [int(count), bytes(signature), int(since), *_] if (
            count >= 0 and since >= 0 and len(signature) == SIGNATURE_BYTES
        ):
            return StoredSession(count, signature, since)
    raise DecodeError("stored session is not [count, signature, bytes]", 0)


def encode_run(transactions: Sequence[Transaction]) -> bytes:
    return _pack(transactions)


def decode_run(data: bytes) -> list[Transaction]:
    """Raises: DecodeError."""
    items = _unpack(data)
    if not isinstance(items, list) or not items:
        raise DecodeError("stored run is not an array of transactions", 0)
    return [_transaction(item) for item in items]


def _transaction(item: object) -> Transaction:
    match item:
        case [int(made_at), str(changes), key_used, meta, *_] if (
            0 <= made_at < 2**64
            and not isinstance(made_at, bool)
            and isinstance(key_used, str | None)
            and isinstance(meta, str | None)
        ):
            return Transaction(made_at, changes, key_used, meta)
    raise DecodeError("stored transaction is not [made at, changes, key used, meta]", 0)


def encode_checkpoint(signature: bytes) -> bytes:
    return _pack(signature)


def decode_checkpoint(data: bytes) -> bytes:
    """Raises: DecodeError."""
    signature = _unpack(data)
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise DecodeError("stored checkpoint is not a signature", 0)
    return signature


def encode_count(count: int) -> bytes:
    return _pack(count)


def decode_count(data: bytes) -> int:
    """Raises: DecodeError."""
    count = _unpack(data)
    if not isinstance(count, int) or count < 0:
        raise DecodeError("stored number of values is none", 0)
    return count
