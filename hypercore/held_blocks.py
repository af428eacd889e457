"""Which blocks of one log are here, in memory and on the disk.

A bit for each block, and the hints that sum the bits up: how many blocks there are without a
gap, here and with the peers. Hints can always be derived from the rest, and are when the log is
opened.

What is staged is true in memory at once, before its batch is committed; if that fails, `reread`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from hypercore.bitfield import PAGE_BITS, Bitfield, pages_of
from hypercore.errors import StorageError
from hypercore.log import Changeset
from hypercore.merkle import MerkleNode
from hypercore.storage import RowSink, WriteBatch
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.layout import Hints


class HeldBlocks:
    """The bitfield and the hints of one log."""

    def __init__(self, rows: CoreStorage) -> None:
        self.bitfield = Bitfield()
        """Always the same object, whatever it is loaded from; for reading."""
        self.hints = Hints()
        self._rows = rows

    def load(self, bitfield: Bitfield, hints: Hints) -> None:
        """Begin anew with what is on the disk; the caller must not use `bitfield` afterward."""
        self.bitfield.become(bitfield)
        self.hints = hints

    def put_right(
        self, length: int, rebuilt: Sequence[MerkleNode], *, are_hints_lost: bool = False
    ) -> None:
        """Mend what contradicts the rest of a log of `length`: bits beyond its end, and hints.

        Stores `rebuilt`, too, the roots that had to be hashed anew. Raises: StorageFailed.
        """
        beyond = self._clear_bits_beyond(length)
        contiguous = min(self.bitfield.first_unset(0), length)
        is_right = contiguous == self.hints.contiguous_length and not are_hints_lost
        is_right = is_right and not rebuilt and not beyond
        self.hints = self.hints.moved(contiguous)
        storage = self._rows.storage
        if is_right or storage.is_read_only:
            return
        batch = storage.batch()
        self._rows.stage_nodes(batch, rebuilt)
        self._stage_pages(batch, beyond)
        self._rows.stage_hints(batch, self.hints)
        storage.commit(batch)

    def _clear_bits_beyond(self, length: int) -> list[int]:
        """Clear bits from the end on, which the next blocks would make true; returns the pages."""
        pages = self.bitfield.pages()
        if not pages or self.bitfield.first_set(length, (pages[-1] + 1) * PAGE_BITS) is None:
            return []
        beyond = [page for page in pages if (page + 1) * PAGE_BITS > length]
        for page in beyond:
            first = max(length, page * PAGE_BITS)
            self.bitfield.set_range(first, (page + 1) * PAGE_BITS, False)
        return beyond

    def reread(self, length: int) -> None:
        """Take back what was staged and is not on the disk, as far as that can be read."""
        with suppress(StorageError):
            self.bitfield.become(self._rows.load_bitfield())
            self.hints = self.hints.moved(min(self.bitfield.first_unset(0), length))

    def stage(self, batch: RowSink, changesets: Sequence[Changeset], length: int) -> None:
        """Note what each of these brings and takes; `length` is the log's before them."""
        touched: set[int] = set()
        hints = self.hints
        for changes in changesets:
            if changes.truncated_to is not None:
                # A log of others may claim any length, and hold next to nothing.
                touched.update(self.bitfield.pages_within(changes.truncated_to, length))
                hints = self._cut(changes.truncated_to, length, hints)
            touched.update(self._mark(changes.blocks))
            if staged := changes.staged:
                self.bitfield.set_range(staged.start, staged.stop)
                touched.update(pages_of(staged.start, staged.stop))
            if changes.head is not None:
                length = changes.head.length
        for page in touched:
            self._rows.stage_page(batch, self.bitfield, page)
        contiguous = hints.contiguous_length
        if contiguous < length and self.bitfield.get(contiguous):
            hints = hints.moved(min(self.bitfield.first_unset(contiguous), length))
        if hints is not self.hints:
            self._rows.stage_hints(batch, hints)
            self.hints = hints

    def _mark(self, blocks: Sequence[tuple[int, bytes]]) -> range | set[int]:
        """Set the bits of these blocks, which come in any order; returns the pages."""
        if not blocks:
            return range(0)
        indices = [index for index, _ in blocks]
        start, stop = indices[0], indices[0] + len(indices)
        if indices == list(range(start, stop)):
            self.bitfield.set_range(start, stop)
            return pages_of(start, stop)
        return self._mark_each(indices)

    def _mark_each(self, indices: Iterable[int]) -> set[int]:
        touched: set[int] = set()
        for index in indices:
            self.bitfield.set_range(index, index + 1)
            touched.add(index // PAGE_BITS)
        return touched

    def _cut(self, length: int, length_before: int, hints: Hints) -> Hints:
        self.bitfield.set_range(length, length_before, False)
        if length >= max(hints.contiguous_length, hints.remote_contiguous_length):
            return hints
        return replace(
            hints,
            contiguous_length=min(hints.contiguous_length, length),
            remote_contiguous_length=min(hints.remote_contiguous_length, length),
        )

    def stage_clearing(self, batch: WriteBatch, runs: Sequence[tuple[int, int]]) -> None:
        """Note that the blocks of these runs [start, stop) go."""
        touched: set[int] = set()
        for start, stop in runs:
            touched.update(self.bitfield.pages_within(start, stop))
            self.bitfield.set_range(start, stop, False)
        self._stage_pages(batch, touched)
        first = min((start for start, _ in runs), default=self.hints.contiguous_length)
        if first < self.hints.contiguous_length:
            self.hints = self.hints.moved(first)
            self._rows.stage_hints(batch, self.hints)

    def stage_restored(self, batch: WriteBatch, indices: Sequence[int], length: int) -> None:
        """Note blocks that are here without a mark; the log has `length`."""
        self._stage_pages(batch, self._mark_each(indices))
        self.stage(batch, (), length)

    def stage_recovered(self, batch: WriteBatch) -> None:
        """Note that nothing newer is known anywhere."""
        self.hints = replace(self.hints, recovering=0)
        self._rows.stage_hints(batch, self.hints)

    def note_remote_contiguous(self, remote: int, length: int) -> None:
        """Some peer has claimed blocks [0, remote) of a log that has `length` here.

        Written when it has reached `length`, so at most once for each length; any other value
        waits for the next commit that moves our own contiguous length. Raises: StorageFailed.
        """
        before = self.hints.remote_contiguous_length
        if remote <= before:
            return
        self.hints = replace(self.hints, remote_contiguous_length=remote)
        storage = self._rows.storage
        if before < length <= remote and not storage.is_read_only:
            batch = storage.batch()
            self._rows.stage_hints(batch, self.hints)
            storage.commit(batch)

    def _stage_pages(self, batch: WriteBatch, pages: Iterable[int]) -> None:
        for page in pages:
            self._rows.stage_page(batch, self.bitfield, page)
