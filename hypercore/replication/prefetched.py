"""Ranges that are asked for ahead by readers that take nothing back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hypercore.bitfield import Bitfield
from hypercore.replication.demand import Priority

MAX_PREFETCHED = 128
"""Ranges of one core that stay asked for. A reader without peers may add any number, and when a
peer comes, each that overlaps others is looked through again for each of them."""


class BlockSource(Protocol):
    """What can be asked for blocks; `session.CoreReplication` is one."""

    def want_blocks(self, indices: Iterable[int], priority: Priority = ...) -> None: ...
    def unwant_blocks(self, indices: Iterable[int], priority: Priority = ...) -> None: ...


class Prefetched:
    """The prefetched ranges of one core; the oldest are given up for the newest."""

    def __init__(self, source: BlockSource, bitfield: Bitfield) -> None:
        self._source = source
        self._bitfield = bitfield
        self._ranges: list[range] = []

    def add(self, wanted: range) -> None:
        """Ask for what is not here of this range."""
        if self._is_here(wanted):
            return
        self._source.want_blocks(wanted, Priority.AHEAD)
        self._ranges.append(wanted)
        if len(self._ranges) > MAX_PREFETCHED:
            # A hundred readers at once are each a range ahead: ranges that have come are
            # given up before one of these.
            for done in list(filter(self._is_here, self._ranges)) or self._ranges[:1]:
                self._ranges.remove(done)
                self._source.unwant_blocks(done, Priority.AHEAD)

    def _is_here(self, wanted: range) -> bool:
        return self._bitfield.first_unset(wanted.start) >= wanted.stop
