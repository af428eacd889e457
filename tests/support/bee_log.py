"""Logs in memory, for tests of the bee: one that has all blocks, one that must fetch them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import trio

from bee.extension_messages import Request, decode_extension
from bee.log import ExtensionHandler, ExtensionNote, LogPeer
from hypercore.bitfield import Bitfield
from hypercore.encoding import Reader, encode_buffer
from hypercore.errors import BlockNotAvailable, NotWritable, OutOfRange
from hypercore.waiting import WriterLock


class BeeLog:
    """A log of our own: everything is here."""

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self.blocks = list(blocks)
        self.local: dict[bytes, bytes] = {}
        self.cleared: set[int] = set()
        self.bitfield = Bitfield()
        self.bitfield.set_range(0, len(self.blocks))
        """Their bytes are replaced by nothing."""
        self.fork = 0
        self.is_writable = True
        self.appends = 0
        self.handlers: dict[str, ExtensionHandler] = {}
        self.notes: dict[str, ExtensionNote] = {}
        self.followers: list[RemoteLog] = []
        self._lock = WriterLock()
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def length(self) -> int:
        return len(self.blocks)

    def get_local(self, index: int) -> bytes | None:
        is_here = 0 <= index < len(self.blocks) and index not in self.cleared
        return self.blocks[index] if is_here else None

    def get_local_many(self, indices: Sequence[int]) -> list[bytes | None]:
        return [self.get_local(index) for index in indices]

    async def get_many(self, indices: Sequence[int], *, wait: bool = True) -> list[bytes]:
        for index in indices:
            if not 0 <= index < len(self.blocks):
                raise OutOfRange(index, len(self.blocks))
            if index in self.cleared:
                assert not wait, "nobody could bring this block"
                raise BlockNotAvailable(index)
        return [self.blocks[index] for index in indices]

    async def wait_change(self, length: int, fork: int) -> None:
        while (self.length, self.fork) == (length, fork):
            await self._changed.park()

    def prefetch(self, indices: Iterable[int]) -> None:
        pass

    def append_nowait(
        self, blocks: Sequence[bytes], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        if not self.is_writable:
            raise NotWritable("this log is read-only")
        first = len(self.blocks)
        self.blocks += blocks
        self.bitfield.set_range(first, len(self.blocks))
        self.appends += 1
        self._write_rows(local or {})
        self._changed.unpark_all()
        return first

    async def append_pieces(
        self,
        pieces: Iterable[Sequence[bytes]],
        *,
        local: Mapping[bytes, bytes | None] | None = None,
        expected_bytes: int = 0,
    ) -> int:
        return self.append_nowait([block for piece in pieces for block in piece], local=local)

    def _write_rows(self, rows: Mapping[bytes, bytes | None]) -> None:
        for key, value in rows.items():
            if value is None:
                self.local.pop(key, None)
            else:
                self.local[key] = value

    async def update(self) -> bool:
        return False

    def wait_scope(self, seconds: float = math.inf) -> trio.CancelScope:
        return trio.move_on_after(seconds)

    def greeting(self, name: str, payload: bytes, pushes: int) -> AbstractContextManager[None]:
        return nullcontext()

    async def wait_durable(self) -> None:
        pass

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        if rows:
            self.append_nowait((), local=rows)

    def get_local_value(self, key: bytes) -> bytes | None:
        return self.local.get(key)

    def local_items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(key for key in self.local if start <= key < stop):
            if key in self.local:
                yield key, self.local[key]

    async def clear_many(
        self, indices: Iterable[int], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        for index in indices:
            self.blocks[index] = b""
            self.cleared.add(index)
            self.bitfield.set_range(index, index + 1, False)
        self._write_rows(local or {})

    async def prune(self, lengths: Iterable[int] = ()) -> int:
        return 0

    def exclusive(self) -> WriterLock:
        return self._lock

    def truncate(self, length: int) -> None:
        self.bitfield.set_range(length, len(self.blocks), False)
        del self.blocks[length:]
        self.cleared = {index for index in self.cleared if index < length}
        self.fork += 1
        self._changed.unpark_all()

    def set_extension(
        self, name: str, handler: ExtensionHandler, note: ExtensionNote | None = None
    ) -> None:
        self.handlers[name] = handler
        self.notes[name] = note or (lambda _payload, _peer: False)

    @property
    def peers(self) -> Sequence[LogPeer]:
        return ()


class RemoteLog(BeeLog):
    """A log of somebody else, of which nothing is here at first.

    `trips` counts the waits; what was prefetched arrives with the next of them. Extension
    messages reach the owner, and the answers us, before the blocks of that wait, among which is
    what the owner pushes. With `pushes` false the owner is like a JavaScript peer.
    """

    def __init__(self, owner: BeeLog, *, length: int | None = None, pushes: bool = False) -> None:
        super().__init__()
        self.owner = owner
        self.is_writable = False
        self.fork = owner.fork
        self.held: dict[int, bytes] = {}
        self.trips = 0
        self.sent: list[bytes] = []
        self.pushes = pushes
        self.owner_peer = _Owner(self)
        self.bystanders: list[Bystander] = []
        self.reader_peer = _Reader(self)
        self.asked: list[list[int]] = []
        self._length = owner.length if length is None else length
        self._expected: set[int] = set()
        self._mail: list[tuple[str, bytes]] = []

    @property
    def length(self) -> int:
        return self._length

    def grow(self, length: int) -> None:
        """The owner's newer head has arrived."""
        self._length = length
        self._changed.unpark_all()

    def get_local(self, index: int) -> bytes | None:
        return self.held.get(index)

    async def get_many(self, indices: Sequence[int], *, wait: bool = True) -> list[bytes]:
        missing = [index for index in indices if index not in self.held]
        if missing:
            self.trips += 1
            self.asked.append(missing)
            arriving, self._expected = [*missing, *self._expected], set()
            for name, payload in self._mail:
                for answer in await self.owner.handlers[name](payload, self.reader_peer):
                    if not self.notes[name](answer, self.owner_peer):
                        await self.handlers[name](answer, self.owner_peer)
            self._mail = []
            arriving += self.reader_peer.pushed
            self.reader_peer.pushed = []
            for index in arriving:
                self.held[index] = self.owner.blocks[index]
            await trio.lowlevel.checkpoint()
        return [self.held[index] for index in indices]

    def prefetch(self, indices: Iterable[int]) -> None:
        self._expected.update(index for index in indices if index not in self.held)

    @property
    def peers(self) -> Sequence[LogPeer]:
        return (*self.bystanders, self.owner_peer)

    def send(self, name: str, payload: bytes) -> None:
        if name in self.owner.handlers:
            self._mail.append((name, payload if self.pushes else _without_push(payload)))
            self.sent.append(payload)


