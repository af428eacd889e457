"""A log in memory with what a bee and a coValue store ask of theirs; no hypercore, no disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import trio

from bee.log import ExtensionHandler, ExtensionNote, LogPeer
from hypercore.bitfield import Bitfield
from hypercore.errors import BlockNotAvailable
from hypercore.waiting import WriterLock


class DataLog:
    """Everything appended is durable at once, unless `durable` is replaced by a closed gate."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.rows: dict[bytes, bytes] = {}
        self.cleared: set[int] = set()
        self.bitfield = Bitfield()
        self.appends = 0
        self.fork = 0
        self.is_writable = True
        self.durable = trio.Event()
        self.durable.set()
        self._lock = WriterLock()

    @property
    def length(self) -> int:
        return len(self.blocks)

    def get_local(self, index: int, /) -> bytes | None:
        is_here = index < len(self.blocks) and index not in self.cleared
        return self.blocks[index] if is_here else None

    def get_local_many(self, indices: Sequence[int], /) -> list[bytes | None]:
        return [self.get_local(index) for index in indices]

    async def get_many(self, indices: Sequence[int], /, *, wait: bool = True) -> list[bytes]:
        for index in indices:
            if index in self.cleared:
                raise BlockNotAvailable(index)
        return [self.blocks[index] for index in indices]

    def prefetch(self, indices: Iterable[int], /) -> None:
        pass

    def append_nowait(
        self, blocks: Sequence[bytes], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        start = len(self.blocks)
        self.appends += 1
        self.blocks += blocks
        self.bitfield.set_range(start, len(self.blocks))
        self._change(local or {})
        return start

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        /,
        *,
        local: Mapping[bytes, bytes | None] | None = None,
        expected_bytes: int = 0,
    ) -> int:
        return self.append_nowait([block for piece in pieces for block in piece], local=local)

    def _change(self, rows: Mapping[bytes, bytes | None]) -> None:
        for key, value in rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    async def update(self) -> bool:
        return False

    def wait_scope(self, seconds: float = math.inf) -> trio.CancelScope:
        return trio.move_on_after(seconds)

    def greeting(self, name: str, payload: bytes, pushes: int) -> AbstractContextManager[None]:
        return nullcontext()

    async def wait_durable(self) -> None:
        await self.durable.wait()

    async def wait_change(self, length: int, fork: int, /) -> None:
        await trio.sleep_forever()  # nobody watches this one

    async def prune(self, lengths: Iterable[int] = ()) -> int:
        return 0

    def exclusive(self) -> WriterLock:
        return self._lock

    def set_extension(
        self, name: str, handler: ExtensionHandler, note: ExtensionNote | None = None, /
    ) -> None:
        pass

    @property
    def peers(self) -> Sequence[LogPeer]:
        return ()

    def get_local_value(self, key: bytes, /) -> bytes | None:
        return self.rows.get(key)

    def local_items(self, start: bytes, stop: bytes, /) -> Iterator[tuple[bytes, bytes]]:
        return iter(sorted(item for item in self.rows.items() if start <= item[0] < stop))

    async def clear_many(
        self, indices: Iterable[int], /, *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        for index in indices:
            self.blocks[index] = b""
            self.cleared.add(index)
            self.bitfield.set_range(index, index + 1, False)
        self._change(local or {})

    async def write_local(self, rows: Mapping[bytes, bytes | None], /) -> None:
        self._change(rows)
