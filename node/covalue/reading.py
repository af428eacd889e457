"""Reading one coValue from a bee: ours, or the data bee of another node.

All rows of a value lie side by side, so a value that nobody knows yet is one range read. Of a
value known in part only the summary (header, sessions, checkpoints) and the missing runs are
read: on a remote bee that is what has to be fetched. Often nothing is missing then: the last
transactions of a session are in its summary (`tails.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bee.bee import Snapshot
from node.covalue.content import Content
from node.covalue.dependencies import value_dependencies
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import decode_key, run_key, session_runs_range, summary_range, value_range
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.records import unframe_run
from node.covalue.store import LoadedPieces, StoredSession, StoredValue
from node.covalue.tails import NOTHING_YET, Stretch

Tree = Snapshot[bytes, bytes]


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
    tree: Tree, co_id: RawCoId, *, is_tombstone: bool = False
) -> StoredValue | None:
    """Header, sessions and dependencies; the transactions are read for groups only.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, NOTHING, is_tombstone=is_tombstone)
    await _read_range(tree, reader, summary_range(co_id))
    header = reader.header
    if header is None:
        return None
    pieces = await read_covalue(tree, co_id) if header.is_group else []
    return _describe(co_id, header, reader.sessions, pieces, is_tombstone)


async def read_pieces(
    tree: Tree,
    co_id: RawCoId,
    known: KnownState,
    max_bytes: int | None,
    *,
    is_tombstone: bool = False,
) -> LoadedPieces:
    """As `CoValueStore.load`.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, known, max_bytes=max_bytes, is_tombstone=is_tombstone)
    if not known.sessions and not is_tombstone:
        await _read_range(tree, reader, value_range(co_id))
    else:
        await _read_range(tree, reader, summary_range(co_id))
        if reader.is_complete:
            return LoadedPieces()
        for session_id, count in reader.wanted_runs.items():
            await _read_range(tree, reader, await _runs_from(tree, co_id, session_id, count))
            if reader.is_full:
                break
    pieces, is_all = reader.finish()
    value: StoredValue | None = None
    if known == NOTHING and is_all and reader.header is not None:
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


async def _runs_from(
    tree: Tree, co_id: RawCoId, session_id: CoSessionId, count: int
) -> tuple[bytes, bytes]:
    """Where the run begins that holds transaction `count`, and where the session's runs stop."""
    start, stop = session_runs_range(co_id, session_id)
    if count == 0:
        return start, stop
    run = await tree.peek(gte=start, lte=run_key(co_id, session_id, count), reverse=True)
    return (start if run is None else run.key), stop


async def _read_range(tree: Tree, reader: ValueReader, bounds: tuple[bytes, bytes]) -> None:
    """Feed the rows to the reader, until it has enough."""
    start, stop = bounds
    async for entry in tree.range(gte=start, lt=stop):
        reader.receive(entry.key, entry.value or b"")
        if reader.is_full:
            return
