"""[trio] Copying what one store has and another lacks: both hold what was verified.

Sessions only grow, and two stores of one node hold prefixes of the same ones; so the longer one is
right, and what is copied is what is beyond the shorter one's known state. A deletion is copied
before anything else, and hides on the other side what it hides here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState, SessionCounts
from node.covalue.store import (
    CoValueStore,
    LoadedPieces,
    SessionAppend,
    StoredValue,
    ValueAppend,
)
from node.errors import CorruptStore

NoteCopied = Callable[[Mapping[RawCoId, SessionCounts]], None]

COPY_BYTES = 1024 * 1024
"""Read and written at a time."""

_log = structlog.get_logger(__name__)


class ReadableStore(Protocol):
    """As much of a `CoValueStore` as can be copied from."""

    async def load(
        self, co_id: RawCoId, known: KnownState = NOTHING, max_bytes: int | None = None
    ) -> LoadedPieces: ...

    async def load_value(self, co_id: RawCoId) -> StoredValue | None: ...


@dataclass(slots=True)
class Reconciled:
    """What was found, and done about it."""

    values: int = 0
    copied: int = 0
    damaged: int = 0
    transactions: int = 0
    """Those that can be loaded from both, when nothing is damaged."""


async def reconcile(
    first: CoValueStore,
    second: CoValueStore,
    *,
    is_one_way: bool = False,
    note_copied: NoteCopied = lambda _: None,
) -> Reconciled:
    """Bring both to what they have together; a value that is damaged in one is left as it is.

    One way, the second gets what the first has, and the first is left alone. `note_copied` is told
    of each value of which the second has more now, and how much.

    Cancel: some values are copied, each in order and without a gap.
    """
    result = Reconciled()
    async for co_id in _merged_ids(first, second):
        result.values += 1
        await trio.lowlevel.checkpoint()  # so that a long walk can be cancelled
        try:
            is_news = await copy_value(co_id, first, second)
            is_copied = not is_one_way and await copy_value(co_id, second, first)
            value = await second.load_value(co_id)
        except CorruptStore as error:
            _log.error("cannot reconcile", co_id=co_id, error=str(error))
            result.damaged += 1
            continue
        result.copied += is_news or is_copied
        if value is not None:
            counts = value.known_state.sessions
            result.transactions += sum(counts.values())
            if is_news:
                note_copied({co_id: counts})
    return result


async def _merged_ids(first: CoValueStore, second: CoValueStore) -> AsyncIterator[RawCoId]:
    """Ids that either has, in order."""
    left, right = first.ids(), second.ids()
    one, other = await anext(left, None), await anext(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one < other):
            assert one is not None
            yield one
            one = await anext(left, None)
        elif one is None or other < one:
            yield other
            other = await anext(right, None)
        else:
            yield one
            one, other = await anext(left, None), await anext(right, None)


async def copy_value(co_id: RawCoId, source: ReadableStore, target: CoValueStore) -> bool:
    """Copy what the target lacks; returns whether that was anything.

    Raises: CorruptStore; what the target raises.
    Cancel: some of it may be copied, in order and without a gap.
    """
    value = await source.load_value(co_id)
    if value is None:
        return False
    held = await target.load_value(co_id)
    if held is not None and held.is_deleted and not value.is_deleted:
        return False
    is_deletion = value.is_deleted and (held is None or not held.is_deleted)
    known = NOTHING if held is None else held.known_state
    is_copied = False
    while True:
        loaded = await source.load(co_id, known, COPY_BYTES)
        appends = [_append(piece, value, is_deletion) for piece in loaded.pieces]
        if is_deletion and not is_copied and not appends:
            # Its delete sessions came earlier, when nobody had judged them.
            appends = [ValueAppend(co_id, None, {}, is_deletion=True)]
        if not appends:
            return is_copied
        await target.store(appends)
        is_copied = True
        for piece in loaded.pieces:
            known = known.merged(piece.known_state)
        if loaded.is_complete:
            return True


def _append(piece: Content, value: StoredValue, is_deletion: bool) -> ValueAppend:
    sessions = {}
    for session_id, part in piece.new.items():
        stored = value.sessions[session_id]
        is_last = part.stop == stored.count
        since = stored.bytes_since_checkpoint if is_last else 0
        # A piece ends where a signature was made, and only checkpoints are kept before the end.
        sessions[session_id] = SessionAppend(
            part.after, part.transactions, part.signature, since, since == 0
        )
    return ValueAppend(piece.co_id, piece.header, sessions, is_deletion)
