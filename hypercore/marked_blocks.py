"""A set of blocks, in the space that its edges take.

A log that was downloaded in part may claim 2**45 blocks: to keep all of it takes one range, and
neither memory nor the disk has room for a bit of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from hypercore.bitfield import PAGE_BITS, PAGE_BYTES, Bitfield
from hypercore.block_sets import blocks_from

_LONG_BLOCKS = 16 * PAGE_BITS
"""A range of at least so many is kept as one run, but for its edges."""


class MarkedBlocks:
    """Bits, and runs of pages all of whose bits are set."""

    def __init__(self) -> None:
        self.bits = Bitfield()
        """Single blocks and short ranges; the runs need no bits here."""
        self.runs: list[tuple[int, int]] = []
        """Pages [first, stop), in order and never touching."""

    def add_range(self, start: int, stop: int) -> None:
        if stop - start < _LONG_BLOCKS:
            self.bits.set_range(start, stop)
            return
        first, last = -(-start // PAGE_BITS), stop // PAGE_BITS
        self.bits.set_range(start, first * PAGE_BITS)
        self.bits.set_range(last * PAGE_BITS, stop)
        self.add_pages(first, last)

    def add_pages(self, first: int, stop: int) -> None:
        """Add all blocks of these pages."""
        touching = [run for run in self.runs if run[0] <= stop and first <= run[1]]
        for run in touching:
            self.runs.remove(run)
            first, stop = min(first, run[0]), max(stop, run[1])
        self.runs.insert(bisect_right(self.runs, (first, stop)), (first, stop))

    def get(self, index: int) -> bool:
        return self.bits.get(index) or self._is_whole(index // PAGE_BITS)

    def up_to(self, length: int) -> Iterator[int]:
        """The blocks below `length`, in order."""
        single = [(page, page + 1) for page in self.bits.pages() if not self._is_whole(page)]
        for first, stop in sorted(self.runs + single):
            blocks = range(first * PAGE_BITS, min(stop * PAGE_BITS, length))
            if self._is_whole(first):
                yield from blocks
            else:
                yield from blocks_from(self.bits.held(blocks.start, blocks.stop))

    def pages(self, held: Bitfield) -> Iterator[tuple[int, bytes]]:
        """The pages that have a bit; of the runs, the pages of which a block is held."""
        for page in sorted({*self.bits.pages(), *filter(self._is_whole, held.pages())}):
            is_whole = self._is_whole(page)
            yield page, b"\xff" * PAGE_BYTES if is_whole else self.bits.page_bytes(page)

    def missing(self, held: Bitfield, start: int, stop: int, limit: int) -> list[int]:
        """At most `limit` blocks of [start, stop) that are held and not in the set, in order."""
        blocks: list[int] = []
        for page in held.pages_within(start, stop):
            if not self._is_whole(page):
                first = max(page * PAGE_BITS, start)
                end = min((page + 1) * PAGE_BITS, stop)
                blocks += self.bits.missing(held, first, end, limit - len(blocks))
                if len(blocks) == limit:
                    break
        return blocks

    def _is_whole(self, page: int) -> bool:
        place = bisect_right(self.runs, page, key=lambda run: run[0])
        return place > 0 and page < self.runs[place - 1][1]
