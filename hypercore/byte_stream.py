"""[trio] A log as a stream of bytes: read from any offset, or appended to piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import trio

from hypercore.errors import BlockNotAvailable, OutOfRange
from hypercore.given_blocks import check_numbers
from hypercore.seek import BytePosition

DEFAULT_BLOCK_BYTES = 65_536
"""How a writing stream cuts what it is sent."""


class ByteSource(Protocol):
    """What a stream reads; a `snapshot.Snapshot`."""

    @property
    def byte_length(self) -> int: ...
    async def seek(self, offset: int, *, wait: bool = True) -> BytePosition: ...
    def blocks(self, start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]: ...
    def release(self) -> None: ...


class ByteStream(trio.abc.ReceiveStream):
    """Bytes [start, stop) of a log as it was when the stream was made.

    Blocks that are not here are fetched, a window of them ahead. `async for` gives a block, or
    the part of it in the range, at a time.
    """

    def __init__(
        self, source: ByteSource, start: int, stop: int | None, *, closes_source: bool = False
    ) -> None:
        """Raises: OutOfRange, TypeError."""
        check_numbers("the offset of a byte", start, stop)
        length = source.byte_length
        stop = length if stop is None else stop
        for offset in (start, stop):
            if not 0 <= offset <= length:
                raise OutOfRange(offset, length, "byte")
        self._closes_source = closes_source
        self._source = source
        self._start = start
        self._stop = stop
        self._left = max(stop - start, 0)
        self._blocks: AsyncIterator[bytes] | None = None
        self._skipped = 0
        self._rest = memoryview(b"")
        self._is_busy = False
        self._is_closed = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At most `max_bytes`, by default what is left of the block; empty at the end.

        Raises: as `Snapshot.get`; trio.ClosedResourceError, trio.BusyResourceError.
        Cancel: no byte is lost.
        """
        check_numbers("max_bytes", max_bytes)
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes}, and must be at least 1")
        if self._is_closed:
            raise trio.ClosedResourceError("the stream is closed")
        if self._is_busy:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._is_busy = True
        try:
            while self._left and not self._rest:
                await self._read_block()
        finally:
            self._is_busy = False
        piece = self._rest[:max_bytes]
        self._rest = self._rest[len(piece) :]
        self._left -= len(piece)
        if not self._left:
            self._let_go()
        return bytes(piece)

    async def _read_block(self) -> None:
        if self._blocks is None:
            first, self._skipped = await self._source.seek(self._start)
            self._blocks = self._source.blocks(first, await self._last_block())
        block = memoryview(await anext(self._blocks))
        self._rest = block[self._skipped : self._skipped + self._left]
        self._skipped = 0

    async def _last_block(self) -> int | None:
        """Where reading ahead should stop, as far as that is known here."""
        try:
            last, offset = await self._source.seek(self._stop, wait=False)
        except BlockNotAvailable:
            return None
        return last + (offset > 0)

    async def aclose(self) -> None:
        """Cancel: never waits."""
        self._is_closed = True
        self._let_go()

    def _let_go(self) -> None:
        self._blocks = None
        if self._closes_source:
            self._source.release()


class AppendStream(trio.abc.SendStream):
    """Appends what it is sent, cut into blocks of at most `block_bytes`.

    What one `send_all` sends begins a block and is appended in one step: nothing is held back.
    """

    def __init__(self, append: Callable[[list[bytes]], Awaitable[int]], block_bytes: int) -> None:
        check_numbers("block_bytes", block_bytes)
        if block_bytes < 1:
            raise ValueError(f"block_bytes is {block_bytes}, and must be at least 1")
        self._append = append
        self._block_bytes = block_bytes
        self._is_closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return when all of it is durable. Raises and Cancel: as `Core.append`."""
        if self._is_closed:
            raise trio.ClosedResourceError("the stream is closed")
        step = self._block_bytes
        await self._append(
            [bytes(data[start : start + step]) for start in range(0, len(data), step)]
        )

    async def wait_send_all_might_not_block(self) -> None:
        """Returns at once: only `send_all` itself waits for the disk."""
        if self._is_closed:
            raise trio.ClosedResourceError("the stream is closed")
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Cancel: never waits."""
        self._is_closed = True