def _without_push(payload: bytes) -> bytes:
    """As a peer reads it that passes over the field."""
    return encode_buffer(replace(_request(payload), push_from=0).encode())


def _request(payload: bytes) -> Request:
    (request,) = decode_extension(Reader(payload).buffer())
    assert isinstance(request, Request)
    return request


class Bystander:
    """A peer of the log that never answers."""

    def __init__(self, length: int, round_trip_seconds: float = 0.0) -> None:
        self.length = self.contiguous_length = length
        self.round_trip_seconds = round_trip_seconds
        self.keeps_word = True
        self.push_patience_seconds = 0.5
        self.allowed = 0
        self.asked: list[Request] = []

    def send_extension(self, name: str, payload: bytes) -> None:
        self.asked.append(_request(payload))

    def allow_pushes(self, count: int) -> None:
        self.allowed += count

    def push_blocks(self, indices: Iterable[int]) -> Sequence[int]:
        return ()

    def expect_blocks(self, indices: Iterable[int], instead_of: Iterable[int] = ()) -> None:
        pass  # what the owner pushes comes with this very wait

    def expect_announced(self, indices: Iterable[int]) -> None:
        pass


class _Owner(Bystander):
    """Who has the log, as the reader sees it."""

    def __init__(self, log: RemoteLog) -> None:
        super().__init__(log.owner.length)
        self._log = log

    def send_extension(self, name: str, payload: bytes) -> None:
        super().send_extension(name, payload)
        self._log.send(name, payload)


class _Reader(Bystander):
    """Who lacks blocks, as the owner sees it."""

    def __init__(self, log: RemoteLog) -> None:
        super().__init__(0)
        self._log = log
        self.pushed: list[int] = []

    def push_blocks(self, indices: Iterable[int]) -> Sequence[int]:
        fresh = [index for index in indices if index not in self._log.held]
        self.pushed += fresh
        return fresh
