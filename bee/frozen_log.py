"""A bee's log that nobody writes to: a snapshot of a core, say, for reading one old history.

`Bee.snapshot` and `Bee.checkout` name a version of a log, and end with `HistoryReplaced` when
the log is truncated. A bee on a snapshot of the core goes on:

    async with core.snapshot() as snapshot:
        bee = Bee(FrozenLog(snapshot))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from bee.log import ExtensionHandler, ExtensionNote, LogPeer, WaitScope, WriteRight
from hypercore.bitfield import Bitfield
from hypercore.errors import NotWritable, UsageError


class BlockSource(Protocol):
    """What is read from; `hypercore.Snapshot` has it."""

    @property
    def length(self) -> int: ...
    @property
    def fork(self) -> int: ...
    @property
    def bitfield(self) -> Bitfield: ...
    def get_local(self, index: int, /) -> bytes | None: ...
    def get_local_many(self, indices: Sequence[int], /) -> Sequence[bytes | None]: ...
    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]: ...
    def prefetch(self, indices: Iterable[int], /) -> None: ...
    async def pause(self) -> None: ...


class FrozenLog:
    """A `bee.log.Log` of which everything can be read and nothing changed.

    Peers are not asked for hints: those are about the log as it is now.
    """

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self.length = source.length
        self.fork = source.fork
        self.is_writable = False
        self.get_local = source.get_local
        self.get_local_many = source.get_local_many
        self.get_many = source.get_many
        self.prefetch = source.prefetch

    @property
    def bitfield(self) -> Bitfield:
        return self._source.bitfield

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        """Lets other tasks run. Raises: NotWritable if there are rows."""
        if rows:
            raise _refused()
        await self._source.pause()

    def get_local_value(self, key: bytes, /) -> bytes | None:
        """None: local rows belong to the log as it is now."""
        return None

    def local_items(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """None: as `get_local_value`."""
        return iter(())

    async def wait_change(self, length: int, fork: int, /) -> None:
        """Returns for another length or fork. Raises: UsageError, as this log will not change."""
        if (length, fork) == (self.length, self.fork):
            raise UsageError("a snapshot does not change: there is nothing to watch")

    async def update(self) -> bool:
        """False: a snapshot does not change."""
        return False

    def wait_scope(self, seconds: float = math.inf, /) -> WaitScope:
        """Never called: nobody is asked whose answer could end a wait."""
        raise UsageError("a snapshot asks no peer")

    def greeting(self, name: str, payload: bytes, pushes: int, /) -> AbstractContextManager[None]:
        """Sends to nobody."""
        return nullcontext()

    async def wait_durable(self) -> None:
        """Returns at once."""

    def append_nowait(
        self, blocks: Sequence[bytes], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        """Raises: NotWritable."""
        raise _refused()

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        /,
        *,
        local: Mapping[bytes, bytes | None] | None = None,
        expected_bytes: int = 0,
    ) -> int:
        """Raises: NotWritable."""
        raise _refused()

    async def clear_many(
        self, indices: Iterable[int], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        """Raises: NotWritable."""
        raise _refused()

    async def prune(self, lengths: Iterable[int] = (), /) -> int:
        """Raises: NotWritable."""
        raise _refused()

    def exclusive(self) -> WriteRight:
        """Raises: NotWritable."""
        raise _refused()

    def set_extension(
        self, name: str, handler: ExtensionHandler, note: ExtensionNote | None = None, /
    ) -> None:
        """Does nothing: the handler would answer for the log as it is now."""

    @property
    def peers(self) -> Sequence[LogPeer]:
        """None: no peer is asked for hints."""
        return ()


def _refused() -> NotWritable:
    return NotWritable("a snapshot is only for reading")
