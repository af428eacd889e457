"""The first blocks of a log as they are now, readable even after the log was cut.

While the log only grows there is nothing to keep: what a view of length n sees are the log's
own rows. Just before a truncation below n the storage takes a snapshot, and from then on the
blocks that are cut off are read from there. What was not stored at that moment is lost, and so
is what was cleared before: clearing frees the room, whoever reads. When the log is cut again,
further down, the same snapshot serves, unless blocks have come since that it does not have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.encoding import Reader
from hypercore.log import Head
from hypercore.merkle import MerkleNode, decode_node
from hypercore.storage import StorageSnapshot
from hypercore.stored_log import StoredLog


@dataclass(slots=True)
class _Cut:
    """Where blocks that were cut off are read: from `start` on, up to an earlier cut."""

    start: int
    rows: StorageSnapshot


class PinnedHistory:
    """The blocks of `head`, as they were when this was made."""

    def __init__(self, log: StoredLog, head: Head) -> None:
        self._log = log
        self._keys = log.rows.keys
        self._cuts: list[_Cut] = []  # the first one is the highest
        self._held = Bitfield()  # what was here at the cut; below the last one, what its rows have
        self.head = head
        self.intact_length = head.length
        """Blocks below this are those of the log as it is now."""

    @property
    def bitfield(self) -> Bitfield:
        """The blocks that are here; once the log was cut, those that were here at that time."""
        is_intact = self.intact_length == self.head.length
        return self._log.bitfield if is_intact else self._held

    def truncating(self, length: int) -> None:
        """The log is about to be cut to `length` blocks. Raises: StorageError."""
        stop = self.intact_length
        if stop <= length:
            return
        held = self._log.bitfield
        if self._cuts and self._held.first_missing(held, length, stop) is None:
            self._cuts[-1].start = length
            self._held.copy_range(held, length, stop)
        else:
            self._cuts.append(_Cut(length, self._log.rows.storage.snapshot()))
            self._held.copy_range(held, 0, stop)
        self.intact_length = length

    def replaced(self, length: int) -> None:
        """Another process had the files, and cut the log to `length` blocks: the rest is lost."""
        stop = self.intact_length
        if length < stop:
            self.intact_length = length
            self._held.set_range(length, stop, False)

    def recovered(self) -> None:
        """The storage was opened anew: it may have kept nothing of what was cut off before."""
        intact = self.intact_length
        if self._cuts and self._cuts[-1].rows.is_lost:
            self._cuts.clear()
            self._held.set_range(intact, self.head.length, False)
        if not self._cuts and intact < self.head.length:
            self._held.copy_range(self._log.bitfield, 0, intact)

    def has(self, index: int) -> bool:
        held = self._log.bitfield if index < self.intact_length else self._held
        return 0 <= index < self.head.length and held.get(index)

    def has_range(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop), which is not empty, is here."""
        intact = self.intact_length
        return (
            start >= 0
            and stop <= self.head.length
            and self._log.bitfield.has_range(start, min(stop, intact))
            and self._held.has_range(max(start, intact), stop)
        )

    def first_missing(self, start: int) -> int:
        """The first block from `start` on that is not here; at or beyond the end if all are."""
        missing = self._log.bitfield.first_unset(start)
        if missing < self.intact_length:
            return missing
        return self._held.first_unset(max(start, self.intact_length))

    def read_lost_block(self, index: int) -> bytes | None:
        """A block that was cut off, as it was stored; None when it was not stored."""
        rows = self._lost_rows(index) if self._held.get(index) else None
        return None if rows is None else rows.get(self._keys.block(index))

    def _lost_rows(self, index: int) -> StorageSnapshot | None:
        """The rows that kept a block that was cut off."""
        return next((cut.rows for cut in self._cuts if cut.start <= index), None)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """(index, block as stored) of those in [start, stop) that are here, in order."""
        for index, block in self._log.rows.blocks(start, min(stop, self.intact_length)):
            if index >= self.intact_length:  # cut meanwhile
                break
            yield index, block
            start = index + 1
        for index in range(max(start, self.intact_length), stop):
            lost = self.read_lost_block(index)
            if lost is None:
                break  # the reader asks for this one alone, and is told that it is gone
            yield index, lost

    def read_node(self, index: int) -> MerkleNode | None:
        """A tree node of the pinned blocks."""
        last = flat_tree.right_span(index) // 2
        if last < self.intact_length:
            return self._log.read_node(index)
        rows = self._lost_rows(last)
        data = None if rows is None else rows.get(self._keys.node(index))
        return None if data is None else decode_node(Reader(data))

    def close(self) -> None:
        """Let the storage's snapshots go."""
        while self._cuts:
            self._cuts.pop().rows.close()
            self.intact_length = 0
