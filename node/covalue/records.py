"""The stored form of headers, sessions and transactions: msgpack.

| record     | is                                                                         |
|------------|----------------------------------------------------------------------------|
| header     | a map: the header's fields                                                 |
| session    | [count, last signature (64 bytes), bytes since the last checkpoint, tail]  |
| run, tail  | an array of transactions: [made at, changes, key used or nil, meta or nil] |
| checkpoint | a signature (64 bytes)                                                     |
| deletion   | 0 while it waits to be erased, 1 when it is                                |
| short      | [header as JSON, [session, count, signature, bytes, transactions as JSON]...]   |
| lock       | [holder's session id, acquired at, next offset, released at or nil]        |
| fork       | [value, session, [after, run, signature] kept, the same refused]           |

Further array items are ignored: that is how the formats grow. (A session had no tail at first: a
missing one is empty.) Worked example: the run of
`Transaction(5, "[]")` is 91 94 05 a2 5b 5d c0 c0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import msgpack
import msgspec

from hypercore.encoding import DecodeError
from node.cojson.crypto import SIGNATURE_BYTES
from node.covalue.content import SessionContent, Transaction, canonical_lines
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, parse_co_id, parse_session_id
from node.covalue.reconciliation_lock import ReconciliationLock
from node.covalue.record_shapes import ForkRow, PartRow, SessionRow, TransactionRow
from node.covalue.session_fork import SessionFork
from node.covalue.store import StoredSession

T = TypeVar("T")

_pack = msgpack.Packer(autoreset=True).pack
_ARRAY_OF_4 = b"\x94"
_run_decoder = msgspec.msgpack.Decoder(list[TransactionRow])
_session_decoder = msgspec.msgpack.Decoder(SessionRow)
_part_decoder = msgspec.msgpack.Decoder(PartRow)
_fork_decoder = msgspec.msgpack.Decoder(ForkRow)


def _decode(decoder: msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    """Check shape and types while decoding: by hand that took three times as long."""
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DecodeError(f"stored {what}: {error}", 0) from None


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
                raise DecodeError("stored header has a key that is not text", 0)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif not isinstance(item, str | int | float | None):
            raise DecodeError("stored header holds what JSON cannot", 0)


def encode_session(
    count: int, signature: bytes, bytes_since_checkpoint: int, tail: bytes = b""
) -> bytes:
    """`tail` is a run of the session's last transactions, which are in no other."""
    record = _pack((count, signature, bytes_since_checkpoint))
    return _ARRAY_OF_4 + record[1:] + tail if tail else record


def decode_session(data: bytes) -> tuple[StoredSession, list[Transaction]]:
    """The session, and its tail. Raises: DecodeError."""
    session, tail = decode_session_rows(data)
    return session, _transactions(tail)


def decode_session_rows(data: bytes) -> tuple[StoredSession, list[TransactionRow]]:
    """The session, and its tail as it was read. Raises: DecodeError."""
    row = _decode(_session_decoder, data, "session is not [count, signature, bytes, tail]")
    if len(row.tail) > row.count:
        raise DecodeError(f"stored session of {row.count} with a tail of {len(row.tail)}", 0)
    return StoredSession(row.count, row.signature, row.bytes_since_checkpoint), row.tail


def encode_run(transactions: Sequence[Transaction]) -> bytes:
    return _pack(transactions)


def pack_transactions(transactions: Iterable[Transaction]) -> list[bytes]:
    """Each as it is in a run."""
    return list(map(_pack, transactions))


def frame_run(count: int, packed: bytes) -> bytes:
    """The run of so many packed transactions, one after the other."""
    if count < 16:
        return bytes((0x90 | count,)) + packed
    if count < 1 << 16:
        return b"\xdc" + count.to_bytes(2, "big") + packed
    return b"\xdd" + count.to_bytes(4, "big") + packed


def unframe_run(data: bytes) -> tuple[int, bytes]:
    """How many transactions a run has, and all of them packed. Raises: DecodeError."""
    kind = data[0] if data else 0
    if kind & 0xF0 == 0x90:
        return kind & 0x0F, data[1:]
    size = {0xDC: 3, 0xDD: 5}.get(kind)
    if size is None or len(data) < size:
        raise DecodeError("stored run is not an array", 0)
    return int.from_bytes(data[1:size], "big"), data[size:]


