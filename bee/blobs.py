"""Large values beside a bee: runs of blocks in a log of their own, as Hyperblobs keeps them.

A blob is a run of blocks of 64 KiB, the last one shorter. Its id says which blocks and which bytes
of the log they are, and is all that a bee has to store. A part of a blob costs the blocks it
touches: the first is found by its byte offset, which for a log that is not here is one proof, asked
for together with the blocks where they must be if the writer cut as we do.

Source: hyperblobs 2.12.1 index.js, lib/streams.js. Its block maps (blobs that share blocks) are
not written, and ids that have one are refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import NamedTuple, Protocol

from bee.errors import BatchEnded, LogChanged
from hypercore.encoding import MAX_UINT, DecodeError, Reader, encode_uint
from hypercore.errors import NotWritable, OutOfRange, UsageError
from hypercore.given_blocks import MAX_BLOCK_BYTES, check_numbers
from hypercore.sole_waiter import SoleWaiter

BLOCK_BYTES = 65_536

APPENDED_AT_ONCE = 16
"""Blocks, 1 MiB, that a writer gathers before it appends them."""


class BlobMarks(Protocol):
    """Blocks that a sweep keeps. `hypercore.marking.Marks` has it."""

    def add_range(self, start: int, stop: int, /) -> None: ...


class BlobLog(Protocol):
    """What blobs need of a log. `hypercore.core.Core` has it."""

    @property
    def length(self) -> int: ...

    @property
    def fork(self) -> int: ...

    @property
    def byte_length(self) -> int: ...

    @property
    def is_writable(self) -> bool: ...

    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]:
        """All of them; what is not here is asked for at once."""

    def prefetch(self, indices: Iterable[int], /) -> None:
        """Ask for those that are not here; nobody waits."""

    async def seek(self, offset: int, /, *, wait: bool = True) -> tuple[int, int]:
        """The block that holds a byte of the log, and where in it."""

    def append_nowait(self, blocks: Sequence[bytes], /) -> int:
        """Write blocks in one atomic step; returns the first one's index."""

    async def wait_durable(self) -> None:
        """Return when all that was appended is on the disk."""

    async def clear(self, start: int, stop: int, /) -> object:
        """Give up the room of blocks."""

    def marking(self) -> AbstractAsyncContextManager[BlobMarks]:
        """Mark the blocks that the next `sweep` keeps, beside those appended from now on."""

    async def sweep(self) -> int:
        """Give up the room of all others; returns how many blocks."""

    def exclusive(self) -> AbstractAsyncContextManager[object]:
        """The right to append, held by one at a time."""


class BlobId(NamedTuple):
    """Where a blob is: which blocks of the log, and which of its bytes."""

    block_offset: int
    block_length: int
    byte_offset: int
    byte_length: int

    def encode(self) -> bytes:
        """Four numbers in compact encoding, in this order."""
        return b"".join(map(encode_uint, self))

    @classmethod
    def decode(cls, encoded: bytes) -> BlobId:
        """Raises: DecodeError."""
        reader = Reader(encoded)
        blob = cls(reader.uint(), reader.uint(), reader.uint(), reader.uint())
        if reader.remaining:
            raise DecodeError("more than the id of a blob", len(encoded) - reader.remaining)
        if bool(blob.block_length) != bool(blob.byte_length):
            raise DecodeError(f"{blob.byte_length} bytes in {blob.block_length} blocks", 0)
        return blob

    def to_json(self) -> dict[str, int]:
        """As JavaScript has it, for example in a Hyperdrive."""
        return {
            "byteOffset": self.byte_offset,
            "blockOffset": self.block_offset,
            "blockLength": self.block_length,
            "byteLength": self.byte_length,
        }

    @classmethod
    def from_json(cls, fields: object) -> BlobId:
        """Raises: ValueError, also for a blob with a block map."""
        if not isinstance(fields, dict) or fields.get("blockMap"):
            raise ValueError("not the id of a blob without a block map")
        names = ("blockOffset", "blockLength", "byteOffset", "byteLength")
        numbers = [fields.get(name) for name in names]
        for name, number in zip(names, numbers, strict=True):
            if type(number) is not int or not 0 <= number <= MAX_UINT:  # no bool, either
                raise ValueError(f"{name} of a blob is {number!r}")
        return cls.decode(b"".join(map(encode_uint, numbers)))  # type: ignore[arg-type]  # checked


