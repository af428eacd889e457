"""Which blocks are here: one bit a block, in pages of 32,768.

Block i is bit i & 7 (least significant first) of byte (i >> 3) & 4095 in page i >> 15. These
are the bytes of hypercore-storage's bitfield pages and, cut at multiples of 32 bits, of the
wire's `bitfield` message. A page that is absent is all zeros.

Memory and time are proportional to the pages that a range touches. The caller must first cut
ranges that a peer states to the length of the log.

Source: hypercore 11.37.1 lib/bitfield.js; hypercore-storage 3.3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bitarray import bitarray
from pyroaring import BitMap64

PAGE_BITS = 32_768
PAGE_BYTES = PAGE_BITS // 8

_SHIFT = 15
_MASK = PAGE_BITS - 1


def pages_of(start: int, stop: int) -> range:
    """The pages that hold a bit of [start, stop)."""
    return range(start >> _SHIFT, ((stop - 1) >> _SHIFT) + 1) if start < stop else range(0)


class Bitfield:
    """A set of block numbers, with the searches that a log needs."""

    __slots__ = ("_pages",)

    def __init__(self) -> None:
        self._pages: dict[int, bitarray] = {}

    def copy(self) -> Bitfield:
        other = Bitfield()
        other._pages = {number: page.copy() for number, page in self._pages.items()}
        return other

    def become(self, other: Bitfield) -> None:
        """Take over the bits of `other`, which must not be used afterward."""
        self._pages = other._pages

    def get(self, index: int) -> bool:
        page = self._pages.get(index >> _SHIFT)
        return page is not None and page[index & _MASK] == 1

    def set_range(self, start: int, stop: int, value: bool = True) -> None:
        """Set or clear all of [start, stop)."""
        number = start >> _SHIFT
        if stop - start == 1:
            page = self._pages.get(number)
            if page is not None:
                page[start & _MASK] = value
                return
        numbers: Iterable[int] = pages_of(start, stop)
        if not value:
            numbers = self.pages_within(start, stop)
        for number in numbers:
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bitarray(PAGE_BITS, endian="little")
            first = number << _SHIFT
            page[max(start - first, 0) : min(stop - first, PAGE_BITS)] = value

    def copy_range(self, other: Bitfield, start: int, stop: int) -> None:
        """Make [start, stop) what it is in `other`."""
        self.set_range(start, stop, False)
        for theirs, first, low, high in other._slices(start, stop):
            number = first >> _SHIFT
            page = self._pages.get(number)
            if page is None:
                page = self._pages[number] = bitarray(PAGE_BITS, endian="little")
            page[low:high] = theirs[low:high]

    def pages_within(self, start: int, stop: int) -> Iterable[int]:
        """Numbers of the pages of [start, stop) that exist, in order, however long that is."""
        numbers = pages_of(start, stop)
        if len(numbers) <= len(self._pages):
            return (number for number in numbers if number in self._pages)
        return sorted(number for number in self._pages if number in numbers)

    def _slices(self, start: int, stop: int) -> Iterator[tuple[bitarray, int, int, int]]:
        """(page, its first block, and the part of it in [start, stop)) for pages that exist."""
        for number in self.pages_within(start, stop):
            first = number << _SHIFT
            yield self._pages[number], first, max(start - first, 0), min(stop - first, PAGE_BITS)

    def first_unset(self, start: int = 0) -> int:
        """The first block >= start that is not set; there is always one."""
        number = start >> _SHIFT
        within = start & _MASK
        while (page := self._pages.get(number)) is not None:
            found = page.find(0, within)
            if found >= 0:
                return (number << _SHIFT) + found
            number += 1
            within = 0
        return (number << _SHIFT) + within

    def first_set(self, start: int, stop: int) -> int | None:
        """The first block of [start, stop) that is set."""
        for page, first, low, high in self._slices(start, stop):
            found = page.find(1, low, high)
            if found >= 0:
                return first + found
        return None

    def held(self, start: int, stop: int) -> BitMap64:
        """The blocks of [start, stop) that are set."""
        blocks = BitMap64()
        for page, first, low, high in self._slices(start, stop):
            blocks |= BitMap64(page.search(1, low, high)).shift(first)
        return blocks

    def first_missing(self, other: Bitfield, start: int, stop: int) -> int | None:
        """The first block of [start, stop) that `other` has and this has not."""
        for theirs, first, low, high in other._slices(start, stop):
            ours = self._pages.get(first >> _SHIFT)
            found = (theirs if ours is None else theirs & ~ours).find(1, low, high)
            if found >= 0:
                return first + found
        return None

    def missing(self, other: Bitfield, start: int, stop: int, limit: int) -> list[int]:
        """At most `limit` blocks of [start, stop) that `other` has and this has not, in order."""
        blocks: list[int] = []
        for theirs, first, low, high in other._slices(start, stop):
            ours = self._pages.get(first >> _SHIFT)
            wanted = theirs if ours is None else theirs & ~ours
            for found in wanted.search(1, low, high):
                if len(blocks) == limit:
                    return blocks
                blocks.append(first + found)
        return blocks

    def count(self, start: int, stop: int) -> int:
        """How many blocks of [start, stop) are set."""
        return sum(page.count(1, low, high) for page, _, low, high in self._slices(start, stop))

    def has_range(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is set; true for an empty range."""
        return start >= stop or self.first_unset(start) >= stop

    def pages(self) -> list[int]:
        """Numbers of the pages that exist, in order."""
        return sorted(self._pages)

    def page_bytes(self, number: int) -> bytes:
        """A page as it is stored: 4,096 bytes."""
        page = self._pages.get(number)
        return bytes(PAGE_BYTES) if page is None else page.tobytes()

    def load_page(self, number: int, data: bytes) -> None:
        """Replace a page; a short one is filled up with zeros.

        Raises: ValueError for more than 4,096 bytes.
        """
        if len(data) > PAGE_BYTES:
            raise ValueError(f"a bitfield page of {len(data)} bytes, at most {PAGE_BYTES}")
        page = bitarray(endian="little")
        page.frombytes(data.ljust(PAGE_BYTES, b"\x00"))
        self._pages[number] = page

    def to_words(self, start: int, stop: int) -> bytes:
        """The bits from `start` to at least `stop` as little-endian 32-bit words.

        Requires start % 32 == 0.
        """
        stop += -stop % 32
        parts = []
        for number in pages_of(start, stop):
            first = number << _SHIFT
            low, high = max(start - first, 0), min(stop - first, PAGE_BITS)
            page = self._pages.get(number)
            parts.append(bytes((high - low) // 8) if page is None else page[low:high].tobytes())
        return b"".join(parts)
