"""Reading one coValue from a bee: ours, or the data bee of another node.

All rows of a value lie side by side, so a value that nobody knows yet is one range read. Of a
value known in part only the summary (header, sessions, checkpoints) and the missing runs are
read: on a remote bee that is what has to be fetched. Often nothing is missing then: the last
transactions of a session are in its summary (`tails.py`).

A large value is read in many parts, and has as many checkpoints. They are not read anew for each
part: beyond the first few only those that the part needs are looked up. The first part from a
remote bee brings them all, since to look them up there would take a round trip for each part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from bee.bee import Snapshot
from node.covalue.content import PIECE_BYTES, Content
from node.covalue.dependencies import value_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import (
    RowKey,
    RowKind,
    checkpoints_range,
    decode_key,
    row_order,
    run_key,
    session_runs_range,
    sessions_range,
    summary_range,
    value_range,
)
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.records import unframe_run
from node.covalue.store import LoadedPieces, StoredSession, StoredValue
from node.covalue.tails import NOTHING_YET, Stretch

Tree = Snapshot[bytes, bytes]
T = TypeVar("T")

FEW_CHECKPOINTS = 2
"""So many are read with the rows beside them; a value with more has 0.3 MB of changes."""


class PutTogether(Protocol):
    """Calls what makes something of the rows of so many sessions, and returns that."""

    async def __call__(self, work: Callable[[], T], sessions: int, /) -> T: ...


async def put_together_at_once(work: Callable[[], T], _: int) -> T:
    """Without a turn for others, as is right where there are few sessions."""
    return work()


async def read_covalue(
    tree: Tree, co_id: RawCoId, known: KnownState | None = None
) -> list[Content]:
    """The pieces beyond `known`, ready for the engine; none when the value is not there.

    Sessions come sorted by id. What is read has the right shape and may still be forged.

    Raises: DecodeError for malformed rows; what the bee raises.
    Cancel: nothing is changed.
    """
    return list((await read_pieces(tree, co_id, known or NOTHING, None)).pieces)


async def read_value(
    tree: Tree,
    co_id: RawCoId,
    *,
    is_tombstone: bool = False,
    put_together: PutTogether = put_together_at_once,
) -> StoredValue | None:
    """Header, sessions and dependencies; the transactions are read for groups only.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, NOTHING, is_tombstone=is_tombstone)
    start, stop = sessions_range(co_id)
    async for entry in tree.range(gte=start, lt=stop):
        reader.receive(entry.key, entry.value or b"")
    header = reader.header
    if header is None:
        return None
    pieces = await read_covalue(tree, co_id) if header.is_group else []
    describe = partial(_describe, co_id, header, reader.sessions, pieces, is_tombstone)
    return await put_together(describe, len(reader.sessions))


