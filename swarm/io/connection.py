"""An encrypted connection with one remote, over any trio stream."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import assert_never

import trio

from hypercore.crypto import KeyPair
from swarm.errors import HandshakeFailed, MalformedPacket
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import is_stuck
from swarm.io.udx_transport import UdxTransport
from swarm.noise.handshake import HandshakeResult
from swarm.reach import Reach, Route
from swarm.secret_stream import (
    HANDSHAKE_SECONDS,
    KEEP_ALIVE_SECONDS,
    MessagesReceived,
    Opened,
    Output,
    SecretStream,
    Transmit,
)
from swarm.stream_cipher import MAX_MESSAGE_BYTES

RECEIVE_BYTES = 2**18
"""What one read asks for at most: all of it is decrypted in one go."""

FIRST_RECEIVE_BYTES = 2**14
"""What the first read asks for, and after each that was full the next one for twice as much."""

MANY_MESSAGES = 512
"""In what one read brings: the next asks for what so many of them take up. They may have 20 bytes,
and each takes some 5 µs until it is handled: others would have to wait."""

SILENCE_SECONDS = 7.0
"""A remote that keeps its connection alive, every 5 s, and is not heard for longer has lost its
network or its power. TCP alone would wait for a minute; and once the network is back it goes on
only at its next repetition, which is as far away as the cut was long."""

_GRACE_SECONDS = 1.0  # after sleep everybody seems silent: what waits unread comes first

_RETRY_SECONDS = 1.0  # until the next look at a connection that is busy sending


@dataclass(frozen=True, slots=True)
class Link:
    """Who is at the other end, as the handshake proved it."""

    is_initiator: bool
    handshake_hash: bytes
    remote_public_key: bytes
    handshake_seconds: float = 0.0
    """From our beginning to its end: a round trip at least, where nothing was agreed on before."""


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Bytes are those of the wire, messages include keep-alives; times are of the trio clock."""

    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    opened_at: float
    last_received_at: float


