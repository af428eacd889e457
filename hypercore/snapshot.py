"""[trio] A view of a log that does not change: its first blocks, as they were at one moment."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

from hypercore.bitfield import Bitfield
from hypercore.byte_search import find_byte
from hypercore.byte_stream import ByteStream
from hypercore.encoded import EncodedLog
from hypercore.errors import CorruptStorage, DamagedBlock, OutOfRange, SnapshotNotAvailable
from hypercore.given_blocks import INDEX_ERRORS, check_index, check_numbers, given_indices
from hypercore.handle import COST_BYTES, Handle, HandleOwner
from hypercore.log import Head
from hypercore.open_log import OpenLog
from hypercore.pinned_history import PinnedHistory
from hypercore.seek import BytePosition
from hypercore.value_encoding import T, ValueEncoding


class Snapshot:
    """Blocks [0, length) of a log, whatever is appended or cut off later.

    Blocks that are not here are fetched. When the log is truncated below `length`, those that
    are here stay readable; the others are gone (SnapshotNotAvailable), as no peer has them any
    more. Blocks that are cleared are gone from snapshots, too. Until it is closed, a snapshot keeps
    the log open, and, once the log was cut, what was cut off on the disk.
    """

    def __init__(self, shared: OpenLog, head: Head, owner: HandleOwner | None) -> None:
        """Raises: trio.ClosedResourceError."""
        self.head = head
        self._handle = Handle(shared)
        self._handle.belong_to(owner)
        self._shared = shared
        self._history = self._handle.history = PinnedHistory(shared.log, head)

    async def __aenter__(self) -> Snapshot:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.release()

    async def close(self) -> None:
        """Cancel: never waits."""
        self.release()

    def release(self) -> None:
        """As `close`."""
        self._handle.close()

    # --- what it is ---------------------------------------------------------------------

    @property
    def key(self) -> bytes:
        return self._shared.key

    @property
    def discovery_key(self) -> bytes:
        return self._shared.discovery_key

    @property
    def is_closed(self) -> bool:
        return self._handle.is_closed

    @property
    def length(self) -> int:
        return self.head.length

    @property
    def byte_length(self) -> int:
        """Bytes of all blocks, held here or not, without encryption's padding."""
        return self._shared.byte_length(self.head)

    @property
    def fork(self) -> int:
        """The log's fork when this was made."""
        return self.head.fork

    @property
    def intact_length(self) -> int:
        """How much of it the log still has: `length`, until it is truncated below that."""
        return self._history.intact_length

    @property
    def bitfield(self) -> Bitfield:
        """The blocks that are here; for reading only, and below `length`.

        Of a log that was cut: those that were here at that moment.
        """
        return self._history.bitfield

    # --- reading ------------------------------------------------------------------------

    async def get(self, index: int, *, wait: bool = True) -> bytes:
        """One block: from the disk, or from peers, now or as soon as one has it.

        With `wait` false only what is here counts. Raises: BlockNotAvailable as `Core.get`,
        SnapshotNotAvailable, OutOfRange outside [0, length), DamagedBlock as `Core.get` and for
        what the log does not have any more. Cancel: takes the request back.
        """
        try:
            block = self.get_local(index)
        except DamagedBlock as error:
            self._forget_damaged(error, wait)
            block = None
        if block is None:
            return (await self._fetch((index,), wait))[index]
        await self._handle.spend(1 + len(block) // COST_BYTES)
        return block

    def get_local(self, index: int) -> bytes | None:
        """One block if it is here. Raises: OutOfRange outside [0, length), DamagedBlock."""
        self._handle.check_open()
        if not 0 <= index < self.head.length:
            raise OutOfRange(index, self.head.length)
        shared = self._shared
        is_intact = index < self._history.intact_length
        try:
            if is_intact:
                block = shared.log.rows.read_block(index)
            else:
                block = self._history.read_lost_block(index)
        except CorruptStorage as error:
            raise shared.damaged(index, str(error)) from error
        except INDEX_ERRORS:
            check_index(index, self.head.length)
            raise
        if block is None and is_intact:
            shared.check_absent(index)
        return None if block is None else shared.decrypted(index, block)

    def get_local_many(self, indices: Iterable[int]) -> list[bytes | None]:
        """As `get_local` of each."""
        return [self.get_local(index) for index in indices]

    async def get_many(self, indices: Iterable[int], *, wait: bool = True) -> list[bytes]:
        """Blocks in the order asked for; all missing ones are requested at once.

        Raises and Cancel: as `get`.
        """
        indices = given_indices(indices)
        forget = partial(self._forget_damaged, wait=wait)
        blocks, missing = await self._handle.read_local(indices, self.get_local, forget)
        if missing:
            blocks.update(await self._fetch(missing, wait))
        return [blocks[index] for index in indices]

    def _forget_damaged(self, error: DamagedBlock, wait: bool) -> None:
        if not wait or error.index >= self._history.intact_length:
            raise error
        self._shared.forget_damaged(error)

    async def _fetch(self, indices: Sequence[int], wait: bool) -> dict[int, bytes]:
        intact = self._history.intact_length
        for index in indices:
            if index >= intact:
                raise SnapshotNotAvailable(index, intact)
        return await self._handle.fetch(indices, wait=wait)

    def blocks(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[bytes]:
        """Blocks [start, stop) in order, or from the last to the first; `stop` None is the end.

        Raises and Cancel: as `get`.
        """
        stop = self.length if stop is None else stop
        return self._handle.reader(
            start, stop, reverse=reverse, get=self.get, has=self.has, rows=self._history.blocks
        )

    def has(self, index: int) -> bool:
        """Whether the block is here."""
        return self._history.has(index)

    def has_range(self, start: int, stop: int) -> bool:
        """Whether all of [start, stop) is here."""
        check_numbers("the index of a block", start, stop)
        return start >= stop or self._history.has_range(start, stop)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Ask for blocks that nobody waits for yet. A `range` may be of any length.

        Their priority is that of a reader's next blocks; of many ranges, only the last count.
        Raises: OutOfRange where no block can be.
        """
        self._handle.prefetch(indices)

    async def download(self, start: int = 0, stop: int | None = None) -> None:
        """Fetch what is not here of [start, stop); `stop` None is `length`.

        Raises and Cancel: as `get`.
        """
        stop = self.length if stop is None else stop
        await self._handle.download(start, min(stop, self.length))

    async def seek(self, offset: int, *, wait: bool = True) -> BytePosition:
        """As `Core.seek`. Raises: OutOfRange beyond the snapshot's `byte_length`, too."""
        return await find_byte(self._handle, self._history, offset, wait=wait)

    async def pause(self) -> None:
        """Let other tasks run, in loops that read with `get_local`. Cancel: undoes nothing."""
        await self._handle.pause()

    def byte_stream(self, start: int = 0, stop: int | None = None) -> ByteStream:
        """As `Core.byte_stream`, for as long as this is open."""
        return ByteStream(self, start, stop)

    def encoded(self, encoding: ValueEncoding[T]) -> EncodedLog[T]:
        """The blocks as values, for as long as this is open."""
        return EncodedLog(self, encoding)
