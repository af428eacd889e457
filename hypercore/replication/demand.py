"""Which blocks the local side asks for: single ones, and ranges of any length.

Ranges stay ranges. Blocks are written out (into a roaring bitmap) a piece at a time, as the
requests in flight are answered, so that wanting a million blocks costs no more than wanting one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pyroaring import BitMap64

from hypercore.bitfield import Bitfield

PIECE_BLOCKS = 65_536
"""How much of a range is written out at once."""

MAX_INDEX = 2**53 - 1


class BlockStore(Protocol):
    """What is stored here."""

    @property
    def bitfield(self) -> Bitfield: ...


class OfferedBlocks(Protocol):
    """What a peer says it has."""

    def offered(self, pool: BitMap64) -> Iterator[int]:
        """Those blocks of `pool` that the peer has, ascending."""
        ...

    def offers(self, index: int) -> bool: ...


@dataclass(slots=True)
class _Range:
    wanted: range
    """As it was asked for."""

    start: int
    """All before it is held."""

    stop: int
    written: int
    """Blocks below this one are in the pool, or were."""


class Demand:
    """Blocks wanted, and which of them are asked for at present."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._points: dict[int, int] = {}
        self._ranges: list[_Range] = []
        self._urgent = BitMap64()
        self._background = BitMap64()
        self._asked: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._points or self._ranges or self._asked)

    def want(self, indices: Iterable[int]) -> None:
        """Ask for these blocks; each call is taken back by one `unwant` of the same.

        A `range` with step 1 costs the same whatever its length.
        """
        if isinstance(indices, range) and indices.step == 1 and len(indices) > 1:
            self._ranges.append(_Range(indices, indices.start, indices.stop, indices.start))
            return
        points = self._points
        for index in indices:
            if self._store.bitfield.get(index):
                continue
            points[index] = points.get(index, 0) + 1
            if index not in self._asked:
                self._urgent.add(index)

    def unwant(self, indices: Iterable[int]) -> list[int]:
        """Take back one `want`; returns blocks that are asked for and wanted by nobody now."""
        if isinstance(indices, range) and indices.step == 1 and len(indices) > 1:
            return self._unwant_range(indices)
        idle = []
        for index in indices:
            count = self._points.get(index, 0)
            if count > 1:
                self._points[index] = count - 1
            elif count:
                del self._points[index]
                self._urgent.discard(index)
                if self._in_range(index):
                    self._background.add(index)
                elif index in self._asked:
                    idle.append(index)
        return idle

    def _unwant_range(self, indices: range) -> list[int]:
        for place, wanted in enumerate(self._ranges):
            if wanted.wanted == indices:
                del self._ranges[place]
                break
        else:
            return []
        self._background.remove_range(indices.start, indices.stop)
        for other in self._ranges:
            if other.start < indices.stop and indices.start < other.stop:
                other.written = min(other.written, max(other.start, indices.start))
        return [index for index in self._asked if index in indices and not self.is_wanted(index)]

    def is_wanted(self, index: int) -> bool:
        return index in self._points or self._in_range(index)

    def _in_range(self, index: int) -> bool:
        return any(wanted.start <= index < wanted.stop for wanted in self._ranges)

    def take(self, peer: OfferedBlocks, room: tuple[int, int], length: int) -> list[int]:
        """Blocks below `length` to ask this peer for; they count as asked from now on.

        Single blocks first, then ranges, each in ascending order; `room` is for how many
        blocks in all while there are single ones, and for how many with those of ranges.
        """
        urgent_limit, limit = room
        taken: list[int] = []
        if self._urgent and urgent_limit > 0:
            taken = self._pick(self._urgent, peer, urgent_limit, length)
        while len(taken) < limit:
            if self._background:
                taken += self._pick(self._background, peer, limit - len(taken), length)
            if len(taken) == limit or not self._write_out(length):
                break
        return taken

    def _pick(self, pool: BitMap64, peer: OfferedBlocks, limit: int, length: int) -> list[int]:
        asked = self._asked
        is_held = self._store.bitfield.get
        taken: list[int] = []
        done: list[int] = []
        for index in peer.offered(pool):
            if index >= length or len(taken) == limit:
                break
            done.append(index)
            if is_held(index):
                self._points.pop(index, 0)
            elif index not in asked:
                taken.append(index)
        if done:
            pool.difference_update(BitMap64(done))
            asked.update(taken)
        return taken

    def _write_out(self, length: int) -> bool:
        """Put the next piece of a range into the pool; False when all are written out."""
        finished = []
        found = False
        for wanted in self._ranges:
            stop = min(wanted.stop, length)
            if wanted.written >= stop:
                if wanted.stop <= length:
                    wanted.start = min(self._store.bitfield.first_unset(wanted.start), wanted.stop)
                    if wanted.start == wanted.stop:
                        finished.append(wanted)
                continue
            first = self._store.bitfield.first_unset(wanted.written)
            if first >= stop:
                wanted.written = stop
                continue
            last = min(stop, first + PIECE_BLOCKS)
            last = self._store.bitfield.first_set(first, last) or last
            self._background.add_range(first, last)
            wanted.written = last
            found = True
            break
        for wanted in finished:
            self._ranges.remove(wanted)
        return found

    def first_beyond(self, peer: OfferedBlocks, length: int, stop: int) -> int | None:
        """The first block wanted in [length, stop) that the peer has: it comes with an upgrade."""
        candidates = [max(wanted.start, length) for wanted in self._ranges if wanted.stop > length]
        candidates += islice(iter(self._urgent.iter_equal_or_larger(length)), 1)
        best = min(candidates, default=stop)
        if best >= stop or best in self._asked or not peer.offers(best):
            return None
        return best

    def ask(self, index: int) -> None:
        """Count the block as asked for."""
        self._asked.add(index)

    def settle(self, index: int) -> None:
        """The block is stored: nobody asks for it any more."""
        self._asked.discard(index)
        if self._points.pop(index, 0):
            self._urgent.discard(index)

    def put_back(self, index: int) -> None:
        """The request for the block came to nothing: ask again, if it is still wanted."""
        self._asked.discard(index)
        if index in self._points:
            self._urgent.add(index)
        elif self._in_range(index):
            self._background.add(index)

    def missing(self, peer: OfferedBlocks, length: int, window: int, limit: int) -> list[int]:
        """A block of each of the first `limit` windows of `window` blocks with something to ask.

        Only blocks below `length` that wait for a peer, and that this one does not offer.
        """
        found: list[int] = []
        for pool in (self._urgent, self._background):
            index = 0
            while len(found) < limit:
                rest = islice(iter(pool.iter_equal_or_larger(index)), 1)
                index = next(rest, length)
                if index >= length:
                    break
                if peer.offers(index):
                    index += 1
                    continue
                found.append(index)
                index = (index // window + 1) * window
        return found

    def rewind(self) -> None:
        """The log was cut: look through the ranges again for what is not here."""
        for wanted in self._ranges:
            wanted.start = wanted.written = wanted.wanted.start
