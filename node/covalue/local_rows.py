"""Rebuilding the rows beside a bee from the bee, when it has gone on without them.

That is so where a store was put back to an older state and its log came back from other nodes:
they hold the log, and nobody but us ever held the rows beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Protocol

from bee.bee import Bee
from node.cojson.deletion import NotDeletable, deletion_time
from node.covalue.content import Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session
from node.covalue.keys import (
    COUNT_KEY,
    TRANSACTIONS_KEY,
    RowKind,
    decode_key,
    deleted_key,
    id_key,
    short_key,
)
from node.covalue.records import (
    decode_header,
    decode_run,
    decode_session,
    encode_count,
    encode_deletion,
)

_PRESENT = b"\xc3"
_SHORT_RANGE = (short_key(RawCoId("")), b"short;")
_ROWS_AT_ONCE = 1000


class WritableRows(Protocol):
    """The data core's private key-value space."""

    def get_local_value(self, key: bytes, /) -> bytes | None: ...
    def local_items(self, start: bytes, stop: bytes, /) -> Iterable[tuple[bytes, bytes]]: ...
    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None: ...


class _Value:
    """One value, as its rows go by."""

    def __init__(self, co_id: RawCoId) -> None:
        self.co_id = co_id
        self.header: CoValueHeader | None = None
        self.is_deleted = False
        self.transactions = 0
        self.deletions = 0

    def add(self, session_id: CoSessionId, index: int, transactions: Sequence[Transaction]) -> None:
        """Transactions from `index` on, which are in no other row."""
        self.transactions += len(transactions)
        if not transactions or not is_delete_session(session_id) or self.header is None:
            return
        self.deletions += len(transactions)
        try:
            made_at = deletion_time(self.co_id, self.header, index, transactions)
            self.is_deleted = self.is_deleted or made_at is not None
        except NotDeletable:
            pass  # never stored as a deletion


async def rebuild_local_rows(bee: Bee[bytes, bytes], local: WritableRows) -> int:
    """Write what the store keeps beside its bee, from the bee alone; returns how many values.

    Reads all of it, from peers where blocks are not here; nobody may write meanwhile.

    Raises: DecodeError, CorruptTree; what reading raises.
    Cancel: some rows are written, each of them right.
    """
    values = transactions = 0
    rows: dict[bytes, bytes | None] = {}
    for key, _ in local.local_items(*_SHORT_RANGE):
        rows[key] = None  # made from what there was of a value when it was stored
    async for value in _values(bee):
        values += 1
        transactions += value.deletions if value.is_deleted else value.transactions
        rows[id_key(value.co_id)] = _PRESENT
        if value.is_deleted and local.get_local_value(deleted_key(value.co_id)) is None:
            rows[deleted_key(value.co_id)] = encode_deletion(is_erased=False)
        if len(rows) >= _ROWS_AT_ONCE:
            await local.write_local(rows)
            rows = {}
    rows[COUNT_KEY] = encode_count(values)
    rows[TRANSACTIONS_KEY] = encode_count(transactions)
    await local.write_local(rows)
    return values


async def _values(bee: Bee[bytes, bytes]) -> AsyncIterator[_Value]:
    """All values, in order of their ids: a value's header comes before its other rows."""
    value: _Value | None = None
    async for entry in bee.range():
        row = decode_key(entry.key)
        if value is None or row.co_id != value.co_id:
            if value is not None:
                yield value
            value = _Value(row.co_id)
        if row.kind is RowKind.HEADER:
            value.header = decode_header(entry.value or b"")
        elif row.kind is RowKind.RUN:
            value.add(row.session_id, row.index, decode_run(entry.value or b""))
        elif row.kind is RowKind.SESSION:
            session, tail = decode_session(entry.value or b"")
            value.add(row.session_id, session.count - len(tail), tail)
    if value is not None:
        yield value