class Connection:
    """Messages to and from one remote public key; made by `open_connection`."""

    def __init__(self, stream: trio.abc.Stream, machine: SecretStream, route: Route) -> None:
        self._route = route
        self._stream = stream
        self._machine = machine
        self._link: Link | None = None
        self._started_at = trio.current_time()
        self._received: list[bytes] = []
        self._send_lock = trio.Lock()
        self._bytes_received = 0
        self._bytes_sent = 0
        self._opened_at = self._last_received_at = trio.current_time()
        self._receive_bytes = FIRST_RECEIVE_BYTES
        self._reading_since = math.inf
        self._patience = math.inf
        self._is_welcome = False

    @property
    def is_welcome(self) -> bool:
        """Whether `note_welcome` was called."""
        return self._is_welcome

    def note_welcome(self) -> None:
        """Each end has let the other in: however soon it ends, the remote is dialed a second later.

        Else a remote that hangs up at once, again and again, is taken for one that wants nobody.
        """
        self._is_welcome = True

    @property
    def reach(self) -> Reach:
        """The way that it takes now."""
        return self._route.reach

    @property
    def remote_address(self) -> str:
        """The first hop of that way, as `host:port`; empty if nobody knows."""
        return self._route.address

    @property
    def stream(self) -> trio.abc.Stream:
        """What it runs over; not to be read or written."""
        return self._stream

    @property
    def is_stuck(self) -> bool:
        """Whether what was sent does not arrive; known only over TCP, on Linux."""
        return is_stuck(self._stream)

    @property
    def partial_bytes(self) -> int:
        """Of a message that has not come whole; over UDX also what waits, or came out of order."""
        buffered = self._stream.buffered_bytes if isinstance(self._stream, UdxTransport) else 0
        return self._machine.partial_bytes + buffered

    @property
    def link(self) -> Link:
        assert self._link is not None  # set before open_connection yields
        return self._link

    def statistics(self) -> ConnectionStatistics:
        return ConnectionStatistics(
            bytes_received=self._bytes_received,
            bytes_sent=self._bytes_sent,
            messages_received=self._machine.messages_received,
            messages_sent=self._machine.messages_sent,
            opened_at=self._opened_at,
            last_received_at=self._last_received_at,
        )

    async def send(self, messages: Sequence[bytes]) -> None:
        """Seal the messages and write them with one call.

        Raises: trio.BrokenResourceError, trio.ClosedResourceError, MalformedPacket after
        `receive` has raised it, ValueError for more than `swarm.stream_cipher.MAX_MESSAGE_BYTES`
        in one of them: nothing was sent then.
        Cancel: while it waits for its turn nothing is sent; afterwards the connection is broken,
        since part of a message may be on the wire.
        """
        try:
            self._send_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._send_lock.acquire()
        try:
            await self._carry_out(self._machine.send(messages, trio.current_time()))
        finally:
            self._send_lock.release()

    async def receive(self) -> list[bytes]:
        """All messages that one read brings: at least one, keep-alives left out.

        Raises: trio.EndOfChannel when the remote hung up, MalformedPacket when it broke the
        rules, trio.BrokenResourceError, trio.ClosedResourceError.
        Cancel: nothing is lost.
        """
        while not self._received:
            await self._read()
        messages, self._received = self._received, []
        return messages

    async def wait_confirmed(self) -> bool:
        """Whether the remote has sent something, if only a keep-alive; False when it hung up.

        To be called before anybody receives.
        Cancel: nothing is lost.
        """
        try:
            while not self._machine.messages_received:
                await self._read()
        except (trio.EndOfChannel, trio.BrokenResourceError, MalformedPacket):
            return False
        return True

    async def aclose(self) -> None:
        """Hang up; a task that waits in `send` or `receive` gets trio.ClosedResourceError.

        Cancel: hangs up all the same.
        """
        await trio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        """Feed one read to the machine."""
        self._reading_since = trio.current_time()
        try:
            data = bytes(await self._stream.receive_some(self._receive_bytes))
        finally:
            self._reading_since = math.inf
        if not data:
            self._machine.receive_end()
            raise trio.EndOfChannel
        now = trio.current_time()
        self._bytes_received += len(data)
        gap, self._last_received_at = now - self._last_received_at, now
        keep_alives = self._machine.keep_alives_received
        messages = self._machine.messages_received
        outputs = self._machine.receive(data, now)
        self._adapt(len(data), self._machine.messages_received - messages)
        if self._machine.keep_alives_received > keep_alives:
            # Some speak less often than we do: patience is measured by their own pauses.
            self._patience = max(SILENCE_SECONDS, 1.5 * gap)
        await self._carry_out(outputs)

    def _adapt(self, size: int, count: int) -> None:
        """Ask for more next time, or for less when so many bytes brought many messages."""
        if count > MANY_MESSAGES:
            self._receive_bytes = max(1, size * MANY_MESSAGES // count)
        elif size >= self._receive_bytes:
            self._receive_bytes = min(2 * self._receive_bytes, RECEIVE_BYTES)

    def _silent_at(self) -> float:
        """When a remote that was not heard by then is gone; never while nobody reads."""
        return max(self._reading_since, self._last_received_at) + self._patience

    async def _shake_hands(self) -> None:
        """Exchange keys, until both sides have proven theirs."""
        deadline = self._machine.deadline
        assert deadline is not None
        try:
            with trio.move_on_at(deadline):
                await self._carry_out(self._machine.start())
                while self._link is None:
                    await self._read()
                return
        except trio.BrokenResourceError as error:
            raise HandshakeFailed("the connection broke during the handshake") from error
        # Also when only the sending of what we have to say was not finished.
        raise HandshakeFailed(f"no handshake within {HANDSHAKE_SECONDS:g} s")

    async def _keep_alive(self) -> None:
        """Say something when nobody else did for a while."""
        while (deadline := self._machine.deadline) is not None:
            # While an initiator waits for the remote's header the deadline is far off; then it is
            # not.
            await trio.sleep_until(min(deadline, trio.current_time() + KEEP_ALIVE_SECONDS))
            try:
                self._send_lock.acquire_nowait()
            except trio.WouldBlock:
                await trio.sleep(_RETRY_SECONDS)
                continue
            try:
                await self._carry_out(self._machine.advance(trio.current_time()))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the reader learns it too
            except MalformedPacket:  # the remote's header never came
                await self.aclose()
                return
            finally:
                self._send_lock.release()

    async def _watch_silence(self) -> None:
        """Hang up on a remote that used to keep alive and is not heard any more."""
        while True:
            silent_at = self._silent_at()
            if silent_at <= trio.current_time():
                await trio.sleep(_GRACE_SECONDS)
                if self._silent_at() == silent_at:
                    await self.aclose()
                    return
            else:
                await trio.sleep_until(min(silent_at, trio.current_time() + SILENCE_SECONDS))

    async def _carry_out(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case Transmit(data):
                    await self._stream.send_all(data)
                    self._bytes_sent += len(data)
                case MessagesReceived(messages):
                    self._received += messages
                case Opened(remote_public_key, handshake_hash):
                    is_initiator = self._machine.is_initiator
                    seconds = trio.current_time() - self._started_at
                    self._link = Link(is_initiator, handshake_hash, remote_public_key, seconds)
                case _:
                    assert_never(output)


@asynccontextmanager
async def open_connection(
    stream: trio.abc.Stream,
    key_pair: KeyPair,
    *,
    is_initiator: bool,
    route: Route | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    handshake: HandshakeResult | None = None,
) -> AsyncIterator[Connection]:
    """Exchange keys over a stream, and keep it alive until the body ends; then hang up.

    `route` is the way that the stream takes, TCP if not given; its maker may change it. `handshake`
    is what was agreed on before there was a stream. `max_message_bytes` bounds what the remote may
    send in one message. Takes over the stream.

    Raises: HandshakeFailed.
    Cancel: hangs up.
    """
    machine = SecretStream(
        key_pair,
        is_initiator=is_initiator,
        now=trio.current_time(),
        max_message_bytes=max_message_bytes,
        handshake=handshake,
    )
    connection = Connection(stream, machine, route or Route(Reach.TCP, ""))
    try:
        await connection._shake_hands()
        async with open_background_nursery() as nursery:
            nursery.start_soon(connection._keep_alive)
            nursery.start_soon(connection._watch_silence)
            yield connection
    finally:
        # What failed may hold on to it until garbage is collected, which megabytes do not hasten.
        machine.close()
        await trio.aclose_forcefully(stream)
