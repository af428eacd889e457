"""The rows that one commit adds to a session: see `tails.py`."""

from __future__ import annotations

from node.covalue.gathering import SessionRows
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.keys import checkpoint_key, run_key, session_key
from node.covalue.records import encode_checkpoint, encode_session
from node.covalue.tails import (
    NOTHING_YET,
    SessionEnd,
    Stretch,
    fits_row,
    join_run,
    may_join,
    pack_stretches,
)

Records = list[tuple[bytes, bytes | None]]
"""Keys with their values, in the order in which they are put."""


def extend(
    co_id: RawCoId, session_id: CoSessionId, rows: SessionRows, end: SessionEnd, records: Records
) -> SessionEnd | None:
    """Add the records of a session that has ended with `end`; returns how it ends then.

    None, and nothing is added, when `end` says too little: its tail is that of another time, or
    it lacks the last run and that has to grow.
    """
    run, tail = end
    if tail.stop != rows.after:
        return None
    first, *others = pack_stretches(rows.after, rows.transactions)
    tail = tail.joined(first)
    if others or not fits_row(tail):
        if run is None and may_join(tail):
            return None
        run = join_run(run or NOTHING_YET, tail)
        for made in (run, *others):
            records.append((run_key(co_id, session_id, made.start), made.record))
            run = made
        tail = Stretch(rows.count)
    for index, signature in rows.checkpoints:
        records.append((checkpoint_key(co_id, session_id, index), encode_checkpoint(signature)))
    last = rows.last
    record = encode_session(rows.count, last.signature, last.bytes_since_checkpoint, tail.record)
    records.append((session_key(co_id, session_id), record))
    return SessionEnd(run, tail)
