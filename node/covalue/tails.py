"""The end of a session, while it is being written: it lies in the session's own row.

A live edit is one transaction. With a row of its own it would cost each reader of the value one
block, and the writer two: the session's row changes with every edit anyway. So that row
carries the last transactions, the *tail*, up to TAIL_BYTES. What grows beyond becomes a run, or
joins the run before it while both together stay below RUN_BYTES: an edit is written three times
over, and read as one of many. A reader takes a session's runs, and then its tail.

| a session of          | is                                              |
|-----------------------|-------------------------------------------------|
| one upload of 2 KiB   | its row                                         |
| one upload of 250 KiB | its row and three runs                          |
| 1,000 edits of 200 B  | its row and about 110 runs, instead of 1,000    |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from node.covalue.content import PIECE_BYTES, Transaction
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.records import encode_run, frame_run, pack_transactions, unframe_run

TAIL_BYTES = 512
"""Of a session that has runs: half of it, on average, is written again with each edit."""

RUN_BYTES = 2 * 1024
"""A run grows by edits up to this; and a session may have this before it gets its first run."""

CACHED_BYTES = 8 * 1024 * 1024
"""Ends of the sessions written last: those of others are read before they are written."""

_CACHED_END_BYTES = 800
"""What Python needs beside the transactions, ids included."""


class Stretch(NamedTuple):
    """The transactions [start, start + length) of a session, packed."""

    start: int = 0
    length: int = 0
    packed: bytes = b""

    @property
    def stop(self) -> int:
        return self.start + self.length

    @property
    def record(self) -> bytes:
        """As a run; nothing if it is empty."""
        return frame_run(self.length, self.packed) if self.length else b""

    def joined(self, following: Stretch) -> Stretch:
        return Stretch(self.start, self.length + following.length, self.packed + following.packed)


NOTHING_YET = Stretch()


class SessionEnd(NamedTuple):
    """The last run of a session, None if it is not known, and the tail behind it.

    Of a run that is too long to take anything in only the place is kept.
    """

    run: Stretch | None = NOTHING_YET
    tail: Stretch = NOTHING_YET


def pack_stretches(start: int, transactions: Sequence[Transaction]) -> list[Stretch]:
    """Transactions from `start` on, in stretches of at most PIECE_BYTES, or of one that is larger.

    At least one stretch.
    """
    run = encode_run(transactions)
    if len(run) <= PIECE_BYTES:
        return [Stretch(start, *unframe_run(run))]
    stretches: list[Stretch] = []
    parts: list[bytes] = []
    size = 0
    for part in pack_transactions(transactions):
        if parts and size + len(part) > PIECE_BYTES:
            stretches.append(Stretch(start, len(parts), b"".join(parts)))
            start, parts, size = stretches[-1].stop, [], 0
        parts.append(part)
        size += len(part)
    stretches.append(Stretch(start, len(parts), b"".join(parts)))
    return stretches


def fits_row(tail: Stretch) -> bool:
    """Whether it can stay in the session's row."""
    return len(tail.packed) <= (TAIL_BYTES if tail.start else RUN_BYTES)


def may_join(stretch: Stretch) -> bool:
    """Whether it is short enough for a neighbor to join it."""
    return 0 < len(stretch.packed) < RUN_BYTES


def join_run(before: Stretch, stretch: Stretch) -> Stretch:
    """A run of `stretch`, which `before`, the last run there is, takes in if it has room."""
    has_room = len(before.packed) + len(stretch.packed) <= RUN_BYTES
    if has_room and before.length and before.stop == stretch.start:
        return before.joined(stretch)
    return stretch


class EndCache:
    """The ends of the sessions that were written last, as they are stored."""

    def __init__(self, max_bytes: int = CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._ends: OrderedDict[tuple[RawCoId, CoSessionId], tuple[SessionEnd, int]] = OrderedDict()
        """Each with its size."""

    def take(self, co_id: RawCoId, session_id: CoSessionId) -> SessionEnd | None:
        """The end, which is no longer in here until `keep`: it is about to change."""
        kept = self._ends.pop((co_id, session_id), None)
        if kept is None:
            return None
        end, size = kept
        self._used_bytes -= size
        return end

    def keep(self, co_id: RawCoId, session_id: CoSessionId, end: SessionEnd) -> None:
        """The end was stored."""
        self.take(co_id, session_id)
        run = end.run
        size = _CACHED_END_BYTES + len(end.tail.packed)
        if run is not None:
            if may_join(run):
                size += len(run.packed)
            else:
                end = SessionEnd(Stretch(run.start), end.tail)
        self._ends[co_id, session_id] = end, size
        self._used_bytes += size
        while self._used_bytes > self._max_bytes:
            _, (_, oldest) = self._ends.popitem(last=False)
            self._used_bytes -= oldest