class Blobs:
    """The blobs in one log. Nothing may be appended to it by other means meanwhile."""

    def __init__(self, log: BlobLog, *, block_bytes: int = BLOCK_BYTES) -> None:
        """Raises: UsageError for blocks of no bytes, or of more than a log takes."""
        check_numbers("block_bytes", block_bytes)
        if not 0 < block_bytes <= MAX_BLOCK_BYTES:
            raise UsageError(f"blocks of {block_bytes} bytes, and not of 1 to {MAX_BLOCK_BYTES}")
        self._log = log
        self._block_bytes = block_bytes

    async def put(self, data: bytes) -> BlobId:
        """Write a blob; returns when it is durable.

        Raises: NotWritable, StorageFailed, LogChanged when others append although it holds the
        log's `exclusive()`. Cancel: what was written of it is cleared.
        """
        async with self.writer() as writer:
            await writer.write(data)
        return writer.id

    def writer(self) -> BlobWriter:
        """A blob that comes piece by piece: `async with blobs.writer() as writer: ...`.

        Behind the block `writer.id` says where it is.
        """
        return BlobWriter(self._log, self._block_bytes)

    async def get(self, blob: BlobId, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a blob; `stop` None is its end. As `Core.get_many`.

        Raises: OutOfRange, also for an id that does not fit the log; BlockNotAvailable for what
        our own log gave up, which nobody is asked for.
        """
        return b"".join([piece async for piece in self.stream(blob, start, stop)])

    def stream(self, blob: BlobId, start: int = 0, stop: int | None = None) -> BlobReader:
        """The same bytes piece by piece, at most `APPENDED_AT_ONCE` blocks of them in memory."""
        end = blob.byte_length if stop is None else stop
        if not 0 <= start <= end <= blob.byte_length:
            raise OutOfRange(end if 0 <= start <= end else start, blob.byte_length, "byte")
        return BlobReader(self._log, blob, start, end, self._block_bytes)

    async def clear(self, blob: BlobId) -> None:
        """Give up the room of a blob. Raises: OutOfRange, StorageFailed."""
        await self._log.clear(blob.block_offset, blob.block_offset + blob.block_length)

    async def keep_only(self, blobs: AsyncIterable[BlobId], *, since: int | None = None) -> int:
        """Give up the room of all other blobs; returns how many blocks.

        Whatever begins at block `since` or later stays, None being the present end of the log.
        Raises: NotWritable, OutOfRange for an id that does not fit the log, StorageFailed, and as
        `Core.marking`. Cancel: nothing was given up, or some of it.
        """
        check_numbers("the index of a block", since)
        log = self._log
        if not log.is_writable:
            raise NotWritable("blobs are given up where their log is written")
        start = log.length if since is None else since
        async with log.marking() as marks:
            marks.add_range(start, log.length)
            async for blob in blobs:
                marks.add_range(blob.block_offset, blob.block_offset + blob.block_length)
        return await log.sweep()

    @property
    def length(self) -> int:
        """Blocks of the log, those given up among them."""
        return self._log.length


class BlobWriter:
    """One blob on its way into the log; holds the log's `exclusive()` until the block is left.

    An append or a cut of the same task by other means ends the blob: `LogChanged`.
    """

    def __init__(self, log: BlobLog, block_bytes: int) -> None:
        self._log = log
        self._block_bytes = block_bytes
        self._held = AsyncExitStack()
        self._is_open = False
        self._id: BlobId | None = None
        self._rest = bytearray()
        self._fork = self._start = self._stop = self._byte_start = self._bytes = 0

    @property
    def id(self) -> BlobId:
        """Raises: BatchEnded until it is written, and if it never was."""
        if self._id is None:
            raise BatchEnded("this blob is not written")
        return self._id

    async def __aenter__(self) -> BlobWriter:
        """Raises: NotWritable."""
        if not self._log.is_writable:
            raise NotWritable("blobs are put where their log is written")
        await self._held.enter_async_context(self._log.exclusive())
        self._fork = self._log.fork
        self._start = self._stop = self._log.length
        self._byte_start = self._log.byte_length
        self._id, self._bytes = None, 0
        self._rest.clear()
        self._is_open = True
        return self

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises: BatchEnded, LogChanged, StorageFailed. Cancel: they may be added."""
        if not self._is_open:
            raise BatchEnded("this blob is complete")
        self._rest += data
        self._bytes += len(data)
        if len(self._rest) >= APPENDED_AT_ONCE * self._block_bytes:
            self._append(len(self._rest) - len(self._rest) % self._block_bytes)
            await self._log.wait_durable()

    def _append(self, size: int) -> None:
        self._check_end()
        rest = memoryview(bytes(self._rest[:size]))
        step = self._block_bytes
        self._log.append_nowait([bytes(rest[at : at + step]) for at in range(0, size, step)])
        self._stop = self._log.length
        del self._rest[:size]

    def _check_end(self) -> None:
        """Raises: LogChanged when the log does not end with what was written of the blob."""
        if self._log.fork != self._fork:
            raise LogChanged("the log was cut, and may have lost a part of the blob")
        if self._log.length != self._stop:
            raise LogChanged(f"the log had {self._stop} blocks, now {self._log.length}")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """What was written of a blob that an exception ended, also one from here, is cleared."""
        self._is_open = False
        try:
            async with self._held:
                if error is None:
                    self._check_end()
                    if self._rest:
                        self._append(len(self._rest))
            if error is None:
                await self._log.wait_durable()
                blocks = self._stop - self._start
                self._id = BlobId(self._start, blocks, self._byte_start, self._bytes)
        finally:
            # After a cut, others may have what are its places in the log.
            if self._id is None and self._stop > self._start and self._log.fork == self._fork:
                await self._log.clear(self._start, self._stop)


class BlobReader:
    """An asynchronous iterator over a part of a blob, a block's worth at a time."""

    def __init__(self, log: BlobLog, blob: BlobId, start: int, stop: int, block_bytes: int) -> None:
        self._log = log
        self._may_fetch = not log.is_writable
        self._blob = blob
        self._start = start
        self._left = stop - start
        self._block_bytes = block_bytes
        self._index = -1
        self._skipped = 0
        self._ready: list[bytes] = []
        self._sole_waiter = SoleWaiter("waiting for the next bytes of this reader")

    def __aiter__(self) -> BlobReader:
        return self

    async def __anext__(self) -> bytes:
        """Raises: as `Blobs.get`; UsageError while another task waits for the next bytes."""
        while not self._ready:
            if not self._left:
                raise StopAsyncIteration
            with self._sole_waiter:
                if self._index < 0:
                    await self._find_start()
                await self._read_some()
        return self._ready.pop()

    async def _find_start(self) -> None:
        blob = self._blob
        guess = blob.block_offset + self._start // self._block_bytes
        last = blob.block_offset + (self._start + self._left - 1) // self._block_bytes
        end = min(last + 1, guess + APPENDED_AT_ONCE, blob.block_offset + blob.block_length)
        self._prefetch(range(guess, end))
        if self._start == 0:
            self._index = blob.block_offset
            return
        offset = blob.byte_offset + self._start
        index, self._skipped = await self._log.seek(offset, wait=self._may_fetch)
        if not blob.block_offset <= index < blob.block_offset + blob.block_length:
            raise OutOfRange(index, blob.block_offset + blob.block_length)
        self._index = index

    async def _read_some(self) -> None:
        end = self._blob.block_offset + self._blob.block_length
        wanted = -(-(self._skipped + self._left) // self._block_bytes)
        stop = min(self._index + min(wanted, APPENDED_AT_ONCE), end)
        if self._index >= stop:
            raise OutOfRange(self._index, end)
        if not self._may_fetch and stop > self._log.length:
            raise OutOfRange(stop - 1, self._log.length)
        ready = []
        indices = range(self._index, stop)
        for block in await self._log.get_many(indices, wait=self._may_fetch):
            piece = block[self._skipped : self._skipped + self._left]
            self._skipped = max(0, self._skipped - len(block))
            self._left -= len(piece)
            if piece:
                ready.append(piece)
        self._index = stop
        if stop < end:
            ahead = min(stop + APPENDED_AT_ONCE, end, stop + -(-self._left // self._block_bytes))
            self._prefetch(range(stop, ahead))
        ready.reverse()
        self._ready = ready

    def _prefetch(self, indices: range) -> None:
        if self._may_fetch:
            self._log.prefetch(indices)
