"""Which blocks the local side asks for, and in which order.

Single blocks come first: somebody waits for them. Then what a reader will come to next, then
downloads, in ascending or in random order. Ranges stay ranges. Blocks are written out (into a
roaring bitmap) a piece at a time, as the requests in flight are answered, so that wanting a
million blocks costs no more than wanting one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from functools import partial
from itertools import chain, islice
from math import ceil
from typing import Protocol

from pyroaring import BitMap64

from hypercore.bitfield import Bitfield
from hypercore.block_sets import first_of
from hypercore.replication.wanted_blocks import (
    PIECE_BLOCKS,
    RUN_BLOCKS,
    Offers,
    Shuffle,
    WantedBlocks,
)

__all__ = ["MAX_INDEX", "PIECE_BLOCKS", "BlockStore", "Demand", "OfferedBlocks", "Priority"]

MAX_INDEX = 2**53 - 1


class Priority(IntEnum):
    """What is asked for before what, after single blocks."""

    AHEAD = 0
    """A reader in sequence will come there next."""

    LINEAR = 1
    """In the background, in ascending order."""

    RANDOM = 2
    """In the background, in random order: peers that all download get different blocks."""


class BlockStore(Protocol):
    """What is stored here."""

    @property
    def bitfield(self) -> Bitfield: ...


class OfferedBlocks(Offers, Protocol):
    """What a peer says it has."""

    def offered(self, pool: BitMap64) -> Iterator[int]:
        """Those blocks of `pool` that the peer has, ascending."""
        ...

    def offers(self, index: int) -> bool: ...
    def has_told(self, index: int) -> bool:
        """Whether it has said which blocks of this window it has, and can be asked about others."""
        ...


class Demand:
    """Blocks wanted, and which of them are asked for at present."""

    def __init__(self, store: BlockStore, seed: int = 0) -> None:
        """`seed` determines the random order."""
        self._store = store
        self._points: dict[int, int] = {}
        self._urgent = BitMap64()
        # A reader waits for each block by itself: what it read ahead is not wanted after a cut.
        self._wanted = tuple(
            WantedBlocks(keeps_held=priority is not Priority.AHEAD) for priority in Priority
        )
        self._shuffle = Shuffle(seed)
        self._asked: set[int] = set()
        self._forced: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._points or self._asked or any(self._wanted))

    def want(self, indices: Iterable[int], priority: Priority = Priority.LINEAR) -> None:
        """Ask for these blocks; each call is taken back by one `unwant` of the same blocks.

        A `range` with step 1 costs the same whatever its length. A `BitMap64` is a list of
        blocks of this priority; blocks that are given in any other way are urgent.
        """
        if isinstance(indices, range) and _is_run(indices, priority):
            self._wanted[priority].add_range(indices)
            return
        if isinstance(indices, BitMap64):
            self._wanted[priority].add_list(indices, self._store.bitfield, self._asked)
            return
        points = self._points
        for index in indices:
            if self._store.bitfield.get(index):
                continue
            points[index] = points.get(index, 0) + 1
            if index not in self._asked:
                self._urgent.add(index)

    def unwant(self, indices: Iterable[int], priority: Priority = Priority.LINEAR) -> list[int]:
        """Take back one `want`; returns blocks that are asked for and wanted by nobody now."""
        if isinstance(indices, range) and _is_run(indices, priority):
            return self._taken_back(indices, self._wanted[priority].remove_range(indices))
        if isinstance(indices, BitMap64):
            return self._taken_back(indices, self._wanted[priority].remove_list(indices))
        idle = []
        for index in indices:
            count = self._points.get(index, 0)
            if count > 1:
                self._points[index] = count - 1
            elif count:
                del self._points[index]
                self._forced.discard(index)
                is_open = index in self._urgent
                self._urgent.discard(index)
                if not self.is_wanted(index):
                    if index in self._asked:
                        idle.append(index)
                elif is_open:
                    self._put_back(index)
        return idle

    def _taken_back(self, indices: range | BitMap64, waited: BitMap64 | None) -> list[int]:
        """As `unwant`. What `waited` and is wanted with another priority waits there now."""
        if waited is None:
            return []
        if waited:
            for wanted in self._wanted:
                wanted.wait_for(waited)
        return [index for index in self._asked if index in indices and not self.is_wanted(index)]

    def force(self, indices: Iterable[int]) -> None:
        """Urgent blocks that are asked for even where peers push and are asked for nothing."""
        self._forced.update(index for index in indices if index in self._points)

    @property
    def has_forced(self) -> bool:
        return bool(self._forced)

    @property
    def has_downloads(self) -> bool:
        """Whether ranges or lists are wanted."""
        return any(self._wanted)

    @property
    def has_reads_beside_downloads(self) -> bool:
        """Whether single blocks and ranges are wanted at the same time."""
        return bool(self._points) and self.has_downloads

    def forced_beyond(self, length: int) -> bool:
        return any(index >= length for index in self._forced)

    def take_forced(self, peer: OfferedBlocks, limit: int, length: int) -> list[int]:
        """As `take`, of forced blocks alone."""
        pool = self._urgent & BitMap64(self._forced)
        taken = self._pick(pool, peer.offered(pool), limit, length)
        self._urgent -= BitMap64(taken)
        return taken

    def is_wanted(self, index: int) -> bool:
        return index in self._points or any(index in wanted for wanted in self._wanted)

    def is_urgent(self, index: int) -> bool:
        """Whether somebody waits for this very block."""
        return index in self._points

    def take(self, peer: OfferedBlocks, room: tuple[int, int], length: int) -> list[int]:
        """Blocks below `length` to ask this peer for; they count as asked from now on.

        Single blocks first, then the others by their priority; `room` holds two limits of what
        is taken: one for single blocks, one for all with those of ranges.
        """
        urgent_limit, limit = room
        bitfield = self._store.bitfield
        taken: list[int] = []
        if self._urgent and urgent_limit > 0:
            taken = self._pick(self._urgent, peer.offered(self._urgent), urgent_limit, length)
        for priority, wanted in enumerate(self._wanted):
            while len(taken) < limit:
                pool = wanted.pool
                if pool:
                    left = limit - len(taken)
                    if priority == Priority.RANDOM:
                        taken += self._pick_shuffled(pool, peer, left, length)
                    else:
                        taken += self._pick(pool, peer.offered(pool), left, length)
                if len(taken) == limit or not wanted.write_out(peer, bitfield, length):
                    break
        return taken

    def share(self, peer: OfferedBlocks, limit: int, length: int, among: int) -> int:
        """How many blocks, at most `limit`, to ask this peer for if `among` peers share the ranges.

        What fits into one window is not divided: each peer would send the paths of its part.
        """
        waiting = 0
        for wanted in self._wanted:
            while len(wanted.pool) < limit * among:
                if not wanted.write_out(peer, self._store.bitfield, length):
                    break
            waiting += len(wanted.pool)
        return limit if waiting <= limit else min(limit, ceil(waiting / among))

    def _pick(self, pool: BitMap64, offered: Iterator[int], limit: int, length: int) -> list[int]:
        asked = self._asked
        is_held = self._store.bitfield.get
        taken: list[int] = []
        done: list[int] = []
        for index in offered:
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

    def _pick_shuffled(
        self, pool: BitMap64, peer: OfferedBlocks, limit: int, length: int
    ) -> list[int]:
        """Take short runs, each from a random place in the pool."""
        taken: list[int] = []
        while len(taken) < limit and pool:
            for part in self._shuffle.rotated(pool):
                before = len(pool)
                most = min(RUN_BLOCKS, limit - len(taken))
                taken += self._pick(pool, peer.offered(part), most, length)
                if len(pool) < before:
                    break
            else:
                break
        return taken

    def first_beyond(self, length: int, stop: int) -> int | None:
        """The first block wanted in [length, stop), unless it is asked for."""
        candidates = [first_of(self._urgent, length)]
        candidates += [wanted.first_from(length) for wanted in self._wanted if wanted]
        best = min((first for first in candidates if first is not None), default=stop)
        return None if best >= stop or best in self._asked else best

    def ask(self, index: int) -> None:
        """Count the block as asked for."""
        self._asked.add(index)

    def is_asked(self, index: int) -> bool:
        return index in self._asked

    def settle(self, index: int) -> None:
        """The block was stored: nobody asks for it any more.

        If a new history cut the block off at once, it is not here, and is wanted of that history.
        """
        self._asked.discard(index)
        if self._points.pop(index, 0):
            self._urgent.discard(index)
            self._forced.discard(index)
        for wanted in self._wanted:
            if wanted.has_lists and self._store.bitfield.get(index):
                wanted.arrived(index)

    def put_back(self, index: int) -> None:
        """The request for the block came to nothing: ask again, if it is still wanted."""
        self._asked.discard(index)
        self._put_back(index)

    def _put_back(self, index: int) -> None:
        if index in self._points:
            self._urgent.add(index)
            return
        for wanted in self._wanted:
            if index in wanted:
                wanted.pool.add(index)
                return

    def missing(self, peer: OfferedBlocks, length: int, window: int, limit: int) -> list[int]:
        """One block of each of the first `limit` windows that the peer is to be asked about.

        Only blocks below `length` that wait for a peer, and of which this one has said nothing.
        A window has `window` blocks.
        """
        bitfield = self._store.bitfield
        firsts: list[Callable[[int], int | None]] = [
            partial(first_of, self._urgent),
            *(partial(wanted.first_waiting, bitfield=bitfield) for wanted in self._wanted),
        ]
        windows = (_untold(first_from, peer, length, window) for first_from in firsts)
        return list(islice(chain.from_iterable(windows), limit))

    def rewind(self) -> None:
        """The log was cut: look through ranges and lists again for what is not here.

        What is asked for at present is put back next.
        """
        for wanted in self._wanted:
            wanted.rewind(self._store.bitfield)


def _is_run(indices: range, priority: Priority) -> bool:
    """Whether it is wanted as a range: one block is urgent, unless nobody waits for it yet.

    Reading ahead takes a block back even when it has come: if it were urgent, that would take back
    the want of somebody else.
    """
    return indices.step == 1 and len(indices) >= (1 if priority is Priority.AHEAD else 2)


def _untold(
    first_from: Callable[[int], int | None], peer: OfferedBlocks, length: int, window: int
) -> Iterator[int]:
    """As `Demand.missing`, of blocks of one priority; `first_from` finds them."""
    index = first_from(0)
    while index is not None and index < length:
        if peer.offers(index):
            index = first_from(index + 1)
            continue
        if not peer.has_told(index):
            yield index
        index = first_from((index // window + 1) * window)
