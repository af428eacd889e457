"""Blocks wanted of one priority: ranges of any length, and lists, written out a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pyroaring import BitMap64

from hypercore.bitfield import Bitfield

PIECE_BLOCKS = 65_536
"""How much of a range is written out at once."""

MAX_POOL_BLOCKS = 1 << 26
"""How many blocks of ranges may be written out and wait for a peer that has them: a log can be said
to be of any length, of which nobody has anything."""

RUN_BLOCKS = 16
"""How many blocks in a row a random order keeps together: their proofs share tree nodes."""

_MASK = (1 << 64) - 1


@dataclass(slots=True)
class _Range:
    wanted: range
    """As it was asked for."""

    start: int
    """All before it is held."""

    stop: int
    written: int
    """Blocks below this one are in the pool, or were."""


@dataclass(slots=True)
class _List:
    wanted: BitMap64
    """As it was asked for."""

    missing: BitMap64
    """Those of them that are not stored."""


class WantedBlocks:
    """What is wanted, and which of it nobody was asked for yet."""

    __slots__ = ("_lists", "_ranges", "pool")

    def __init__(self) -> None:
        self.pool = BitMap64()
        """Blocks to ask for; the caller takes them out."""

        self._ranges: list[_Range] = []
        self._lists: list[_List] = []

    def __bool__(self) -> bool:
        return bool(self._ranges or self._lists)

    def __contains__(self, index: int) -> bool:
        return any(wanted.start <= index < wanted.stop for wanted in self._ranges) or any(
            index in listed.missing for listed in self._lists
        )

    def add_range(self, wanted: range) -> None:
        """Costs the same whatever its length."""
        self._ranges.append(_Range(wanted, wanted.start, wanted.stop, wanted.start))

    def add_list(self, blocks: BitMap64, bitfield: Bitfield, asked: set[int]) -> None:
        """Want these; of those in `asked` somebody is asked already."""
        missing = BitMap64(block for block in blocks if not bitfield.get(block))
        if missing:
            self._lists.append(_List(blocks, missing))
            self.pool |= missing - BitMap64(asked)

    def remove_range(self, wanted: range) -> bool:
        """Take one back; False when it is not wanted any more."""
        for place, known in enumerate(self._ranges):
            if known.wanted == wanted:
                del self._ranges[place]
                break
        else:
            return False
        self.pool.remove_range(wanted.start, wanted.stop)
        for other in self._ranges:
            if other.start < wanted.stop and wanted.start < other.stop:
                other.written = min(other.written, max(other.start, wanted.start))
        for listed in self._lists:
            self.pool |= BitMap64(block for block in listed.missing if block in wanted)
        return True

    def remove_list(self, blocks: BitMap64) -> bool:
        """Take one back; False when it is not wanted any more."""
        for place, listed in enumerate(self._lists):
            if listed.wanted == blocks:
                del self._lists[place]
                break
        else:
            return False
        self.pool -= BitMap64(block for block in self.pool & blocks if block not in self)
        return True

    def write_out(self, bitfield: Bitfield, length: int) -> bool:
        """Put the next piece of a range into the pool; False when all are, or the pool is full."""
        if len(self.pool) >= MAX_POOL_BLOCKS:
            return False
        finished = []
        found = False
        for wanted in self._ranges:
            stop = min(wanted.stop, length)
            if wanted.written >= stop:
                if wanted.stop <= length:
                    wanted.start = min(bitfield.first_unset(wanted.start), wanted.stop)
                    if wanted.start == wanted.stop:
                        finished.append(wanted)
                continue
            first = bitfield.first_unset(wanted.written)
            if first >= stop:
                wanted.written = stop
                continue
            last = min(stop, first + PIECE_BLOCKS)
            last = bitfield.first_set(first, last) or last
            self.pool.add_range(first, last)
            wanted.written = last
            found = True
            break
        for wanted in finished:
            self._ranges.remove(wanted)
        return found

    @property
    def has_lists(self) -> bool:
        return bool(self._lists)

    def arrived(self, index: int) -> None:
        """The block is stored: lists that have no other left are done."""
        for listed in self._lists:
            listed.missing.discard(index)
        self._lists = [listed for listed in self._lists if listed.missing]

    def first_from(self, index: int) -> int | None:
        """The first block from `index` on that is wanted."""
        found = [max(wanted.start, index) for wanted in self._ranges if wanted.stop > index]
        for listed in self._lists:
            found += islice(iter(listed.missing.iter_equal_or_larger(index)), 1)
        return min(found, default=None)

    def rewind(self) -> None:
        """Look through the ranges again for what is not here."""
        for wanted in self._ranges:
            wanted.start = wanted.written = wanted.wanted.start


class Shuffle:
    """Numbers without a pattern, from a seed: equal seeds give equal numbers.

    Source: splitmix64 (Steele, Lea and Flood 2014).
    """

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def below(self, stop: int) -> int:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ mixed >> 31) % stop

    def rotated(self, pool: BitMap64) -> Iterator[BitMap64]:
        """The pool from somewhere on, then the rest of it."""
        low, high = pool.min(), pool.max()
        start = low + self.below(high - low + 1)
        upper = BitMap64(pool)
        upper.remove_range(0, start)
        yield upper
        yield pool - upper
