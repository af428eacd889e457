"""[trio] Blocks that are not here: asking peers for them, and waiting until they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Protocol

import trio

from hypercore.log import Changeset
from hypercore.stored_log import StoredLog
from hypercore.waiting import BlockWaiters

READ_AHEAD_BLOCKS = 256
"""How far a reader in sequence asks peers ahead of what it consumed."""

PAUSE_BLOCKS = 256
PAUSE_BYTES = 4 << 20
"""A reader of local blocks lets others run after so many, or so many bytes: about 1 ms."""


class BlockSource(Protocol):
    """Who can be asked for blocks; `replication.session.CoreReplication` is one."""

    def want_blocks(self, indices: Iterable[int]) -> None: ...
    def unwant_blocks(self, indices: Iterable[int]) -> None: ...


class BlockFetcher:
    """Gets the blocks of one log that somebody waits for."""

    def __init__(self, log: StoredLog, source: BlockSource) -> None:
        self._log = log
        self._source = source
        self._waiters = BlockWaiters()
        self._changed = trio.lowlevel.ParkingLot()
        self._failure: Exception | None = None

    async def fetch(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Wait for blocks that are not here; returns them as they are stored.

        Raises: what `fail` was given. Cancel: takes the request back.
        """
        self._check()
        waiter = self._waiters.add(indices)
        self._source.want_blocks(indices)
        try:
            return await waiter.wait()
        finally:
            if waiter.missing:
                self._waiters.discard(waiter)
                self._source.unwant_blocks(waiter.missing)

    async def download(self, start: int, stop: int) -> None:
        """Wait until all of [start, stop) is here. Raises and Cancel: as `fetch`."""
        wanted = range(start, stop)
        self._source.want_blocks(wanted)
        try:
            while (start := self._log.bitfield.first_unset(start)) < stop:
                self._check()
                await self._changed.park()
        finally:
            self._source.unwant_blocks(wanted)

    def read_ahead(self, stop: int) -> ReadAhead:
        return ReadAhead(self._source, stop)

    def arrived(self, changesets: Iterable[Changeset]) -> None:
        """These were committed: wake who waits for their blocks."""
        if self._waiters:
            for changes in changesets:
                self._waiters.arrived(changes.blocks)
        if self._changed:
            self._changed.unpark_all()

    def recovered(self) -> None:
        """Blocks may come again."""
        self._failure = None

    def fail(self, error: Exception) -> None:
        """Nothing will come any more."""
        self._failure = error
        self._waiters.fail(error)
        self._changed.unpark_all()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._log.check_usable()


class ReadAhead:
    """A window of blocks asked for ahead of a reader that goes forward."""

    def __init__(self, source: BlockSource, stop: int) -> None:
        self._source = source
        self._stop = stop
        self._wanted = range(0)

    def advance(self, index: int) -> None:
        """The reader is at `index`, which is not here."""
        before = self._wanted
        if index >= before.stop - READ_AHEAD_BLOCKS // 2:
            self._wanted = range(index, min(index + READ_AHEAD_BLOCKS, self._stop))
            # In this order: what is in both windows stays asked for.
            self._source.want_blocks(self._wanted)
            self._source.unwant_blocks(before)

    def close(self) -> None:
        """Take back what was asked for and did not come."""
        self._source.unwant_blocks(self._wanted)
        self._wanted = range(0)


class BlockReader:
    """Blocks [start, stop) in order; an iterator that may be left at any time.

    What it had asked for ahead then still arrives.
    """

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        read_run: Callable[[int, int], Iterator[tuple[int, bytes]]],
        get: Callable[[int], Awaitable[bytes]],
        pause: Callable[[], Awaitable[None]],
        ahead: Callable[[int], ReadAhead],
    ) -> None:
        """`read_run` gives the blocks of a range that are here, `get` waits for one."""
        self._index = start
        self._stop = stop
        self._read_run = read_run
        self._get = get
        self._pause = pause
        self._ahead = ahead(stop)
        self._run = read_run(start, stop)
        self._unpaused_bytes = 0

    def __aiter__(self) -> BlockReader:
        return self

    async def __anext__(self) -> bytes:
        index = self._index
        if index >= self._stop:
            self._ahead.close()
            raise StopAsyncIteration
        found, block = next(self._run, (-1, b""))
        if found != index:
            block = await self._get_missing(index)
            self._run = self._read_run(index + 1, self._stop)
        else:
            self._unpaused_bytes += PAUSE_BYTES // PAUSE_BLOCKS + len(block)
            if self._unpaused_bytes >= PAUSE_BYTES:
                self._unpaused_bytes = 0
                await self._pause()
        self._index = index + 1
        return block

    async def _get_missing(self, index: int) -> bytes:
        self._ahead.advance(index)
        try:
            return await self._get(index)
        except BaseException:
            self._ahead.close()
            raise
