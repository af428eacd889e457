"""Reading one coValue from a bee: ours, or the data bee of another node.

All rows of a value lie side by side, so a value that nobody knows yet is one range read. Of a
value known in part only the summary (header, sessions, checkpoints) and the missing runs are
read: on a remote bee that is what has to be fetched.
"""

from __future__ import annotations

from bee.bee import Snapshot
from node.covalue.content import Content
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    session_dependencies,
)
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import run_key, session_runs_range, summary_range, value_range
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.pieces import ValueReader
from node.covalue.store import LoadedPieces, StoredValue

Tree = Snapshot[bytes, bytes]


async def read_covalue(
    tree: Tree, co_id: RawCoId, known: KnownState | None = None
) -> list[Content]:
    """The pieces beyond `known`, ready for the engine; none when the value is not there.

    Sessions come sorted by id. What is read has the right shape and may still be forged.

    Raises: DecodeError for rows that are none; what the bee raises.
    Cancel: nothing is changed.
    """
    return list((await read_pieces(tree, co_id, known or NOTHING, None)).pieces)


async def read_known_state(tree: Tree, co_id: RawCoId) -> KnownState | None:
    """What the bee says it holds; None when the value is not there.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, NOTHING)
    await _read_range(tree, reader, summary_range(co_id), None)
    if reader.header is None:
        return None
    return KnownState(True, {key: item.count for key, item in reader.sessions.items()})


async def read_value(tree: Tree, co_id: RawCoId) -> StoredValue | None:
    """Header, sessions and dependencies; the transactions are read for groups only.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, NOTHING)
    await _read_range(tree, reader, summary_range(co_id), None)
    header = reader.header
    if header is None:
        return None
    dependencies = {*header_dependencies(header), *session_dependencies(reader.sessions)}
    if header.is_group:
        for piece in await read_covalue(tree, co_id):
            for part in piece.new.values():
                dependencies.update(member_dependencies(part.transactions))
    dependencies.discard(co_id)
    return StoredValue(header, reader.sessions, frozenset(dependencies))


async def read_pieces(
    tree: Tree, co_id: RawCoId, known: KnownState, max_bytes: int | None
) -> LoadedPieces:
    """As `CoValueStore.load`.

    Raises, Cancel: as `read_covalue`.
    """
    reader = ValueReader(co_id, known)
    is_cut = False
    if not known.sessions:
        is_cut = await _read_range(tree, reader, value_range(co_id), max_bytes)
    else:
        await _read_range(tree, reader, summary_range(co_id), None)
        if reader.is_complete:
            return LoadedPieces()
        for session_id, count in reader.lacking.items():
            bounds = await _runs_from(tree, co_id, session_id, count)
            is_cut = await _read_range(tree, reader, bounds, max_bytes)
            if is_cut:
                break
    return LoadedPieces(reader.finish(is_cut=is_cut), not is_cut)


async def _runs_from(
    tree: Tree, co_id: RawCoId, session_id: CoSessionId, count: int
) -> tuple[bytes, bytes]:
    """Where the run begins that holds transaction `count`, and where the session's runs stop."""
    start, stop = session_runs_range(co_id, session_id)
    if count == 0:
        return start, stop
    run = await tree.peek(gte=start, lte=run_key(co_id, session_id, count), reverse=True)
    return (start if run is None else run.key), stop


async def _read_range(
    tree: Tree, reader: ValueReader, bounds: tuple[bytes, bytes], max_bytes: int | None
) -> bool:
    """Feed the rows to the reader; whether it was stopped at `max_bytes`."""
    start, stop = bounds
    async for entry in tree.range(gte=start, lt=stop):
        reader.receive(entry.key, entry.value or b"")
        if max_bytes is not None and reader.size >= max_bytes:
            return True
    return False
