"""[trio] Downloads in the background: what is to come, and waiting until it is here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, Protocol

import trio
from pyroaring import BitMap64

from hypercore.bitfield import Bitfield
from hypercore.replication.demand import MAX_INDEX, Priority

LIVE: Final = MAX_INDEX
"""As the end of a download: everything that will ever be appended, too."""


class Order(Enum):
    """In which order a download asks for its blocks."""

    LINEAR = Priority.LINEAR
    RANDOM = Priority.RANDOM
    """Several peers that download from one get different blocks, and can give them to each other.
    Blocks come in short runs, whose proofs share tree nodes."""


class DownloadSource(Protocol):
    """What can be asked for blocks; `replication.session.CoreReplication` is one."""

    def want_blocks(
        self, indices: Iterable[int], priority: Priority = ..., *, is_forced: bool = ...
    ) -> None: ...
    def unwant_blocks(self, indices: Iterable[int], priority: Priority = ...) -> None: ...


class Download:
    """Blocks that are asked for after those that readers wait for; made by `Core.downloading`.

    Blocks that are cut off with an old history are asked for again in the new one.
    """

    def __init__(
        self,
        blocks: range | Sequence[int],
        order: Order,
        *,
        bitfield: Bitfield,
        source: DownloadSource,
        changed: trio.lowlevel.ParkingLot,
        check: Callable[[], None],
    ) -> None:
        """`changed` tells that blocks may have come; `check` raises when none can any more."""
        self._bitfield = bitfield
        self._source = source
        self._changed = changed
        self._check = check
        self._priority = order.value
        if not isinstance(blocks, range) or blocks.step != 1:
            blocks = sorted(set(blocks))
        self._blocks = blocks
        self._wanted: range | BitMap64 = (
            blocks if isinstance(blocks, range) and len(blocks) > 1 else BitMap64(blocks)
        )
        self._place = 0
        self._is_asking = False
        self._is_cancelled = False
        self.resume()

    def truncating(self, length: int) -> None:
        """The log is about to be cut: `is_done` looks from the first block on again."""
        self._place = 0

    @property
    def is_done(self) -> bool:
        """Whether all of it is here; never, for a live download."""
        if isinstance(self._blocks, range):
            if not self._blocks:
                return True
            first = self._bitfield.first_unset(self._blocks[self._place])
            self._place = min(first, self._blocks.stop - 1) - self._blocks.start
            return first >= self._blocks.stop
        blocks = self._blocks
        while self._place < len(blocks) and self._bitfield.get(blocks[self._place]):
            self._place += 1
        return self._place == len(blocks)

    @property
    def is_paused(self) -> bool:
        """Whether peers are not asked at present."""
        return not self._is_asking

    def missing(self, length: int) -> int:
        """How many of its blocks below `length` are not here."""
        if isinstance(self._blocks, range):
            stop = max(min(self._blocks.stop, length), self._blocks.start)
            return stop - self._blocks.start - self._bitfield.count(self._blocks.start, stop)
        return sum(index < length and not self._bitfield.get(index) for index in self._blocks)

    async def done(self) -> None:
        """Return when all of it is here; never, for a live download.

        Raises: StorageFailed, trio.ClosedResourceError, also after `cancel`. Cancel: the download
        goes on.
        """
        while not self.is_done:
            if self._is_cancelled:
                raise trio.ClosedResourceError("the download was cancelled")
            self._check()
            await self._changed.park()
        await trio.lowlevel.checkpoint()

    def pause(self) -> None:
        """Ask for nothing more; requests on their way are withdrawn."""
        if self._is_asking:
            self._is_asking = False
            self._source.unwant_blocks(self._wanted, self._priority)

    def resume(self) -> None:
        """Go on after `pause`. Nothing happens after `cancel`."""
        if not self._is_asking and not self._is_cancelled:
            self._is_asking = True
            self._source.want_blocks(self._wanted, self._priority)

    def cancel(self) -> None:
        """Give it up for good; what arrived stays."""
        self.pause()
        self._is_cancelled = True
        self._changed.unpark_all()
