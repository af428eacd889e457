"""One channel of a multiplexer as its user sees it, and the remote's opens before that."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import trio

from swarm.errors import SwarmError
from swarm.io.tasks import Wakeup
from swarm.mux import MAX_MESSAGE_BYTES, Message

if TYPE_CHECKING:
    from swarm.io.mux import MuxHandle

MESSAGE_OVERHEAD_BYTES = 128
"""What a waiting message counts besides its payload."""

Source = Callable[[int], Sequence[Message]]
"""Gives messages of about that many bytes in total; none when there is nothing (more) to send."""


class ChannelRejected(SwarmError, trio.BrokenResourceError):
    """The remote does not open this channel."""


@dataclass(frozen=True, slots=True)
class RemoteOpen:
    """An open of the remote's that nobody here has answered: open the same channel, or reject."""

    protocol: str
    id: bytes | None
    handshake: bytes
    is_waiting: Callable[[], bool]
    """Whether it was neither answered nor closed by the remote."""
    reject: Callable[[], None]
    """Turn it down; nothing happens when it was answered, or closed by the remote, before."""


class _State(enum.Enum):
    OPENING = enum.auto()  # the remote has not answered
    OPEN = enum.auto()
    ENDED = enum.auto()  # by the remote, or with the connection
    CLOSED = enum.auto()  # here


class Channel:
    """One channel; made by `MuxHandle.open_channel`. Close it, or let the connection end."""

    def __init__(self, mux: MuxHandle, number: int, protocol: str, id: bytes | None) -> None:
        self.link = mux.link
        self.protocol = protocol
        self.id = id
        self.remote_handshake = b""
        self._mux = mux
        self._number = number
        self._state = _State.OPENING
        self._was_open = False
        self._end: Callable[[], Exception] | None = None  # what to raise when it has ended
        self._inbox: list[Message] = []
        self._inbox_bytes = 0
        self._arrival = Wakeup()
        self._source: Source | None = None
        self._is_queued = False  # for its turn to give bulk

    def send(self, message_type: int, payload: bytes) -> None:
        """Queue a message; whatever is queued when the writer wakes up leaves in one batch.

        Dropped when the remote has closed the channel or the connection has ended, which
        `receive` tells. The connection ends when `swarm.io.mux.MAX_OUTBOX_BYTES` are unsent.

        Raises: ValueError above `swarm.mux.MAX_MESSAGE_BYTES`, trio.ClosedResourceError.
        """
        if self._state is _State.CLOSED:
            raise trio.ClosedResourceError("this channel was closed here")
        if len(payload) > MAX_MESSAGE_BYTES:
            raise ValueError(f"message of {len(payload)} bytes, at most {MAX_MESSAGE_BYTES}")
        if self._state is _State.OPEN:
            self._mux._queue(self._number, message_type, payload)

    async def receive(self) -> list[Message]:
        """All (type, payload) messages that wait, in order; at least one.

        Does not yield when there are some already; the next call does.

        Raises: trio.EndOfChannel after the last message when the remote closed the channel or
        the connection ended, trio.ClosedResourceError after `close`.
        Cancel: nothing is lost.
        """
        while not self._inbox:
            if self._state is _State.CLOSED:
                raise trio.ClosedResourceError("this channel was closed here")
            if self._end is not None:
                raise self._end()
            await self._arrival.wait()
        return self._take_inbox()

    def set_source(self, take: Source) -> None:
        """Have bulk pulled: `take(max_bytes)` is called when the connection can carry more.

        That ends when it returns nothing, until `wake_source` says that there is more.
        """
        self._source = take
        self.wake_source()

    def wake_source(self) -> None:
        """There may be something to take."""
        if self._source is not None and self._state is _State.OPEN and not self._is_queued:
            self._is_queued = True
            self._mux._queue_source(self)

    def close(self) -> None:
        """End the channel; what was sent still leaves. Nothing happens the second time."""
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self._take_inbox()
            self._arrival.set()
            self._mux._close_channel(self)

    def abort(self, error: Exception) -> None:
        """End the whole connection: the remote broke the protocol, as `error` says."""
        self._mux.abort(error)

    def _take_inbox(self) -> list[Message]:
        messages, self._inbox = self._inbox, []
        self._mux._release_inbox(self._inbox_bytes)
        self._inbox_bytes = 0
        return messages

    def _take_bulk(self, max_bytes: int) -> Sequence[Message]:
        """The next messages of the source; none when the channel is not open any more."""
        self._is_queued = False
        if self._source is None or self._state is not _State.OPEN:
            return ()
        return self._source(max_bytes)

    def _opened(self, handshake: bytes) -> None:
        self.remote_handshake = handshake
        self._state = _State.OPEN
        self._was_open = True
        self._arrival.set()

    def _ended(self, kind: type[Exception], reason: str) -> None:
        if self._state is not _State.CLOSED:
            self._state = _State.ENDED
            self._end = partial(kind, reason)
            self._arrival.set()

    def _arrived(self, messages: list[Message]) -> int:
        """Add to the inbox; returns the bytes that this counts."""
        self._inbox += messages
        size = MESSAGE_OVERHEAD_BYTES * len(messages)
        for _, payload in messages:
            size += len(payload)
        self._inbox_bytes += size
        self._arrival.set()
        return size

    async def _wait_opened(self) -> None:
        while self._state is _State.OPENING:
            await self._arrival.wait()
        if self._end is not None and not self._was_open:
            raise self._end()


class RemoteOpens:
    """The opens of one protocol that are nobody's yet, as an asynchronous iterator.

    Ends with the connection. After `close`, opens that wait and all later ones are rejected.
    """

    def __init__(self, mux: MuxHandle, protocol: str) -> None:
        self._mux = mux
        self._protocol = protocol
        self._waiting: OrderedDict[int, RemoteOpen] = OrderedDict()
        self._arrival = Wakeup()
        self._is_closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RemoteOpen:
        """Cancel: nothing is lost."""
        while True:
            while not self._waiting:
                if self._is_closed or self._mux.is_ended:
                    raise StopAsyncIteration
                await self._arrival.wait()
            offer, remote_open = self._waiting.popitem(last=False)
            if self._mux._is_offered(offer):  # else it was claimed by an open of our own
                return remote_open

    def close(self) -> None:
        """Turn down what waits and what comes. Nothing happens the second time."""
        if not self._is_closed:  # else another iterator may have taken its place
            self._is_closed = True
            self._waiting.clear()
            self._arrival.set()
            self._mux._reject_all(self._protocol)

    async def aclose(self) -> None:
        """The asynchronous twin of `close`, for `async with aclosing(...)`. Never waits."""
        self.close()
