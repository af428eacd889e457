"""[trio] Bytes on their way to one web client: adding some never waits, one task writes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import trio

_JOIN_BYTES = 64 * 1024  # larger pieces are sent alone: joining would only copy them


class SocketOutbox:
    """What a socket has still to send, in order."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._waiting: deque[bytes] = deque()
        self.size = 0
        """Bytes that wait for the writer."""
        self.control_bytes = 0
        """How many of these answer control frames, since the outbox was last empty."""
        self._is_sending = False
        self._filled = trio.Event()
        self._taken = trio.Event()
        self._ended = trio.Event()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is written any more."""
        return self._ended.is_set()

    def add(self, data: bytes, *, is_control: bool = False) -> None:
        """Send this after what waits; call `wake` then."""
        self._waiting.append(data)
        self.size += len(data)
        self.control_bytes += len(data) if is_control else 0

    def wake(self) -> None:
        """There is something to write, or to look at."""
        self._filled.set()

    def send_now(self, data: bytes) -> None:
        """Hand data to the network at once, without the writer, if nothing waits; else `add` it.

        That takes a tenth of the work, and is for what is sent to everybody all the time.
        """
        sent = 0
        if not (self._waiting or self._is_sending or self.has_ended):
            with suppress(OSError):  # full, or the client has gone: the writer finds out
                sent = os.write(self._stream.socket.fileno(), data)
        if sent < len(data):
            self.add(data[sent:])
            self.wake()

    async def wait_room(self, limit: int) -> None:
        """Return when fewer than `limit` bytes wait, or nothing is written any more."""
        while self.size >= limit and not self.has_ended:
            await self._taken.wait()

    async def wait_ended(self) -> None:
        """Return when nothing is written any more."""
        await self._ended.wait()

    async def flush(self) -> None:
        """Send what waits; for callers only before `write` runs.

        Raises: trio.BrokenResourceError, trio.ClosedResourceError.
        """
        while self._waiting:
            await self._stream.send_all(self._take())

    async def write(self, scope: trio.CancelScope, is_last: Callable[[], bool]) -> None:
        """The writer: carry everything to the network until the client or the scope ends.

        Where nothing waits and `is_last` says so, the stream is half-closed.
        """
        try:
            with scope:
                while True:
                    self._is_sending = True
                    await self.flush()
                    self._is_sending = False
                    if is_last():
                        await self._stream.send_eof()
                        return
                    self._filled = trio.Event()
                    await self._filled.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(self._stream)  # wakes the reader
        finally:
            self._ended.set()
            self._taken.set()

    def _take(self) -> bytes:
        taken: list[bytes] = []
        size = 0
        while self._waiting and (not taken or size + len(self._waiting[0]) <= _JOIN_BYTES):
            size += len(self._waiting[0])
            taken.append(self._waiting.popleft())
        self.size -= size
        if not self._waiting:
            self.control_bytes = 0
        self._taken.set()
        self._taken = trio.Event()
        return taken[0] if len(taken) == 1 else b"".join(taken)