async def read_pieces(
    tree: Tree,
    co_id: RawCoId,
    known: KnownState,
    max_bytes: int | None,
    *,
    is_tombstone: bool = False,
    is_ours: bool = False,
    put_together: PutTogether = put_together_at_once,
) -> LoadedPieces:
    """As `CoValueStore.load`; `is_ours` says that the bee is not a remote one.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, known, max_bytes=max_bytes, is_tombstone=is_tombstone)
    if not known.sessions and not is_tombstone:
        last = await _read_rows(tree, reader, value_range(co_id), are_few_enough=is_ours)
        if last is not None:
            await _read_lacking(tree, reader, co_id, max_bytes, last, put_together)
    else:
        last = await _read_rows(tree, reader, summary_range(co_id), are_few_enough=True)
        if reader.is_complete:
            return LoadedPieces()
        await _read_lacking(tree, reader, co_id, max_bytes, last, put_together)
    finish = partial(_finish, reader, co_id, is_tombstone, with_value=known == NOTHING)
    return await put_together(finish, len(reader.sessions))


def _finish(
    reader: ValueReader, co_id: RawCoId, is_tombstone: bool, *, with_value: bool
) -> LoadedPieces:
    """Raises: DecodeError."""
    pieces, is_all = reader.finish()
    value: StoredValue | None = None
    if with_value and is_all and reader.header is not None:
        value = _describe(co_id, reader.header, reader.sessions, pieces, is_tombstone)
    return LoadedPieces(pieces, is_all, value)


async def read_last_run(tree: Tree, co_id: RawCoId, session_id: CoSessionId) -> Stretch:
    """The last run of a session; an empty one when it has none.

    Raises, Cancel: as `read_covalue`.
    """
    start, stop = session_runs_range(co_id, session_id)
    run = await tree.peek(gte=start, lt=stop, reverse=True)
    if run is None:
        return NOTHING_YET
    return Stretch(decode_key(run.key).index, *unframe_run(run.value or b""))


def _describe(
    co_id: RawCoId,
    header: CoValueHeader,
    sessions: Mapping[CoSessionId, StoredSession],
    pieces: Sequence[Content],
    is_tombstone: bool,
) -> StoredValue:
    """The value without its transactions; `pieces` are all of it when it is a group."""
    transactions = (
        transaction
        for piece in pieces
        for part in piece.new.values()
        for transaction in part.transactions
    )
    dependencies = value_dependencies(co_id, header, sessions, transactions)
    return StoredValue(header, sessions, dependencies, is_tombstone)


async def _read_rows(
    tree: Tree, reader: ValueReader, bounds: tuple[bytes, bytes], *, are_few_enough: bool
) -> RowKey | None:
    """Feed the rows to the reader, until it has enough.

    Returns the last of the first few checkpoints, if they are enough, where there may be more.
    """
    start, stop = bounds
    checkpoints = 0
    async for entry in tree.range(gte=start, lt=stop):
        row = reader.receive(entry.key, entry.value or b"")
        if reader.is_full:
            break
        if are_few_enough and row.kind is RowKind.CHECKPOINT:
            checkpoints += 1
            if checkpoints == FEW_CHECKPOINTS:
                return row
    return None


async def _read_lacking(
    tree: Tree,
    reader: ValueReader,
    co_id: RawCoId,
    max_bytes: int | None,
    last: RowKey | None,
    put_together: PutTogether,
) -> None:
    """Feed what is lacking to the reader, until it has enough.

    Checkpoints were read up to `last`, or all of them.
    """
    at_once = None if max_bytes is None else max_bytes // PIECE_BYTES + 2
    plan = partial(_plan, reader, has_later_checkpoints=last is not None)
    for session_id, count, has_runs, has_checkpoints in await put_together(
        plan, len(reader.sessions)
    ):
        checkpoints = _LaterCheckpoints(tree, reader, co_id, session_id, at_once)
        if last is not None and has_checkpoints:
            await checkpoints.begin(last, count)
        if has_runs:
            await _read_runs(tree, reader, (co_id, session_id, count), checkpoints)
            if reader.is_full:
                return
        await checkpoints.read_all()


def _plan(
    reader: ValueReader, *, has_later_checkpoints: bool
) -> list[tuple[CoSessionId, int, bool, bool]]:
    """Sessions to read more of, from which count on: runs, checkpoints, or both of them."""
    with_runs = reader.wanted_runs
    return [
        (session_id, count, session_id in with_runs, has_checkpoints)
        for session_id, count in reader.lacking.items()
        if (has_checkpoints := has_later_checkpoints and reader.may_lack_checkpoints(session_id))
        or session_id in with_runs
    ]


async def _read_runs(
    tree: Tree,
    reader: ValueReader,
    first: tuple[RawCoId, CoSessionId, int],
    checkpoints: _LaterCheckpoints,
) -> None:
    """Feed the runs from the one that holds this transaction to the reader, until it has enough."""
    co_id, session_id, count = first
    start, stop = session_runs_range(co_id, session_id)
    if count:
        run = await tree.peek(gte=start, lte=run_key(*first), reverse=True)
        if run is not None:
            reader.receive(run.key, run.value or b"")
            if reader.is_full:
                return
            start = run.key + b"\0"
    async for entry in tree.range(gte=start, lt=stop):
        await checkpoints.read_up_to(decode_key(entry.key).index)
        reader.receive(entry.key, entry.value or b"")
        if reader.is_full:
            return


class _LaterCheckpoints:
    """Those of a session that were not read with its row: fed to the reader before their runs."""

    def __init__(
        self,
        tree: Tree,
        reader: ValueReader,
        co_id: RawCoId,
        session_id: CoSessionId,
        at_once: int | None,
    ) -> None:
        self._tree = tree
        self._reader = reader
        self._co_id = co_id
        self._session_id = session_id
        self._at_once = at_once
        self._next = 0
        """Of those that cover earlier transactions only, all were read."""
        self._is_over = True

    async def begin(self, last: RowKey, count: int) -> None:
        """Read some that cover transactions from `count` on; those up to `last` were read."""
        if row_order(self._session_id) >= row_order(last.session_id):
            is_begun = self._session_id == last.session_id
            self._next = max(count, last.index + 1) if is_begun else count
            await self._read_more()

    async def read_up_to(self, index: int) -> None:
        """Have one that covers this transaction, if there is any."""
        while self._next <= index and not self._is_over:
            await self._read_more()

    async def read_all(self) -> None:
        while not self._is_over:
            await self._read_more()

    async def _read_more(self) -> None:
        start, stop = checkpoints_range(self._co_id, self._session_id, self._next)
        count = 0
        async for entry in self._tree.range(gte=start, lt=stop, limit=self._at_once):
            row = self._reader.receive(entry.key, entry.value or b"")
            self._next = row.index + 1
            count += 1
        self._is_over = self._at_once is None or count < self._at_once