def decode_run(data: bytes) -> list[Transaction]:
    """Raises: DecodeError."""
    return _transactions(decode_run_rows(data))


def decode_run_rows(data: bytes) -> list[TransactionRow]:
    """A run as it was read. Raises: DecodeError."""
    rows = _decode(_run_decoder, data, "run is not an array of transactions")
    if not rows:
        raise DecodeError("stored run is empty", 0)
    return rows


def _transactions(rows: Iterable[TransactionRow]) -> list[Transaction]:
    new = tuple.__new__
    return [new(Transaction, (row.made_at, row.changes, row.key_used, row.meta)) for row in rows]


def row_lines(rows: Iterable[TransactionRow]) -> str:
    """Their `canonical_lines`; one call for all runs of a value takes an eighth off reading it."""
    fields = [(row.made_at, row.changes, row.key_used, row.meta) for row in rows]
    return canonical_lines(fields).decode()


class ShortSession(NamedTuple):
    """One session of a short value, as in its row: `text` is its transactions, commas between."""

    session_id: CoSessionId
    stop: int
    signature: bytes
    bytes_since_checkpoint: int
    text: str

    @property
    def stored(self) -> StoredSession:
        return StoredSession(self.stop, self.signature, self.bytes_since_checkpoint)


def encode_short(header: str, sessions: Sequence[ShortSession]) -> bytes:
    """A whole value: its header and transactions in canonical JSON."""
    return _pack((header, sessions))


def decode_short(data: bytes) -> tuple[str, list[ShortSession]]:
    """The header's text, and the sessions. Raises: DecodeError."""
    match _unpack(data):
        case [str(header), list(rows), *_]:
            return header, list(map(_short_session, rows))
    raise DecodeError("stored text of a value is not [header, sessions]", 0)


def _short_session(row: object) -> ShortSession:
    match row:
        case [str(session_id), int(count), bytes(signature), int(since), str(text), *_]:
            return ShortSession(parse_session_id(session_id), count, signature, since, text)
    raise DecodeError("stored short session is not [session, count, signature, bytes, text]", 0)


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
        raise DecodeError("stored count is not a number from 0 on", 0)
    return count


def encode_deletion(*, is_erased: bool) -> bytes:
    return _pack(int(is_erased))


def decode_is_erased(data: bytes) -> bool:
    """Raises: DecodeError."""
    match _unpack(data):
        case 0:
            return False
        case 1:
            return True
    raise DecodeError("stored deletion is neither 0 nor 1", 0)


def encode_lock(lock: ReconciliationLock) -> bytes:
    return _pack(
        (lock.holder_session_id, lock.acquired_at, lock.last_processed_offset, lock.released_at)
    )


def decode_lock(data: bytes) -> ReconciliationLock:
    """Raises: DecodeError."""
    match _unpack(data):
        case [str(holder), int(acquired_at), int(offset), released_at, *_] if isinstance(
            released_at, int | None
        ):
            return ReconciliationLock(holder, acquired_at, offset, released_at)
    raise DecodeError("stored lock is not [holder, acquired, offset, released]", 0)


def encode_fork(fork: SessionFork) -> bytes:
    return _pack((fork.co_id, fork.session_id, fork.kept, fork.refused))


def decode_fork(data: bytes) -> SessionFork:
    """Raises: DecodeError."""
    row = _decode(_fork_decoder, data, "fork is not [value, session, kept, refused]")
    return SessionFork(
        parse_co_id(row.co_id),
        parse_session_id(row.session_id),
        _part(row.kept),
        _part(row.refused),
    )


def encode_part(part: SessionContent) -> bytes:
    """One half of a fork by itself."""
    return _pack(part)


def decode_part(data: bytes) -> SessionContent:
    """Raises: DecodeError."""
    return _part(_decode(_part_decoder, data, "part is not [after, transactions, signature]"))


def _part(row: PartRow) -> SessionContent:
    return SessionContent(row.after, _transactions(row.transactions), row.signature)
