"""Multiplexers joined in memory, for tests of what runs above them: no bytes, no encryption."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import trio

from hypercore.replication.channel import RemoteOpen, Take

Key = tuple[str, bytes | None]
Message = tuple[int, bytes]

FIRST_KEY, SECOND_KEY = b"i" * 32, b"o" * 32
"""Public keys of the first and the second of a pair."""


@dataclass(frozen=True)
class MemoryLink:
    is_initiator: bool
    handshake_hash: bytes
    remote_public_key: bytes
    handshake_seconds: float = 0.0


class MemoryChannel:
    """One end of a channel; `error` is what it was aborted for."""

    def __init__(self, mux: MemoryMux) -> None:
        self._mux = mux
        self.link = mux.link
        self.remote_handshake = b""
        self.other: MemoryChannel | None = None
        self.error: Exception | None = None
        self.sent: list[Message] = []
        self.is_closed = False
        self._inbox: list[Message] = []
        self._has_ended = False
        self._changed = trio.Event()
        self._take: Take | None = None

    def send(self, message_type: int, payload: bytes) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError
        self.sent.append((message_type, payload))
        if self.other is not None:
            self.other.arrive([(message_type, payload)])

    def arrive(self, messages: Sequence[Message]) -> None:
        self._mux.note(messages)
        self._inbox += messages
        self._wake()

    async def receive(self) -> list[Message]:
        while not self._inbox:
            if self.is_closed:
                raise trio.ClosedResourceError
            if self._has_ended:
                raise trio.EndOfChannel
            await self._changed.wait()
        messages, self._inbox = self._inbox, []
        return messages

    def set_source(self, take: Take) -> None:
        self._take = take
        self.wake_source()

    def wake_source(self) -> None:
        if self._take is None or self.other is None:
            return
        while messages := self._take(1 << 16):
            self.sent += messages
            self.other.arrive(messages)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._wake()
            self._mux.forget(self)
            if self.other is not None:
                self.other.end()

    def end(self) -> None:
        self._has_ended = True
        self._mux.forget(self)
        self._wake()

    def abort(self, error: Exception) -> None:
        self.error = error
        self._mux.hang_up(error)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class MemoryMux:
    """One side of a connection. Opens that the other side does not expect are rejected."""

    def __init__(self, link: MemoryLink) -> None:
        self.link = link
        self.other: MemoryMux = self
        self.error: Exception | None = None
        self.is_ended = False
        self._opening: dict[Key, tuple[MemoryChannel, bytes, trio.Event, Sequence[Message]]] = {}
        self._open: list[MemoryChannel] = []
        self.expected: set[Key] = set()
        self.note: Callable[[Sequence[Message]], None] = lambda _: None
        """Told at once what comes in, before anybody reads it."""

    async def open_channel(
        self,
        protocol: str,
        id: bytes | None,
        handshake: bytes = b"",
        *,
        aliases: Sequence[str] = (),
        early: Sequence[tuple[int, bytes]] = (),
    ) -> MemoryChannel:
        key = (protocol, id)
        channel = MemoryChannel(self)
        waiting = self.other._opening.pop(key, None)
        if waiting is not None:
            channel.other, channel.remote_handshake, paired, earlier = waiting
            channel.other.other, channel.other.remote_handshake = channel, handshake
            channel.arrive(list(earlier))
            channel.other.arrive(list(early))
            paired.set()
        elif key not in self.other.expected:
            raise trio.BrokenResourceError("rejected")
        else:
            paired = trio.Event()
            self._opening[key] = (channel, handshake, paired, early)
            try:
                await paired.wait()
            finally:
                self._opening.pop(key, None)
            if channel.other is None:
                raise trio.EndOfChannel
        self._open.append(channel)
        return channel

    async def remote_opens(self, protocol: str) -> AsyncIterator[RemoteOpen]:
        nobody: tuple[RemoteOpen, ...] = ()
        for remote_open in nobody:
            yield remote_open

    def forget(self, channel: MemoryChannel) -> None:
        if channel in self._open:
            self._open.remove(channel)

    def hang_up(self, error: Exception | None = None) -> None:
        for mux in (self, self.other):
            mux.is_ended = True
            for channel in list(mux._open):
                channel.end()
            for _, _, paired, _ in mux._opening.values():
                paired.set()
        self.error = error


def memory_mux_pair() -> tuple[MemoryMux, MemoryMux]:
    one = MemoryMux(MemoryLink(True, b"h" * 64, SECOND_KEY))
    other = MemoryMux(MemoryLink(False, b"h" * 64, FIRST_KEY))
    one.other, other.other = other, one
    return one, other
