"""What of a content message continues what is stored: the rest is stale, or has a gap before it.

    stored       0 1 2 3 4
    stale            2 3            nothing new: the stored signature is the later one, it stays
    overlapping      2 3 4 5 6      5 and 6 are new, with the signature of the message
    gap                      . 7    6 is missing: nothing of the session is taken

Replacing a signature by an older one of stale content would make the session worthless: its
transactions could be proved by nobody any more.

Source: cojson 0.20.19 storage/storageAsync.ts storeSingle, putNewTxs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from node.covalue.content import PIECE_BYTES, Content, SessionContent
from node.covalue.ids import CoSessionId, is_delete_session
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.store import SessionAppend, StoredSession, StoredValue, ValueAppend


@dataclass(frozen=True, slots=True)
class Continuation:
    """What to store of a message, and how things stand when that is done."""

    append: ValueAppend | None
    """None when the message brings nothing new that fits."""
    known: KnownState
    """What is stored then; of a tombstone, its delete sessions."""
    is_tombstone: bool = False
    has_gap: bool = False
    """Something before the message's content is missing: ask for what is beyond `known`."""


def continue_value(
    stored: StoredValue | None,
    content: Content,
    *,
    is_deletion_valid: bool = False,
    piece_bytes: int = PIECE_BYTES,
) -> Continuation:
    """Fit a message to what is stored of its value.

    With `is_deletion_valid` a delete session in the message makes the value a tombstone. What a
    message brings for other sessions of a tombstone is dropped without a word. A session gets a
    checkpoint when more than `piece_bytes` have come since the last one.
    """
    header = content.header if stored is None else None
    if stored is None and header is None:
        return Continuation(None, NOTHING, has_gap=True)
    was_tombstone = stored is not None and stored.is_deleted
    rows = {} if stored is None else stored.sessions
    appends: dict[CoSessionId, SessionAppend] = {}
    counts = {session_id: row.count for session_id, row in rows.items()}
    has_gap = False
    for session_id, part in content.new.items():
        if was_tombstone and not is_delete_session(session_id):
            continue
        row = rows.get(session_id)
        if part.after > (0 if row is None else row.count):
            has_gap = True
            continue
        append = _continue_session(row, part, piece_bytes)
        if append is not None:
            appends[session_id] = append
            counts[session_id] = part.stop
    is_deletion = is_deletion_valid and not was_tombstone and _has_delete_session(content.new)
    is_tombstone = was_tombstone or is_deletion
    if is_tombstone:
        counts = {key: count for key, count in counts.items() if is_delete_session(key)}
    append_value = None
    if header is not None or appends or is_deletion:
        append_value = ValueAppend(content.co_id, header, appends, is_deletion)
    return Continuation(append_value, KnownState(True, counts), is_tombstone, has_gap)


def _continue_session(
    row: StoredSession | None, part: SessionContent, piece_bytes: int
) -> SessionAppend | None:
    count, since_checkpoint = (0, 0) if row is None else (row.count, row.bytes_since_checkpoint)
    fresh = part.transactions[count - part.after :]
    if not fresh:
        return None
    size = since_checkpoint + sum([len(transaction.changes) for transaction in fresh])
    is_checkpoint = size > piece_bytes
    return SessionAppend(
        count, fresh, part.signature, 0 if is_checkpoint else size, is_checkpoint=is_checkpoint
    )


def _has_delete_session(new: Mapping[CoSessionId, SessionContent]) -> bool:
    return any(map(is_delete_session, new))
