"""Reading blocks in sequence: those that are here in runs, the others asked for ahead.

One task at a time uses a reader: while it waits for a block, any other gets UsageError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from math import inf
from typing import Protocol

from hypercore.errors import SnapshotNotAvailable
from hypercore.replication.demand import Priority
from hypercore.sole_waiter import SoleWaiter

READ_AHEAD_BLOCKS = 256
"""How far a reader in sequence asks peers ahead of what it consumed."""

PAUSE_BLOCKS = 256
PAUSE_BYTES = 4 << 20
"""A reader of local blocks lets others run after so many blocks or bytes: about 1 ms."""


def reading() -> SoleWaiter:
    return SoleWaiter("waiting for the next block of this reader")


class BlockSource(Protocol):
    """What can be asked for blocks; `replication.session.CoreReplication` is one."""

    def want_blocks(self, indices: Iterable[int], priority: Priority = ...) -> None: ...
    def unwant_blocks(self, indices: Iterable[int], priority: Priority = ...) -> None: ...


class ReadAhead:
    """A window of blocks asked for ahead of a reader of [start, stop).

    A reader may be dropped without being closed: what it had asked for is taken back then.
    """

    def __init__(
        self,
        source: BlockSource,
        start: int,
        stop: int,
        *,
        take_back: Callable[[range], None],
        reverse: bool = False,
    ) -> None:
        """`take_back` may be called at any moment, in any thread; `reverse`: from the end."""
        self._source = source
        self._take_back = take_back
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._wanted = range(0)

    def advance(self, index: int) -> None:
        """The reader is at `index`, which is not here."""
        before = self._wanted
        if self._reverse:
            is_due = not before or index < before.start + READ_AHEAD_BLOCKS // 2
        else:
            is_due = index >= before.stop - READ_AHEAD_BLOCKS // 2
        if is_due:
            if self._reverse:
                self._wanted = range(max(index + 1 - READ_AHEAD_BLOCKS, self._start), index + 1)
            else:
                self._wanted = range(index, min(index + READ_AHEAD_BLOCKS, self._stop))
            # In this order: what is in both windows stays asked for.
            self._source.want_blocks(self._wanted, Priority.AHEAD)
            self._source.unwant_blocks(before, Priority.AHEAD)

    def close(self) -> None:
        """Take back what was asked for and did not come."""
        self._source.unwant_blocks(self._wanted, Priority.AHEAD)
        self._wanted = range(0)

    def __del__(self) -> None:
        if self._wanted:
            self._take_back(self._wanted)


class BlockReader:
    """Blocks [start, stop) in order; an iterator that may be left at any time."""

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        read_run: Callable[[int, int], Iterator[tuple[int, bytes]]],
        get: Callable[[int], Awaitable[bytes]],
        pause: Callable[[], Awaitable[None]],
        ahead: ReadAhead,
    ) -> None:
        """`read_run` gives the blocks of a range that are here, `get` waits for one."""
        self._index = start
        self._stop = stop
        self._read_run = read_run
        self._get = get
        self._pause = pause
        self._ahead = ahead
        self._run = read_run(start, stop)
        self._unpaused_bytes = 0
        self._sole_waiter = reading()

    def __aiter__(self) -> BlockReader:
        return self

    async def __anext__(self) -> bytes:
        if self._unpaused_bytes >= PAUSE_BYTES:  # before a block is taken: a cancel loses none
            self._unpaused_bytes = 0
            await self._pause()
        index = self._index
        if index >= self._stop:
            self._ahead.close()
            raise StopAsyncIteration
        found, block = next(self._run, (-1, b""))
        if found != index:
            with self._sole_waiter:
                block = await self._get_missing(index)
            self._run = self._read_run(index + 1, self._stop)
        else:
            self._unpaused_bytes += PAUSE_BYTES // PAUSE_BLOCKS + len(block)
        self._index = index + 1
        return block

    async def _get_missing(self, index: int) -> bytes:
        self._ahead.advance(index)
        try:
            return await self._get(index)
        except BaseException:
            self._ahead.close()
            raise


class BackwardReader:
    """Blocks [start, stop) from the last to the first; may be left at any time."""

    def __init__(
        self,
        start: int,
        stop: int,
        *,
        has: Callable[[int], bool],
        get: Callable[[int], Awaitable[bytes]],
        ahead: ReadAhead,
    ) -> None:
        self._start = start
        self._index = stop
        self._has = has
        self._get = get
        self._ahead = ahead
        self._sole_waiter = reading()

    def __aiter__(self) -> BackwardReader:
        return self

    async def __anext__(self) -> bytes:
        index = self._index - 1
        if index < self._start:
            self._ahead.close()
            raise StopAsyncIteration
        with self._sole_waiter:
            if not self._has(index):
                self._ahead.advance(index)
            try:
                block = await self._get(index)
            except BaseException:
                self._ahead.close()
                raise
            self._index = index
        return block


class CutWatch:
    """How far a log was cut back since somebody last looked; a `log_users.HistoryWatch`."""

    def __init__(self) -> None:
        self._lowest: float = inf

    def truncating(self, length: int) -> None:
        self._lowest = min(self._lowest, length)

    def take(self) -> int | None:
        """The lowest length since the last look; None when the log was not cut."""
        lowest, self._lowest = self._lowest, inf
        return None if lowest == inf else int(lowest)


class FollowingReader:
    """Blocks from `start` on, now and as they are appended; never ends on its own."""

    def __init__(
        self,
        start: int,
        *,
        cuts: CutWatch,
        wait_length: Callable[[int], Awaitable[None]],
        blocks: Callable[[int], AsyncIterator[bytes]],
    ) -> None:
        """`blocks` are those from an index to the present end.

        `wait_length` also returns when the log was cut.
        """
        self._start = self._index = start
        self._cuts = cuts
        self._wait_length = wait_length
        self._blocks = blocks
        self._run: AsyncIterator[bytes] | None = None
        self._sole_waiter = reading()

    def __aiter__(self) -> FollowingReader:
        return self

    async def __anext__(self) -> bytes:
        while True:
            self._check_history()
            if self._run is None:
                with self._sole_waiter:
                    await self._wait_length(self._index + 1)
                self._check_history()
                self._run = self._blocks(self._index)
            try:
                block = await anext(self._run)
            except StopAsyncIteration:
                self._run = None
                continue
            except SnapshotNotAvailable:
                self._check_history()  # the block may still come in the new history
                continue
            self._index += 1
            return block

    def _check_history(self) -> None:
        """Raises: SnapshotNotAvailable when blocks that were given out are no longer true."""
        cut = self._cuts.take()
        if cut is not None:
            self._run = None
            if max(cut, self._start) < self._index:
                raise SnapshotNotAvailable(self._index - 1, cut)
