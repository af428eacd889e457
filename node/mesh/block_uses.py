"""Which ranges of other nodes' cores were used last: the cache of blocks gives up the rest.

A range is 1,024 blocks. It is used when some of it is read, or comes; one that was not used since
the start counts as used before all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from bee.log import ExtensionHandler, ExtensionNote, LogPeer, WaitScope
from hypercore.bitfield import Bitfield
from hypercore.core import Core
from hypercore.waiting import WriterLock

RANGE_SHIFT = 10
RANGE_BLOCKS = 1 << RANGE_SHIFT


class BlockUses:
    """Ticks of a counter by core and range; a billion blocks take some 100 MB."""

    def __init__(self) -> None:
        self._cores: dict[bytes, dict[int, int]] = {}
        self.tick = 0
        """What is used now gets this tick."""

    def of(self, key: bytes) -> dict[int, int]:
        """Range to tick, for a core; whoever uses a range sets it."""
        return self._cores.setdefault(key, {})

    def forget(self, key: bytes, number: int) -> None:
        """No block of that range is here any more."""
        self._cores.get(key, {}).pop(number, None)


class UsedLog:
    """A core of another node for a bee to read: notes what is read. The bee's `Log`.

    A read of what neither the `keeper` nor anybody else has ends with BlockNotAvailable.
    """

    def __init__(self, core: Core, uses: BlockUses, keeper: bytes | None = None) -> None:
        self._core = core
        self._keeper = keeper
        self._all_uses = uses
        self._uses = uses.of(core.key)

    @property
    def length(self) -> int:
        return self._core.length

    @property
    def fork(self) -> int:
        return self._core.fork

    @property
    def is_writable(self) -> bool:
        return self._core.is_writable

    @property
    def bitfield(self) -> Bitfield:
        return self._core.bitfield

    def get_local(self, index: int, /) -> bytes | None:
        self._uses[index >> RANGE_SHIFT] = self._all_uses.tick
        return self._core.get_local(index)

    def get_local_many(self, indices: Sequence[int], /) -> Sequence[bytes | None]:
        self._note(indices)
        return self._core.get_local_many(indices)

    def _note(self, indices: Iterable[int]) -> None:
        tick = self._all_uses.tick
        for index in indices:
            self._uses[index >> RANGE_SHIFT] = tick

    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]:
        self._note(indices)
        return await self._core.get_many(indices, wait=wait, keeper=self._keeper)

    async def wait_change(self, length: int, fork: int, /) -> None:
        await self._core.wait_change(length, fork)

    def prefetch(self, indices: Iterable[int], /) -> None:
        self._core.prefetch(indices)

    def append_nowait(
        self, blocks: Sequence[bytes], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        return self._core.append_nowait(blocks, local=local)

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        /,
        *,
        local: Mapping[bytes, bytes | None] | None = None,
        expected_bytes: int = 0,
    ) -> int:
        return await self._core.append_pieces(pieces, local=local, expected_bytes=expected_bytes)

    async def wait_durable(self) -> None:
        await self._core.wait_durable()

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        await self._core.write_local(rows)

    def get_local_value(self, key: bytes, /) -> bytes | None:
        return self._core.get_local_value(key)

    def local_items(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return self._core.local_items(start, stop)

    async def clear_many(
        self, indices: Iterable[int], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        return await self._core.clear_many(indices, local=local)

    async def prune(self, lengths: Iterable[int] = (), /) -> int:
        return await self._core.prune(lengths)

    def exclusive(self) -> WriterLock:
        return self._core.exclusive()

    def set_extension(
        self, name: str, handler: ExtensionHandler, note: ExtensionNote | None = None, /
    ) -> None:
        self._core.set_extension(name, handler, note)

    async def update(self) -> bool:
        return await self._core.update()

    def wait_scope(self, seconds: float = math.inf, /) -> WaitScope:
        return self._core.wait_scope(seconds)

    def greeting(self, name: str, payload: bytes, pushes: int, /) -> AbstractContextManager[None]:
        return self._core.greeting(name, payload, pushes)

    @property
    def peers(self) -> Sequence[LogPeer]:
        return self._core.peers
