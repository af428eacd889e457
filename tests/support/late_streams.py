"""Streams on which everything arrives later, in trio's time."""

from __future__ import annotations

from collections import deque

import trio
import trio.abc


class _LateStream(trio.abc.Stream):
    def __init__(
        self,
        seconds: float,
        outgoing: trio.MemorySendChannel[tuple[float, bytes]],
        incoming: trio.MemoryReceiveChannel[tuple[float, bytes]],
    ) -> None:
        self._seconds = seconds
        self._outgoing = outgoing
        self._incoming = incoming
        self._arrived: deque[bytes] = deque()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._outgoing.send((trio.current_time() + self._seconds, bytes(data)))
        except trio.BrokenResourceError:
            raise trio.BrokenResourceError("the other end is closed") from None

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self._arrived:
            try:
                when, data = await self._incoming.receive()
            except trio.EndOfChannel:
                return b""
            await trio.sleep_until(when)
            self._arrived.append(data)
        data = self._arrived.popleft()
        if max_bytes is not None and len(data) > max_bytes:
            self._arrived.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        return data

    async def aclose(self) -> None:
        self._outgoing.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()


def late_stream_pair(seconds: float) -> tuple[trio.abc.Stream, trio.abc.Stream]:
    """Two ends of a stream with that delay each way; nothing is lost, nothing limits it."""
    there, arriving_there = trio.open_memory_channel[tuple[float, bytes]](10_000)
    back, arriving_back = trio.open_memory_channel[tuple[float, bytes]](10_000)
    return _LateStream(seconds, there, arriving_back), _LateStream(seconds, back, arriving_there)
