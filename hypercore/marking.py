"""[trio] Mark and sweep: marking the blocks that are still needed, and giving up all others.

Marks are on the disk as JavaScript's are, a page of bits for 32,768 blocks, so that a sweep that
was interrupted goes on after the next start. They are written when marking has ended well, all of
them in one batch: half a set of marks would take needed blocks for garbage. With them go the
length and the fork of the log when marking began (user data `MARKED_ROW`): what was appended since
is not garbage, whenever it is swept. Marks that JavaScript made have no such row; then, as there,
everything below the present length that has no mark goes. Of long ranges only those pages are
written of which a block is here; the row says that the rest is marked, too.

Source: hypercore 11.37.1 lib/mark-bitfield.js; index.js (startMarking, markBlock, sweep).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from hypercore.bitfield import PAGE_BYTES
from hypercore.errors import CorruptStorage, OutOfRange, UsageError
from hypercore.marked_blocks import MarkedBlocks
from hypercore.open_log import OpenLog
from hypercore.replication.announcements import runs_of
from hypercore.storage.records import decode_record
from hypercore.stored_log import StoredLog

MARKED_ROW = "beemesh/marked"
"""User data beside the marks: "LENGTH FORK", and "FIRST STOP" of each run of marked pages."""

SWEPT_AT_ONCE = 1024
"""Blocks given up in one batch; between two batches others run."""


class MarkedCore(Protocol):
    """What reading with marks needs of a core."""

    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]: ...


class Marks:
    """Blocks to keep. Made by `Core.marking`; only the two reads wait."""

    def __init__(self, core: MarkedCore, log: StoredLog) -> None:
        self._core = core
        self._marked = MarkedBlocks()
        self._log = log
        self._is_over = False

    def add(self, index: int) -> None:
        """Keep this block. Raises: OutOfRange."""
        self.add_range(index, index + 1)

    def add_range(self, start: int, stop: int) -> None:
        """Keep blocks [start, stop). Raises: OutOfRange, UsageError when the marking is over."""
        if self._is_over:
            raise UsageError("the marking is over: begin anew")
        length = self._log.head.length
        if not 0 <= start <= stop <= length:
            raise OutOfRange(stop - 1 if start >= 0 else start, length)
        self._marked.add_range(start, stop)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and index >= 0 and self._marked.get(index)

    def __iter__(self) -> Iterator[int]:
        """The marked blocks, in order."""
        return self._marked.up_to(self._log.head.length)

    async def get(self, index: int) -> bytes:
        """Read a block and keep it. Raises and Cancel: as `Core.get`."""
        return (await self.get_many((index,)))[0]

    async def get_many(self, indices: Sequence[int]) -> list[bytes]:
        """Read blocks and keep them. Raises and Cancel: as `Core.get_many`."""
        blocks = await self._core.get_many(indices)
        for index in indices:
            self.add(index)
        return blocks

    def end(self) -> None:
        """Take no more."""
        self._is_over = True

    def save(self, length: int, fork: int) -> None:
        """Write the marks; a sweep may follow now or later. Raises: UsageError, StorageFailed.

        `length` and `fork` are those of the log when marking began.
        """
        log, marked = self._log, self._marked
        if log.head.fork != fork:
            raise UsageError(f"the log was truncated while its blocks were marked (fork {fork})")
        log.check_usable()
        batch = log.rows.storage.batch()
        batch.delete_range(*log.rows.keys.marks())
        # Page 0 even when nothing is marked: then the caller wants everything to go.
        for page, bits in {0: bytes(PAGE_BYTES), **dict(marked.pages(log.bitfield))}.items():
            batch.put(log.rows.keys.mark(page), bits)
        numbers = (length, fork, *chain.from_iterable(marked.runs))
        log.stage_user_data(batch, {MARKED_ROW: b" ".join(b"%d" % number for number in numbers)})
        log.sequence = log.rows.storage.commit(batch)


def drop_marks(log: StoredLog) -> None:
    """Remove what a marking wrote. Raises: StorageFailed."""
    log.check_usable()
    batch = log.rows.storage.batch()
    batch.delete_range(*log.rows.keys.marks())
    log.stage_user_data(batch, {MARKED_ROW: None})
    log.sequence = log.rows.storage.commit(batch)


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a finished marking leaves to be given up."""

    marked: MarkedBlocks
    length: int
    """Blocks at or beyond it stay."""
    fork: int

    def next_blocks(self, log: StoredLog, start: int = 0) -> list[int]:
        """At most `SWEPT_AT_ONCE` blocks from `start` on, here and unmarked; none at the end.

        Raises: UsageError when the log was truncated since it was marked.
        """
        if log.head.fork != self.fork:
            raise UsageError(
                f"the marks are for fork {self.fork}, the log is at fork {log.head.fork}: mark anew"
            )
        length = min(self.length, log.head.length)
        return self.marked.missing(log.bitfield, start, length, SWEPT_AT_ONCE)


def load_sweep(log: StoredLog) -> Sweep:
    """Raises: UsageError when no marking has ended since the last sweep, CorruptStorage."""
    keys = log.rows.keys
    marked = MarkedBlocks()
    is_marked = False
    for key, page in log.rows.storage.items(*keys.marks()):
        marked.bits.load_page(decode_record("marks", keys.mark_number, key), page)
        is_marked = True
    if not is_marked:
        raise UsageError("nothing was marked: without marks a sweep would give up every block")
    row = log.user_data(MARKED_ROW)
    if row is None:
        return Sweep(marked, log.head.length, log.head.fork)
    try:
        length, fork, *pages = map(int, row.split())
        for first, stop in zip(pages[::2], pages[1::2], strict=True):
            marked.add_pages(first, stop)
    except ValueError:
        raise CorruptStorage(
            f"user data {MARKED_ROW}", f"not two numbers, and pairs of pages: {row[:100]!r}"
        ) from None
    return Sweep(marked, length, fork)


@asynccontextmanager
async def mark(core: MarkedCore, shared: OpenLog) -> AsyncIterator[Marks]:
    """As `Core.marking`."""
    shared.check_open()
    if shared.is_marking:
        raise UsageError("the core's blocks are being marked already")
    shared.is_marking = True
    log = shared.log
    marks = Marks(core, log)
    try:
        drop_marks(log)
        length, fork = log.head.length, log.head.fork
        yield marks
        shared.check_open()
        marks.save(length, fork)
    finally:
        marks.end()
        shared.is_marking = False
    await shared.wait_durable()


async def sweep(shared: OpenLog) -> int:
    """As `Core.sweep`."""
    if shared.is_marking:
        raise UsageError("the core's blocks are still being marked")
    unmarked = load_sweep(shared.log)
    freed = start = 0
    while blocks := unmarked.next_blocks(shared.log, start):
        freed += shared.clear(runs_of(blocks))
        start = blocks[-1] + 1  # blocks that stay below it are not looked at again
        await shared.pause()
        shared.check_open()
    drop_marks(shared.log)
    await shared.wait_durable()
    return freed
