"""Logs whose blocks are values of one type."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Generic, Protocol

from hypercore.errors import UndecodableBlock
from hypercore.given_blocks import given_indices
from hypercore.value_encoding import T, ValueEncoding


class ReadableLog(Protocol):
    """What values are read from: a core, or a snapshot of one."""

    @property
    def length(self) -> int: ...
    def get_local(self, index: int) -> bytes | None: ...
    async def get(self, index: int, *, wait: bool = True) -> bytes: ...
    async def get_many(self, indices: Sequence[int], *, wait: bool = True) -> list[bytes]: ...
    def blocks(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[bytes]: ...


class WritableLog(ReadableLog, Protocol):
    async def append(self, blocks: bytes | Sequence[bytes]) -> int: ...
    def follow(self, start: int = 0) -> AsyncIterator[bytes]: ...


class EncodedLog(Generic[T]):
    """The values of a core or a snapshot, to read; closing is left to its owner."""

    def __init__(self, log: ReadableLog, encoding: ValueEncoding[T]) -> None:
        self._log = log
        self._encoding = encoding

    @property
    def length(self) -> int:
        return self._log.length

    async def get(self, index: int, *, wait: bool = True) -> T:
        """One value. Raises: UndecodableBlock, and as `get` of the log. Cancel: as there."""
        return self.decode(index, await self._log.get(index, wait=wait))

    def get_local(self, index: int) -> T | None:
        """One value if its block is here. Raises: UndecodableBlock, OutOfRange."""
        block = self._log.get_local(index)
        return None if block is None else self.decode(index, block)

    async def get_many(self, indices: Iterable[int], *, wait: bool = True) -> list[T]:
        """Values in the order asked for. Raises and Cancel: as `get`."""
        indices = given_indices(indices)
        blocks = await self._log.get_many(indices, wait=wait)
        return [self.decode(index, block) for index, block in zip(indices, blocks, strict=True)]

    def values(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[T]:
        """Values [start, stop) in order, or backward. Raises and Cancel: as `get`."""
        stop = self._log.length if stop is None else stop
        indices = range(stop - 1, start - 1, -1) if reverse else range(start, stop)
        blocks = self._log.blocks(start, stop, reverse=reverse)
        return DecodingReader(blocks, iter(indices), self.decode)

    def decode(self, index: int, block: bytes) -> T:
        """The value of a block. Raises: UndecodableBlock."""
        try:
            return self._encoding.decode(block)
        except ValueError as error:
            raise UndecodableBlock(f"block {index}: {error}") from error


class EncodedCore(Generic[T]):
    """The values of a core, to read and to append; closing is left to its owner."""

    def __init__(
        self,
        log: WritableLog,
        encoding: ValueEncoding[T],
        encode_many: Callable[[Sequence[T]], Sequence[bytes]] | None,
    ) -> None:
        self._log = log
        self._encoding = encoding
        self._encode_many = encode_many
        self._view = EncodedLog(log, encoding)

    @property
    def length(self) -> int:
        return self._log.length

    async def append(self, value: T) -> int:
        """Put one value at the end, be it a list; returns its index.

        Raises and Cancel: as `Core.append`.
        """
        return await self.append_many((value,))

    async def append_many(self, values: Iterable[T]) -> int:
        """Put values at the end in one step; returns the index of the first block.

        Raises and Cancel: as `Core.append`.
        """
        if self._encode_many is not None:
            return await self._log.append(self._encode_many(list(values)))
        encode = self._encoding.encode
        return await self._log.append([encode(value) for value in values])

    async def get(self, index: int, *, wait: bool = True) -> T:
        """As `EncodedLog.get`. Cancel: as there."""
        return await self._view.get(index, wait=wait)

    def get_local(self, index: int) -> T | None:
        """As `EncodedLog.get_local`."""
        return self._view.get_local(index)

    async def get_many(self, indices: Iterable[int], *, wait: bool = True) -> list[T]:
        """As `EncodedLog.get_many`. Cancel: as there."""
        return await self._view.get_many(indices, wait=wait)

    def values(
        self, start: int = 0, stop: int | None = None, *, reverse: bool = False
    ) -> AsyncIterator[T]:
        """As `EncodedLog.values`."""
        return self._view.values(start, stop, reverse=reverse)

    def follow(self, start: int = 0) -> AsyncIterator[T]:
        """Values from `start` on, now and as they are appended; see `Core.follow`."""
        return DecodingReader(self._log.follow(start), count(start), self._view.decode)


class DecodingReader(Generic[T]):
    """An iterator of blocks, as values; may be left at any time."""

    def __init__(
        self,
        blocks: AsyncIterator[bytes],
        indices: Iterator[int],
        decode: Callable[[int, bytes], T],
    ) -> None:
        self._blocks = blocks
        self._indices = indices
        self._decode = decode

    def __aiter__(self) -> DecodingReader[T]:
        return self

    async def __anext__(self) -> T:
        block = await anext(self._blocks)
        return self._decode(next(self._indices), block)
