"""What can be known of a value in a member's bee before its content is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from bee.bee import Snapshot
from node.covalue.content import PIECE_BYTES, Transaction
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import RowKind, decode_key, summary_range
from node.covalue.reading import read_last_run
from node.covalue.records import decode_header, decode_run, decode_session

MAX_DATED_SESSIONS = 64
"""Sessions whose last change is looked at, each of which may take a block."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What a member's rows say; only the header is checked, by the value's id.

    `size_bytes` is that of all transactions, within a checkpoint's distance of each session.
    `changed_unix_ms` is when the value was last changed, by its authors' clocks; None: not known.
    """

    header: CoValueHeader
    size_bytes: int
    changed_unix_ms: int | None


async def read_outline(
    tree: Snapshot[bytes, bytes], co_id: RawCoId, *, is_dated: bool
) -> Outline | None:
    """Header, and sizes by counting checkpoints; None when there is no value with that id.

    Raises: DecodeError for malformed rows; what the bee raises.
    Cancel: nothing is changed.
    """
    header: CoValueHeader | None = None
    size = 0
    tails: dict[CoSessionId, list[Transaction]] = {}
    start, stop = summary_range(co_id)
    async for entry in tree.range(gte=start, lt=stop):
        row = decode_key(entry.key)
        match row.kind:
            case RowKind.HEADER:
                header = decode_header(entry.value or b"")
            case RowKind.SESSION:
                session, tails[row.session_id] = decode_session(entry.value or b"")
                size += session.bytes_since_checkpoint
            case RowKind.CHECKPOINT:
                size += PIECE_BYTES
            case RowKind.RUN:
                break
    if header is None or not header.has_id(co_id):
        return None
    changed = await _last_change(tree, co_id, tails) if is_dated else None
    return Outline(header, size, changed)


async def _last_change(
    tree: Snapshot[bytes, bytes], co_id: RawCoId, tails: Mapping[CoSessionId, list[Transaction]]
) -> int | None:
    """When the last transaction of any session was made, by the ends of the sessions."""
    last: int | None = None
    for session_id, tail in islice(tails.items(), MAX_DATED_SESSIONS):
        end = tail
        if not end:
            run = await read_last_run(tree, co_id, session_id)
            end = decode_run(run.record) if run.length else []
        if end:
            last = max(last or 0, end[-1].made_at)
    return last
