"""Channels over a connection: a reader task, a writer task, and what waits between them.

Control messages are pushed: `Channel.send` never waits, and what is queued when the writer
wakes up leaves in one batch. Bulk is pulled: a channel with a source is asked for more whenever
the connection has taken everything, in turns with the other channels. What arrives waits in
inboxes; when they hold more than their bound the socket is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import trio

from swarm.errors import OutboxOverflow, SwarmError
from swarm.io.channel import (
    MESSAGE_OVERHEAD_BYTES,
    Channel,
    ChannelRejected,
    RemoteOpen,
    RemoteOpens,
)
from swarm.io.connection import Connection, Link
from swarm.io.tasks import Wakeup, open_background_nursery
from swarm.mux import (
    ChannelClosed,
    ChannelOpened,
    Message,
    MessagesReceived,
    Mux,
    Output,
    RemoteOpened,
    RemoteWithdrew,
    Transmit,
    encode_frames,
)

MAX_INBOX_BYTES = 2**20
"""What all channels of a connection may hold unread, give or take one frame; then the socket is
not read. Each message counts MESSAGE_OVERHEAD_BYTES besides its payload."""

MAX_OUTBOX_BYTES = 2**24
"""Control messages that a remote may leave unread; with one more the connection ends."""

BULK_BYTES = 2**18
"""What the writer pulls from sources per wake-up: control messages wait behind no more."""

FIRST_BULK_BYTES = 2**13
"""What is taken from the sources at first, after there was nothing to send: the remote begins with
it while we prepare the rest. Then half as much again each time, at least this much more, up to
BULK_BYTES: a remote that verifies what comes takes a little longer for it than we do, and is to
have the next when it is done. With twice as much each time it waited for the third and the
fourth."""

_TURN_BYTES = 2**16  # what one source gives before the next one has its turn
_CLOSE_SECONDS = 2.0  # for what is queued when the body ends


@dataclass(frozen=True, slots=True)
class MuxStatistics:
    """Channels open on both sides, and what waits."""

    channels: int
    inbox_bytes: int
    outbox_bytes: int
    messages_received: int
    messages_sent: int


class MuxHandle:
    """The channels of one connection; made by `open_mux`."""

    def __init__(self, connection: Connection, accept: Sequence[str]) -> None:
        self.connection = connection
        self.link: Link = connection.link
        self.error: Exception | None = None
        """Why the connection ended, when it was not just closed."""
        self._machine = Mux(accept)
        self._channels: dict[int, Channel] = {}
        self._remote_opens = {protocol: RemoteOpens(self, protocol) for protocol in accept}
        self._outbox: list[tuple[int, int, bytes]] = []
        self._outbox_bytes = 0
        self._sources: deque[Channel] = deque()
        self._writer = Wakeup()
        self._reader = Wakeup()
        self._inbox_bytes = 0
        self._messages_received = 0
        self._messages_sent = 0
        self._end = trio.Event()
        self._flushed = trio.Event()

    @property
    def is_ended(self) -> bool:
        return self._end.is_set()

    async def open_channel(
        self,
        protocol: str,
        id: bytes | None,
        handshake: bytes = b"",
        *,
        aliases: Sequence[str] = (),
        early: Sequence[Message] = (),
    ) -> Channel:
        """Open a channel, and wait until the remote has opened it too.

        Our open leaves at once, and right behind it the messages `early`, which any remote gets to
        read. Messages that the remote sent with its own wait in the channel. `aliases` are other
        names by which the remote may know the protocol.

        Raises: ChannelRejected, trio.EndOfChannel when the connection ends first.
        Cancel: closes it.
        """
        if self.is_ended:
            raise trio.EndOfChannel("the connection has ended")
        number, outputs = self._machine.open(protocol, id, handshake, aliases)
        channel = Channel(self, number, protocol, id)
        self._channels[number] = channel
        self._carry_out(outputs)
        for message_type, payload in early:
            self._queue(number, message_type, payload)
        try:
            await channel._wait_opened()
        except BaseException:
            channel.close()
            raise
        return channel

    def remote_opens(self, protocol: str) -> RemoteOpens:
        """The remote's opens that have no counterpart here, from now on.

        Opens of protocols for which this was not called, and that `open_mux` was not told of,
        are rejected at once. Answer every one: too many that wait stall the connection.
        """
        opens = self._remote_opens.get(protocol)
        if opens is None or opens._is_closed:
            opens = self._remote_opens[protocol] = RemoteOpens(self, protocol)
            self._machine.accepted.add(protocol)
        return opens

    def abort(self, error: Exception | None = None) -> None:
        """End the connection now; `error` says why, if something was wrong."""
        if self.is_ended:
            return
        self.error = error
        _forget_frames(error)
        self._end.set()
        reason = "the connection ended" + (f": {error}" if error else "")
        for channel in self._channels.values():
            channel._ended(trio.EndOfChannel, reason)
        for opens in self._remote_opens.values():
            opens._arrival.set()
        self._outbox.clear()
        self._sources.clear()
        self._outbox_bytes = 0
        self._flushed.set()

    async def wait_ended(self) -> None:
        """Return when the connection has ended, from whichever side. Cancel: undoes nothing."""
        await self._end.wait()

    async def flush(self) -> None:
        """Return when everything sent so far is written, or the connection has ended.

        Cancel: undoes nothing.
        """
        if self._outbox_bytes and not self.is_ended:
            if self._flushed.is_set():
                self._flushed = trio.Event()
            await self._flushed.wait()

    def statistics(self) -> MuxStatistics:
        return MuxStatistics(
            channels=len(self._channels),
            inbox_bytes=self._inbox_bytes,
            outbox_bytes=self._outbox_bytes,
            messages_received=self._messages_received,
            messages_sent=self._messages_sent,
        )

    def _queue(self, number: int, message_type: int, payload: bytes) -> None:
        if self.is_ended:
            return
        if self._outbox_bytes > MAX_OUTBOX_BYTES:
            self.abort(OutboxOverflow(self._outbox_bytes, MAX_OUTBOX_BYTES))
            return
        if not self._outbox:
            self._writer.set()
        self._outbox.append((number, message_type, payload))
        self._outbox_bytes += len(payload) + MESSAGE_OVERHEAD_BYTES

    def _queue_source(self, channel: Channel) -> None:
        if not self.is_ended:
            self._sources.append(channel)
            self._writer.set()

    def _close_channel(self, channel: Channel) -> None:
        # The remote may have closed it first, and its number may be another channel's by now.
        if self._channels.get(channel._number) is channel:
            del self._channels[channel._number]
            self._carry_out(self._machine.close(channel._number))

    def _is_offered(self, offer: int) -> bool:
        return self._machine.is_offered(offer)

    def _reject(self, offer: int) -> None:
        self._carry_out(self._machine.reject(offer))
        self._reader.set()

    def _reject_all(self, protocol: str) -> None:
        self._carry_out(self._machine.reject_all(protocol))
        self._reader.set()

    def _release_inbox(self, size: int) -> None:
        was_full = self._inbox_bytes > MAX_INBOX_BYTES
        self._inbox_bytes -= size
        if was_full and self._inbox_bytes <= MAX_INBOX_BYTES:
            self._reader.set()

    def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case MessagesReceived(number, messages):
                    self._messages_received += len(messages)
                    self._inbox_bytes += self._channels[number]._arrived(messages)
                case Transmit(number, message_type, payload):
                    self._queue(number, message_type, payload)
                case RemoteOpened():
                    self._offer(output)
                case RemoteWithdrew(offer):
                    for opens in self._remote_opens.values():
                        opens._waiting.pop(offer, None)
                case ChannelOpened(number, handshake):
                    self._channels[number]._opened(handshake)
                    self._reader.set()  # an offer may have been claimed
                case ChannelClosed(number, was_rejected):
                    end = ChannelRejected if was_rejected else trio.EndOfChannel
                    verb = "rejected" if was_rejected else "closed"
                    self._channels.pop(number)._ended(end, f"the remote {verb} the channel")
                case _:
                    assert_never(output)

    def _offer(self, opened: RemoteOpened) -> None:
        opens = self._remote_opens[opened.protocol]
        opens._waiting[opened.offer] = RemoteOpen(
            opened.protocol,
            opened.id,
            opened.handshake,
            partial(self._is_offered, opened.offer),
            partial(self._reject, opened.offer),
        )
        opens._arrival.set()

    async def _read(self) -> None:
        """Pump frames into the machine; stop reading while what they brought is not wanted."""
        while not self.is_ended:
            for frame in await self.connection.receive():
                self._carry_out(self._machine.receive(frame))
                await self._wait_wanted()
                while self._machine.has_more and not self.is_ended:
                    # What nobody reads fills no inbox, and must not keep others from running.
                    await trio.lowlevel.checkpoint()
                    self._carry_out(self._machine.resume())
                    await self._wait_wanted()

    async def _wait_wanted(self) -> None:
        while not self.is_ended and (
            self._inbox_bytes > MAX_INBOX_BYTES or self._machine.is_congested
        ):
            await self._reader.wait()

    async def _write(self) -> None:
        """Write what is queued, then a turn of bulk, as long as there is any."""
        turn_bytes = FIRST_BULK_BYTES
        while True:
            while not self._outbox and not self._sources:
                turn_bytes = FIRST_BULK_BYTES
                await self._writer.wait()
            messages, self._outbox = self._outbox, []
            control_bytes = self._outbox_bytes
            is_full = self._pull_bulk(messages, turn_bytes)
            turn_bytes = _next_turn(turn_bytes) if is_full else FIRST_BULK_BYTES
            if messages:
                self._messages_sent += len(messages)
                await self.connection.send(encode_frames(messages))
            self._outbox_bytes -= control_bytes
            if not self._outbox_bytes:
                self._flushed.set()

    def _pull_bulk(self, messages: list[tuple[int, int, bytes]], budget: int) -> bool:
        """Add messages of the sources, in turns, about so many bytes; whether that many came."""
        while budget > 0 and self._sources:
            channel = self._sources.popleft()
            taken = channel._take_bulk(min(budget, _TURN_BYTES))
            for message_type, payload in taken:
                messages.append((channel._number, message_type, payload))
                budget -= len(payload) + MESSAGE_OVERHEAD_BYTES
            if taken:
                channel.wake_source()  # its next turn
        return budget <= 0

    async def _pump(self) -> None:
        """Read and write until the connection ends; then hang up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_end, self._read)
                nursery.start_soon(self._until_end, self._write)
                await self._end.wait()
                nursery.cancel_scope.cancel()
        finally:
            await self.connection.aclose()

    async def _until_end(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except trio.EndOfChannel:
            self.abort()
        except (trio.BrokenResourceError, trio.ClosedResourceError, SwarmError) as error:
            self.abort(error)


def _forget_frames(error: BaseException | None) -> None:
    """Forget where an error came from: the frames have us, who have the error.

    All of it, with what the connection holds, would stay until garbage is collected.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _next_turn(turn_bytes: int) -> int:
    """The size of the next turn, after one of this size that the sources filled."""
    return min(turn_bytes + max(turn_bytes // 2, FIRST_BULK_BYTES), BULK_BYTES)


@asynccontextmanager
async def open_mux(
    connection: Connection, *, accept: Sequence[str] = ()
) -> AsyncIterator[MuxHandle]:
    """Carry channels over a connection until the body ends or the remote hangs up.

    Opens of the protocols in `accept` wait from the beginning until they are answered; without
    that, an open that arrives before the body asked for it is rejected. What is queued when the
    body ends is still sent, for a moment. When the connection ends first, channels say so, and
    `wait_ended` returns; the body is not cancelled.

    Cancel: ends the connection without sending what is queued.
    """
    handle = MuxHandle(connection, accept)
    async with open_background_nursery() as nursery:
        nursery.start_soon(handle._pump)
        try:
            yield handle
            with trio.move_on_after(_CLOSE_SECONDS):
                await handle.flush()
        finally:
            handle.abort()
