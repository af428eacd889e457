"""The end of a session, while it is being written: it lies in the session's own row.

A live edit is one transaction. With a row of its own it would cost whoever reads the value a
block, and two blocks to write: the session's row changes with every edit anyway. So that row
carries the last transactions, the *tail*, up to TAIL_BYTES. What grows beyond becomes a run, or
joins the run before it while both together stay below RUN_BYTES: an edit is written three times
over, and read as one of many. Who reads takes a session's runs, and then its tail.

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

TAIL_BYTES = 512
"""Of a session that has runs: half of it, on average, is written again with each edit."""

RUN_BYTES = 2 * 1024
"""To this a run grows by edits; and this a session may have before it gets its first run."""

CACHED_BYTES = 4 * 1024 * 1024
"""Ends of the sessions written last: those of others are read before they are written."""

_TRANSACTION_BYTES = 64
_CACHED_TRANSACTION_BYTES = 384
_CACHED_END_BYTES = 768
"""What Python needs beside the texts, at most."""


class Stretch(NamedTuple):
    """The transactions [start, start + len(transactions)) of a session."""

    start: int = 0
    transactions: Sequence[Transaction] = ()

    @property
    def stop(self) -> int:
        return self.start + len(self.transactions)


NOTHING_YET = Stretch()


class SessionEnd(NamedTuple):
    """The last run of a session, None if it is not known, and the tail behind it."""

    run: Stretch | None = NOTHING_YET
    tail: Stretch = NOTHING_YET


def stored_bytes(transactions: Sequence[Transaction]) -> int:
    """About how much they take."""
    return sum(
        [len(item.changes) + len(item.meta or "") + _TRANSACTION_BYTES for item in transactions]
    )


def grow(tail: Stretch, transactions: Sequence[Transaction]) -> Stretch:
    """The tail, and what is appended to it."""
    return Stretch(tail.start, [*tail.transactions, *transactions])


def fits_row(grown: Stretch) -> bool:
    """Whether it can stay in the session's row."""
    return stored_bytes(grown.transactions) <= (TAIL_BYTES if grown.start else RUN_BYTES)


def may_join(stretch: Stretch) -> bool:
    """Whether it is small enough for its neighbor."""
    return stored_bytes(stretch.transactions) < RUN_BYTES


def make_runs(before: Stretch, grown: Stretch) -> list[Stretch]:
    """Runs of what does not fit into the row; the last run there is, `before`, may be among them.

    They are of at most PIECE_BYTES, or of one transaction that is larger.
    """
    if before.transactions and before.stop == grown.start:
        joined = grow(before, grown.transactions)
        if stored_bytes(joined.transactions) <= RUN_BYTES:
            return [joined]
    runs: list[Stretch] = []
    run: list[Transaction] = []
    index, room = grown.start, 0
    for transaction in grown.transactions:
        size = stored_bytes([transaction])
        if size > room:
            run = []
            runs.append(Stretch(index, run))
            room = PIECE_BYTES
        run.append(transaction)
        index += 1
        room -= size
    return runs


class EndCache:
    """The ends of the sessions that were written last, as they are stored."""

    def __init__(self, max_bytes: int = CACHED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._ends: OrderedDict[tuple[RawCoId, CoSessionId], tuple[SessionEnd, int]] = OrderedDict()

    def take(self, co_id: RawCoId, session_id: CoSessionId) -> SessionEnd | None:
        """The end, which is not in here any more until `keep`: it is about to change."""
        end, size = self._ends.pop((co_id, session_id), (None, 0))
        self._used_bytes -= size
        return end

    def keep(self, co_id: RawCoId, session_id: CoSessionId, end: SessionEnd) -> None:
        """It was stored."""
        self.take(co_id, session_id)
        size = _CACHED_END_BYTES
        for stretch in end:
            if stretch is not None:
                size += stored_bytes(stretch.transactions)
                size += len(stretch.transactions) * _CACHED_TRANSACTION_BYTES
        self._ends[co_id, session_id] = end, size
        self._used_bytes += size
        while self._used_bytes > self._max_bytes:
            _, (_, size) = self._ends.popitem(last=False)
            self._used_bytes -= size
