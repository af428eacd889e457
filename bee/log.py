"""What a bee needs from its log. `hypercore.core.Core` has it, and neither knows the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from hypercore.bitfield import Bitfield

ExtensionHandler = Callable[[bytes, Any], Awaitable[Sequence[bytes]]]
"""Takes a payload and the peer it came from; what it returns goes back to that peer."""


ExtensionNote = Callable[[bytes, Any], bool]
"""Sees a payload at once, with the blocks that came with it; True if nothing is left to handle."""


class LogPeer(Protocol):
    """Somebody who has the log, too; `hypercore.replication.peer_handle.PeerHandle` is one."""

    @property
    def length(self) -> int:
        """What the peer said it has, perhaps with gaps."""

    @property
    def contiguous_length(self) -> int: ...

    @property
    def round_trip_seconds(self) -> float: ...

    @property
    def push_patience_seconds(self) -> float:
        """How long nothing may come of the blocks that it announces."""

    @property
    def keeps_word(self) -> bool:
        """Whether the blocks that it announces come, by and large."""

    def send_extension(self, name: str, payload: bytes, /) -> None: ...

    def push_blocks(self, indices: Iterable[int], /) -> Sequence[int]:
        """Send blocks without a request; returns those that will be sent, in their order."""

    def allow_pushes(self, count: int, /) -> None:
        """Take up to `count` blocks from it without a request."""

    def expect_blocks(self, indices: Iterable[int], /, instead_of: Iterable[int] = ()) -> None:
        """These are on their way: do not request them unless they are late.

        `instead_of` are blocks that were expected, and are not any more.
        """

    def expect_announced(self, indices: Iterable[int], /) -> None:
        """As `expect_blocks`, of blocks it announced: in this order, after those before."""


class WaitScope(Protocol):
    """Waiting in its block ends when it is cancelled; `trio.CancelScope` is one."""

    def cancel(self) -> object: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool: ...


class WriteRight(AbstractAsyncContextManager[object], Protocol):
    """Held by one task at a time, while in its block; `hypercore.waiting.WriterLock` is one."""

    def check_held(self) -> None:
        """Raises: UsageError when it is not the running task that holds it."""


class Log(Protocol):
    """An append-only log of blocks, perhaps partly here, perhaps ours to write."""

    @property
    def length(self) -> int: ...

    @property
    def fork(self) -> int: ...

    @property
    def is_writable(self) -> bool: ...

    @property
    def bitfield(self) -> Bitfield:
        """The blocks that are here; for reading only."""

    def get_local(self, index: int, /) -> bytes | None:
        """The block if it is here; never waits."""

    def get_local_many(self, indices: Sequence[int], /) -> Sequence[bytes | None]:
        """As `get_local` of each, for less; neighbors in a row cost the least."""

    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]:
        """All of them, in that order; what is not here is asked for at once.

        With `wait` false only what is here counts. Raises: BlockNotAvailable (only then).
        """

    async def wait_change(self, length: int, fork: int, /) -> None:
        """Return when the log has another length or fork than this."""

    async def update(self) -> bool:
        """Wait for the newer head that some peer has; whether there was one."""

    def greeting(self, name: str, payload: bytes, pushes: int, /) -> AbstractContextManager[None]:
        """While in this block, send each peer this message, for up to `pushes` pushed blocks."""

    def wait_scope(self, seconds: float = ..., /) -> WaitScope:
        """A new scope, which ends by itself after `seconds`."""

    def prefetch(self, indices: Iterable[int], /) -> None:
        """Ask for those that are not here; nobody waits."""

    def append_nowait(
        self, blocks: Sequence[bytes], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        """Write blocks and local rows in one atomic step; returns the first block's index."""

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        /,
        *,
        local: Mapping[bytes, bytes | None] | None = None,
        expected_bytes: int = 0,
    ) -> int:
        """As `append_nowait` with the blocks of all pieces; others run in between.

        If very many bytes are expected, the blocks need not wait in memory.
        """

    async def wait_durable(self) -> None:
        """Return when all that was appended is on the disk."""

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        """Write local rows; with none of them, only let other tasks run if it is time."""

    def get_local_value(self, key: bytes, /) -> bytes | None:
        """A local row."""

    def local_items(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        """Local rows with start <= key < stop, in order."""

    async def clear_many(
        self, indices: Iterable[int], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> object:
        """Give up these blocks and write local rows, in one atomic step that is durable."""

    async def prune(self, lengths: Iterable[int] = (), /) -> int:
        """Give up tree nodes that prove nothing that is here; returns how many subtrees shrank.

        Peers at one of these lengths can still follow.
        """

    def exclusive(self) -> WriteRight:
        """The right to append, held by one at a time."""

    def set_extension(
        self, name: str, handler: ExtensionHandler, note: ExtensionNote | None = None, /
    ) -> None:
        """Handle the messages of that name; `note` sees them first."""

    @property
    def peers(self) -> Sequence[LogPeer]:
        """Those that are connected now."""
