"""Blocks wanted of one priority: ranges of any length, and lists, written out a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pyroaring import BitMap64

from hypercore.bitfield import Bitfield
from hypercore.block_sets import blocks_from, first_of

PIECE_BLOCKS = 65_536
"""How much of a range is written out at once."""

NEAR_BLOCKS = 64 * PIECE_BLOCKS
"""A longer stretch of which a peer has nothing is passed over: a log may claim any length, and hold
next to nothing."""

MAX_GAPS = 1024
"""Runs of a range that were passed over; with as many, nothing behind another gap is looked for.
All are looked through for each piece, and offers of one block in four million make any number."""

RUN_BLOCKS = 16
"""How many blocks in a row a random order keeps together: their proofs share tree nodes."""

_MASK = (1 << 64) - 1

T = TypeVar("T")


class Offers(Protocol):
    """One that has blocks."""

    def next_offered(self, index: int) -> int | None:
        """The first block from `index` on that it has."""
        ...


class _Range:
    """A range that is wanted, and what of it was written out."""

    __slots__ = ("_unwritten", "start", "stop", "wanted")

    def __init__(self, wanted: range) -> None:
        self.wanted = wanted
        """As it was asked for."""

        self.start = wanted.start
        """All blocks of the range before this one are held."""

        self.stop = wanted.stop
        self._unwritten = [wanted]
        """Runs of which nothing is or was in the pool, in order."""

    def write_out(self, pool: BitMap64, peer: Offers, bitfield: Bitfield, length: int) -> bool:
        """As `WantedBlocks.write_out`."""
        place = 0
        while place < len(self._unwritten):
            run = self._unwritten[place]
            first = bitfield.first_unset(run.start)
            stop = min(run.stop, length)
            offered = peer.next_offered(first) if first < stop else None
            if offered is not None and offered < stop:
                is_far = offered - first > NEAR_BLOCKS
                if is_far and len(self._unwritten) > MAX_GAPS:
                    place += 1
                    continue
                passed_over = range(first, offered if is_far else first)
                first = passed_over.stop
                last = min(stop, first + PIECE_BLOCKS)
                pool.add_range(first, last)
                pool.difference_update(bitfield.held(first, last))
                rest = (passed_over, range(last, run.stop))
                self._unwritten[place : place + 1] = filter(None, rest)
                return True
            if first < run.stop:
                place += 1
            else:
                del self._unwritten[place]
        return False

    def is_held(self, bitfield: Bitfield) -> bool:
        """Whether all of the range is here."""
        if not self._unwritten:
            self.start = min(bitfield.first_unset(self.start), self.stop)
        return self.start == self.stop

    def write_again(self, start: int) -> None:
        """Blocks from `start` on were taken out of the pool: they are to be written out again."""
        start = max(start, self.start)
        before = (range(run.start, min(run.stop, start)) for run in self._unwritten)
        self._unwritten = [*filter(None, before), range(start, self.stop)]

    def first_unwritten(self, index: int, bitfield: Bitfield) -> int | None:
        """The first block from `index` on that is missing and not in the pool."""
        for run in self._unwritten:
            if run.stop > index:
                first = bitfield.first_unset(max(run.start, index))
                if first < run.stop:
                    return first
        return None


@dataclass(slots=True)
class _List:
    wanted: BitMap64
    """As it was asked for."""

    missing: BitMap64
    """Those blocks of it that are not stored."""


class WantedBlocks:
    """What is wanted, and which of it nobody was asked for yet."""

    __slots__ = ("_held_lists", "_held_ranges", "_keeps_held", "_lists", "_ranges", "pool")

    def __init__(self, *, keeps_held: bool = True) -> None:
        """`keeps_held`: what is here is wanted again when it is cut off, until it is taken back."""
        self._keeps_held = keeps_held
        self.pool = BitMap64()
        """Blocks to ask for; the caller takes them out."""

        self._ranges: list[_Range] = []
        self._lists: list[_List] = []
        self._held_ranges: list[range] = []
        self._held_lists: list[BitMap64] = []
        """All blocks of these two are here."""

    def __bool__(self) -> bool:
        return bool(self._ranges or self._lists)

    def __contains__(self, index: int) -> bool:
        return any(wanted.start <= index < wanted.stop for wanted in self._ranges) or any(
            index in listed.missing for listed in self._lists
        )

    def add_range(self, wanted: range) -> None:
        """Costs the same whatever its length."""
        self._ranges.append(_Range(wanted))

    def add_list(self, blocks: BitMap64, bitfield: Bitfield, asked: set[int]) -> None:
        """Want these blocks; somebody is asked for those in `asked` already."""
        missing = BitMap64(block for block in blocks_from(blocks) if not bitfield.get(block))
        if missing:
            self._lists.append(_List(blocks, missing))
            self.pool |= missing - BitMap64(asked)
        elif self._keeps_held:
            self._held_lists.append(blocks)

    def remove_range(self, wanted: range) -> BitMap64 | None:
        """Take a range back; returns the blocks that are out of the pool by this.

        None when all of the range is here.
        """
        for place, known in enumerate(self._ranges):
            if known.wanted == wanted:
                del self._ranges[place]
                break
        else:
            _discard(self._held_ranges, wanted)
            return None
        waited = _within(self.pool, wanted.start, wanted.stop)
        if not waited:
            return waited  # then no other has anything to write out again
        self.pool -= waited
        for other in self._ranges:
            if other.start < wanted.stop and wanted.start < other.stop:
                other.write_again(wanted.start)
        for listed in self._lists:
            missing = blocks_from(listed.missing, wanted.start)
            self.pool |= BitMap64(block for block in missing if block in wanted)
        return waited

    def remove_list(self, blocks: BitMap64) -> BitMap64 | None:
        """As `remove_range`."""
        for place, listed in enumerate(self._lists):
            if listed.wanted == blocks:
                del self._lists[place]
                break
        else:
            _discard(self._held_lists, blocks)
            return None
        waiting = blocks_from(self.pool & blocks)
        waited = BitMap64(block for block in waiting if block not in self)
        self.pool -= waited
        return waited

    def wait_for(self, blocks: BitMap64) -> None:
        """Put those of these blocks into the pool that are wanted here, too."""
        for wanted in self._ranges:
            self.pool |= _within(blocks, wanted.start, wanted.stop)
        for listed in self._lists:
            self.pool |= blocks & listed.missing

    def write_out(self, peer: Offers, bitfield: Bitfield, length: int) -> bool:
        """Put the next piece of a range of which the peer has something into the pool.

        Only what is below `length`; False when there is no such piece.
        """
        for wanted in list(self._ranges):
            if wanted.write_out(self.pool, peer, bitfield, length):
                return True
            if wanted.stop <= length and wanted.is_held(bitfield):
                self._ranges.remove(wanted)
                if self._keeps_held:
                    self._held_ranges.append(wanted.wanted)
        return False

    def first_waiting(self, index: int, bitfield: Bitfield) -> int | None:
        """The first block from `index` on that nobody was asked for yet."""
        found = [first_of(self.pool, index)]
        found += [wanted.first_unwritten(index, bitfield) for wanted in self._ranges]
        return min((first for first in found if first is not None), default=None)

    @property
    def has_lists(self) -> bool:
        return bool(self._lists)

    def arrived(self, index: int) -> None:
        """The block is stored: lists that have no other left are done."""
        for listed in self._lists:
            listed.missing.discard(index)
            if self._keeps_held and not listed.missing:
                self._held_lists.append(listed.wanted)
        self._lists = [listed for listed in self._lists if listed.missing]

    def first_from(self, index: int) -> int | None:
        """The first block from `index` on that is wanted."""
        found: list[int | None] = [first_of(listed.missing, index) for listed in self._lists]
        found += [max(wanted.start, index) for wanted in self._ranges if wanted.stop > index]
        return min((first for first in found if first is not None), default=None)

    def rewind(self, bitfield: Bitfield) -> None:
        """Look through all of it again for what is not here, even if it is asked for."""
        ranges = *(wanted.wanted for wanted in self._ranges), *self._held_ranges
        lists = *(listed.wanted for listed in self._lists), *self._held_lists
        self._ranges, self._held_ranges = [_Range(wanted) for wanted in ranges], []
        self._lists, self._held_lists = [], []
        for blocks in lists:
            self.add_list(blocks, bitfield, set())


def _discard(held: list[T], wanted: T) -> None:
    if wanted in held:
        held.remove(wanted)


def _within(blocks: BitMap64, start: int, stop: int) -> BitMap64:
    """The blocks in [start, stop), which may be of any length."""
    part = BitMap64(blocks)
    if start:
        part.remove_range(0, start)
    if part and part.max() >= stop:
        part.remove_range(stop, part.max() + 1)
    return part


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
        """The pool from a random block on, then the rest of it."""
        low, high = pool.min(), pool.max()
        start = low + self.below(high - low + 1)
        upper = BitMap64(pool)
        upper.remove_range(0, start)
        yield upper
        yield pool - upper
