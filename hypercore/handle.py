"""[trio] What one user of an open log holds: what it waits for, its turns, its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import trio

from hypercore.block_reader import BackwardReader, BlockReader, CutWatch, ReadAhead
from hypercore.downloading import Download, Order
from hypercore.errors import (
    BlockNotAvailable,
    CorruptStorage,
    DamagedBlock,
    NotWritable,
    OutOfRange,
    SnapshotNotAvailable,
)
from hypercore.given_blocks import check_numbers, given_indices
from hypercore.log import Changeset
from hypercore.open_log import OpenLog
from hypercore.pinned_history import PinnedHistory
from hypercore.replication.demand import MAX_INDEX, Priority
from hypercore.replication.heads import PATIENCE_SECONDS
from hypercore.replication.seeks import Seek
from hypercore.waiting import BlockWaiter, BlockWaiters

# Calls that find what they want do not yield to the scheduler; a loop of them must not starve
# others for more than about a millisecond: a get costs about 4 us, an append about 70.
YIELD_COST = 256
APPEND_COST = 16
COST_BYTES = 16_384


class HandleOwner(Protocol):
    """Something whose end closes handles; `store_session.StoreSession` is one."""

    def add(self, handle: Handle) -> None: ...


class Handle:
    """Keeps an open log open, and gets the blocks that its user waits for."""

    def __init__(
        self, shared: OpenLog, *, is_weak: bool = False, is_read_only: bool = False
    ) -> None:
        """Raises: trio.ClosedResourceError."""
        shared.add_user(self)
        self.shared = shared
        self.log = shared.log
        self.is_weak = is_weak
        self.is_read_only = is_read_only
        self.is_closed = False
        self.budget = YIELD_COST
        self._waiters = BlockWaiters()
        self._changed = trio.lowlevel.ParkingLot()
        self._failure: Exception | None = shared.log.frozen_error
        self.history: PinnedHistory | None = None
        """What a snapshot keeps; it goes with the handle."""
        self.owner: HandleOwner | None = None

    def belong_to(self, owner: HandleOwner | None) -> None:
        """Close when the owner ends, with what is made of this handle from now on."""
        self.owner = owner
        if owner is not None:
            owner.add(self)

    def check(self) -> None:
        """Raises: trio.ClosedResourceError, StorageFailed."""
        if self._failure is not None:
            # Raised again and again: it must not collect the frames of every caller.
            raise self._failure.with_traceback(None)
        self.log.check_usable()

    def check_open(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("the core is closed")

    def check_writable(self) -> None:
        """Raises: NotWritable if this user may not write, trio.ClosedResourceError."""
        self.check_open()
        if self.is_read_only:
            raise NotWritable("this session of the core is read-only")

    @property
    def can_fetch(self) -> bool:
        """Whether there is a place for what peers have: not in a read-only store."""
        return not self.log.rows.storage.is_read_only

    def _check_range(self, first: int, last: int) -> None:
        """Raises: OutOfRange where no block can ever be."""
        self.check_start(first)
        if last >= MAX_INDEX:
            raise OutOfRange(last, MAX_INDEX)

    def check_start(self, start: int) -> None:
        """Raises: OutOfRange below 0, where no block can ever be; TypeError."""
        check_numbers("the index of a block", start)
        if start < 0:
            raise OutOfRange(start, self.log.head.length)

    def _check_blocks(self, blocks: Sequence[int]) -> None:
        """Raises: OutOfRange when no block can ever be at one of them."""
        ends = (*blocks[:1], *blocks[-1:]) if isinstance(blocks, range) else blocks
        self._check_range(min(ends, default=0), max(ends, default=0))

    # --- waiting for blocks ---------------------------------------------------------------------

    async def read_local(
        self,
        indices: Sequence[int],
        read: Callable[[int], bytes | None],
        forget_damaged: Callable[[DamagedBlock], None],
    ) -> tuple[dict[int, bytes], list[int]]:
        """The blocks that are here, and the indices of those that have to be fetched.

        Raises: what `read` and `forget_damaged` raise. Cancel: as `spend`.
        """
        blocks: dict[int, bytes] = {}
        missing = []
        for index in indices:
            try:
                block = read(index)
            except DamagedBlock as error:
                forget_damaged(error)
                block = None
            if block is None:
                missing.append(index)
            else:
                blocks[index] = block
                await self.spend(1 + len(block) // COST_BYTES)
        # Some may have come while other tasks ran: a waiter made now would not be told of these.
        is_held = self.log.bitfield.get
        for index in filter(is_held, missing):
            try:
                block = read(index)
            except DamagedBlock as error:
                forget_damaged(error)
            else:
                if block is not None:
                    blocks[index] = block
        return blocks, [index for index in missing if index not in blocks]

    async def fetch(
        self,
        indices: Sequence[int],
        *,
        wait: bool,
        is_forced: bool = False,
        keeper: bytes | None = None,
    ) -> dict[int, bytes]:
        """Wait for blocks that are not here.

        `is_forced`: ask for them even where peers push and are asked for nothing. `keeper`: as
        `Core.get_many`.

        Raises: BlockNotAvailable without `wait`, if the store is read-only, or if the `keeper`
        and all others lack one; OutOfRange for what cannot come, SnapshotNotAvailable,
        StorageFailed, trio.ClosedResourceError. Cancel: takes the request back.
        """
        found = await self.fetch_stored(indices, wait=wait, is_forced=is_forced, keeper=keeper)
        shared = self.shared
        if shared.cipher is None:
            return found
        return {index: shared.decrypted(index, block) for index, block in found.items()}

    async def fetch_stored(
        self,
        indices: Sequence[int],
        *,
        wait: bool,
        is_forced: bool = False,
        keeper: bytes | None = None,
    ) -> dict[int, bytes]:
        """As `fetch`, but the blocks as they are stored."""
        if not wait or not self.can_fetch:
            raise BlockNotAvailable(indices[0])
        log = self.log
        length = log.head.length
        if log.is_writable and max(indices) >= length:
            raise OutOfRange(max(indices), length)
        self.check()
        found: dict[int, bytes] = {}
        missing = indices
        while missing:
            fork = log.head.fork
            waiter = self._waiters.add(missing, length)
            found.update(await self._wait_stored(waiter, is_forced=is_forced, keeper=keeper))
            if log.head.fork == fork:
                break
            self.check()
            # What was beyond the end may have come with a history that is given up by now.
            beyond = [index for index in indices if index >= length]
            blocks = dict(zip(beyond, self.shared.read_blocks(beyond), strict=True))
            found.update((index, block) for index, block in blocks.items() if block is not None)
            missing = [index for index, block in blocks.items() if block is None]
        return found

    async def _wait_stored(
        self, waiter: BlockWaiter, *, is_forced: bool, keeper: bytes | None
    ) -> dict[int, bytes]:
        shared = self.shared
        shared.replication.want_blocks(waiter.missing, is_forced=is_forced)  # each once
        try:
            if keeper is not None:
                await self._wait_decided(waiter, keeper)
            return await waiter.wait()
        finally:
            if waiter.missing:
                self._waiters.discard(waiter)
                shared.replication.unwant_blocks(waiter.missing)

    async def _wait_decided(self, waiter: BlockWaiter, keeper: bytes) -> None:
        """Return when what is waited for is here, or failed. Raises: BlockNotAvailable."""
        replication, since = self.shared.replication, trio.current_time()
        while not waiter.is_over:
            for index in waiter.missing:
                if replication.is_lost(index, keeper, since):
                    raise BlockNotAvailable(index)
            await self._wait_activity()

    async def _wait_activity(self) -> None:
        """Return when anything happens between the core and its peers, or when that takes long."""
        with trio.move_on_after(PATIENCE_SECONDS):
            await self.shared.replication.activity.park()

    async def download(self, start: int, stop: int, keeper: bytes | None = None) -> None:
        """Wait until all of [start, stop) is here. Raises and Cancel: as `fetch`."""
        self._check_range(start, max(start, stop - 1))
        replication = self.shared.replication
        history = self.history
        first_missing = self.log.bitfield.first_unset if history is None else history.first_missing
        wanted, since, before = range(start, stop), trio.current_time(), start
        cuts = CutWatch()
        self.shared.users.histories.add(cuts)
        replication.want_blocks(wanted)
        try:
            while True:
                known = start if cuts.take() is None else wanted.start
                start = first_missing(known)
                if start >= stop:
                    return
                self.check()
                if start != before:
                    before, since = start, trio.current_time()
                if history is not None:
                    lost = first_missing(max(start, history.intact_length))
                    if lost < stop:
                        raise SnapshotNotAvailable(lost, history.intact_length)
                if not self.can_fetch:
                    raise BlockNotAvailable(start)
                if keeper is None:
                    await self._changed.park()
                elif replication.is_lost(start, keeper, since):
                    raise BlockNotAvailable(start)
                else:
                    await self._wait_activity()
        finally:
            replication.unwant_blocks(wanted)

    def prefetch(self, indices: Iterable[int]) -> None:
        """As `Core.prefetch`."""
        self.check_open()
        blocks = given_indices(indices)
        self._check_blocks(blocks)
        self.shared.replication.prefetch(blocks)

    def start_download(self, blocks: Iterable[int], order: Order) -> Download:
        """As `Core.downloading`."""
        blocks = given_indices(blocks)
        self._check_blocks(blocks)
        download = Download(
            blocks,
            order,
            bitfield=self.log.bitfield,
            source=self.shared.replication,
            changed=self._changed,
            check=self.check,
        )
        self.shared.users.histories.add(download)
        return download

    async def wait_length(self, length: int, *, of_this_fork: bool = False) -> None:
        """As `Core.wait_length`; with `of_this_fork` also returns when the fork changes."""
        check_numbers("the length of a log", length)
        fork = self.log.head.fork
        if self.log.head.length >= length:
            return
        with self.shared.replication.expecting_head():
            while self.log.head.length < length:
                if of_this_fork and self.log.head.fork != fork:
                    return
                self.check_open()
                self.log.check_usable()
                if (frozen := self.log.frozen_error) is not None:
                    raise frozen
                await self.shared.length_changed.park()

    async def wait_change(self, length: int, fork: int) -> None:
        """As `Core.wait_change`."""
        check_numbers("the length of a log", length)
        check_numbers("the fork of a log", fork)
        with self.shared.replication.expecting_head():
            while (self.log.head.length, self.log.head.fork) == (length, fork):
                self.check_open()
                self.log.check_usable()
                await self.shared.length_changed.park()

    def reader(
        self,
        start: int,
        stop: int,
        *,
        reverse: bool,
        get: Callable[[int], Awaitable[bytes]],
        has: Callable[[int], bool],
        rows: Callable[[int, int], Iterator[tuple[int, bytes]]],
    ) -> AsyncIterator[bytes]:
        """Blocks [start, stop); `rows` are those stored here, `get` waits for the others."""
        self.check_start(start)
        check_numbers("where blocks end", stop)
        source, token = self.shared.replication, trio.lowlevel.current_trio_token()

        def take_back(wanted: range) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(source.unwant_blocks, wanted, Priority.AHEAD)

        ahead = ReadAhead(source, start, stop, take_back=take_back, reverse=reverse)
        if reverse:
            return BackwardReader(start, stop, has=has, get=get, ahead=ahead)

        def read_run(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
            try:
                for index, block in rows(first, stop):
                    self.check_open()
                    yield index, self.shared.decrypted(index, block)
            except CorruptStorage:
                return  # reading the blocks one by one tells which is damaged

        return BlockReader(start, stop, read_run=read_run, get=get, pause=self.pause, ahead=ahead)

    async def search(self, offset: int, padding: int, stop: int) -> int | None:
        """Ask peers which block a byte is in; returns it, as far as they can be believed.

        None when blocks of a snapshot below `stop` were cut off: it may be one of them.
        Raises: StorageFailed, trio.ClosedResourceError. Cancel: takes the request back.
        """
        replication = self.shared.replication
        seek = Seek(offset, padding)
        replication.start_seek(seek)
        try:
            while self.history is None or self.history.intact_length >= stop:
                if seek.found is not None:
                    return seek.found
                self.check()
                await replication.activity.park()
        finally:
            replication.stop_seek(seek)
        return None

    # --- taking turns ---------------------------------------------------------------------------

    async def spend(self, cost: int) -> None:
        """Let others run when this user has had its millisecond. Cancel: undoes nothing."""
        self.budget -= cost
        if self.budget <= 0:
            await self.pause()

    async def pause(self) -> None:
        """Let others run. Cancel: undoes nothing."""
        self.budget = YIELD_COST
        await self.shared.pause()

    # --- what the log calls: `log_users.User` ---------------------------------------------------

    def arrived(self, changesets: Iterable[Changeset]) -> None:
        if self._waiters:
            for changes in changesets:
                self._waiters.arrived(changes.blocks)
        if self._changed:
            self._changed.unpark_all()

    def truncating(self, length: int) -> None:
        if self._waiters:
            self._waiters.truncating(length)
        if self.history is not None:
            self.history.truncating(length)

    def replaced(self, length: int) -> None:
        self._waiters.truncating(length)
        if self.history is not None:
            self.history.replaced(length)

    def fail(self, error: Exception) -> None:
        self._failure = error
        self._waiters.fail(error)
        self._changed.unpark_all()
        self.shared.replication.activity.unpark_all()

    def recovered(self) -> None:
        self._failure = self.log.frozen_error
        if self.history is not None:
            self.history.recovered()
        self._changed.unpark_all()

    def log_closed(self) -> None:
        self.is_closed = True
        self.shared.replication.forget_extensions(self)
        if self.history is not None:
            self.history.close()
        self.fail(trio.ClosedResourceError("the core was closed"))

    def close(self) -> None:
        """Wake whoever waits at this handle; the log closes with its last user."""
        if not self.is_closed:
            self.log_closed()
            self.shared.remove_user(self)
