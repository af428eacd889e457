"""A UDX stream as a trio stream: what runs over TCP runs over this."""

from __future__ import annotations

import enum
import math
import operator
from collections import deque
from typing import TYPE_CHECKING, assert_never

import trio

from swarm.io.tasks import SoleSender, Wakeup
from swarm.io.tcp import format_address
from swarm.udx.outputs import (
    Closed,
    CloseReason,
    Gone,
    MessageReceived,
    Output,
    Readable,
    RemoteChanged,
    Transmit,
    Writable,
)
from swarm.udx.path import Address
from swarm.udx.receiver import WINDOW_BYTES
from swarm.udx.statistics import UdxStatistics
from swarm.udx.stream import State, UdxStream

if TYPE_CHECKING:
    from swarm.io.udp import UdxEndpoint

PIECE_BYTES = 2**16
"""What is handed to the stream at once. It bounds what is unsent, with
`swarm.udx.stream.SEND_BUFFER_BYTES`."""

MAX_WAITING_MESSAGES = 256
"""Unordered messages that nobody has taken; more are dropped, as the network would."""

FAREWELL_SECONDS = 10.0
"""How long a stream that was closed here may take to deliver what it was given, and to hear the
remote's end. After that it is destroyed."""


class _Ownership(enum.Enum):
    HELD = enum.auto()
    LEFT = enum.auto()  # closed by its user; what is under way is still delivered


class _Lookout:
    """Waits for a packet from somewhere else than `known`."""

    def __init__(self, known: Address | None) -> None:
        self.known = known
        self.seen = trio.Event()
        self.contact: tuple[UdxEndpoint, Address] | None = None

    async def wait(self) -> tuple[UdxEndpoint, Address]:
        await self.seen.wait()
        assert self.contact is not None
        return self.contact


class UdxTransport(trio.abc.HalfCloseableStream):
    """One stream of an endpoint; made by `UdxEndpoint.open_stream`."""

    def __init__(self, endpoint: UdxEndpoint, machine: UdxStream, *, is_contactable: bool) -> None:
        self._endpoint = endpoint
        self._is_contactable = is_contactable
        self._machine = machine
        self._ownership = _Ownership.HELD
        self._is_send_ended = False
        self._reason: CloseReason | None = None
        self._readable = Wakeup()
        self._writable = Wakeup()
        self._changed = trio.Event()
        self._over = trio.Event()
        self._first_contact = _Lookout(None)
        self._lookouts = [self._first_contact] if is_contactable else []
        self._messages: deque[bytes] = deque()
        self._message_arrival = Wakeup()
        self._sole_sender = SoleSender()
        self._has_discarded = False
        self.give_up_at = math.inf
        """When it is destroyed though something is under way; for the endpoint."""

    @property
    def local_id(self) -> int:
        """What the remote addresses."""
        return self._machine.local_id

    @property
    def remote_address(self) -> str:
        """Where packets go, as `host:port`; empty before `connect`."""
        path = self._machine.path
        return "" if path is None else format_address(path.address)

    @property
    def max_message_bytes(self) -> int:
        """The largest message that may be sent now."""
        return self._machine.max_message_bytes

    @property
    def buffered_bytes(self) -> int:
        """What has arrived and nobody has read, with what each piece of it costs."""
        return self._machine.buffered_bytes

    def statistics(self) -> UdxStatistics:
        return self._machine.statistics()

    def connect(
        self,
        remote_id: int,
        address: Address,
        *,
        through: UdxEndpoint | None = None,
        first_ack: int = 0,
    ) -> None:
        """Say whom this stream talks to, and begin to send; through another socket if given.

        Only an answer tells whether anybody is there. The remote's first packet has the number
        `first_ack`.

        Raises: trio.BrokenResourceError when the remote has ended it before, as whoever knows its
        id may; trio.ClosedResourceError, RuntimeError when it is connected already, ValueError for
        an address that is not numeric, or an endpoint that does not share its streams.
        """
        self._verify_alive()
        endpoint = self._choose_endpoint(through)
        path = endpoint.create_path(remote_id, address)
        outputs = self._machine.connect(path, trio.current_time(), first_ack=first_ack)
        self._endpoint = endpoint
        self.carry_out(outputs)

    def widen(self, window_bytes: int = WINDOW_BYTES) -> None:
        """Have room for more from now on: it is known who the remote is."""
        self.carry_out(self._machine.widen(window_bytes))

    async def change_remote(
        self, remote_id: int, address: Address, *, through: UdxEndpoint | None = None
    ) -> None:
        """Move to another address; return when nothing is under way to the old one any more.

        Raises: RuntimeError when it is not connected, ValueError as `connect`,
        trio.BrokenResourceError when it ends.
        Cancel: the remote is changed, only the waiting is given up.
        """
        endpoint = self._choose_endpoint(through)
        path = endpoint.create_path(remote_id, address)
        outputs = self._machine.change_remote(path, trio.current_time())
        self._endpoint = endpoint
        if self._changed.is_set():  # else somebody waits for an earlier change, too
            self._changed = trio.Event()
        self.carry_out(outputs)
        await self._changed.wait()
        if self._machine.state is not State.CONNECTED:
            raise trio.BrokenResourceError(self._describe())

    async def wait_contact(self) -> tuple[UdxEndpoint, Address]:
        """Where the first packet came from, and to which of our sockets.

        Cancel: nothing is lost.
        """
        return await self._first_contact.wait()

    async def wait_over(self) -> None:
        """Return when nothing is sent any more, whichever end closed it.

        Cancel: nothing changes.
        """
        await self._over.wait()

    async def wait_contact_beyond(self, known: Address) -> tuple[UdxEndpoint, Address]:
        """Where the next packet that is not from `known` came from, and to which socket.

        Nobody proved that it is the remote's: a stranger that knows this stream's id can send one.

        Cancel: nothing changes.
        """
        lookout = _Lookout(known)
        self._lookouts.append(lookout)
        try:
            return await lookout.wait()
        finally:
            if lookout in self._lookouts:
                self._lookouts.remove(lookout)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; return when the stream has taken them.

        Raises: trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError.
        Cancel: what was not taken is not sent.
        """
        self._verify_open()
        if self._is_send_ended:
            raise trio.ClosedResourceError("this half of the stream was ended")
        with self._sole_sender:
            await trio.lowlevel.checkpoint()
            view = memoryview(data if isinstance(data, bytes) else bytes(data))
            for start in range(0, len(view), PIECE_BYTES):
                await self._wait_room()
                piece = view[start : start + PIECE_BYTES]
                self.carry_out(self._machine.send(piece, trio.current_time()))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room.

        Raises: as `send_all`. Cancel: nothing changes.
        """
        with self._sole_sender:
            await trio.lowlevel.checkpoint()
            await self._wait_room()

    async def send_eof(self) -> None:
        """End our half; the remote reads all that was sent, and then an end.

        Raises: trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError.
        Cancel: ended all the same.
        """
        with self._sole_sender:
            if not self._is_send_ended:
                self._verify_open()
                self._end_sending()
            await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they have arrived; empty when the remote has ended.

        Raises: trio.BusyResourceError, trio.ClosedResourceError, and trio.BrokenResourceError
        when the remote reset the stream or answers no more, unless its end had arrived before.
        Cancel: nothing is lost.
        """
        limit = PIECE_BYTES if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError(f"{limit} is less than one byte")
        await trio.lowlevel.checkpoint()
        while True:
            if self._ownership is not _Ownership.HELD:
                raise trio.ClosedResourceError("this stream was closed here")
            data = self._machine.read(limit)
            if data:
                self.carry_out(self._machine.update_window())
                return data
            if self._machine.has_read_all:
                return b""
            if self._reason is not None:
                raise trio.BrokenResourceError(self._describe())
            await self._readable.wait()

    def send_message(self, data: bytes) -> None:
        """Send bytes that may be lost, doubled or overtaken.

        Raises: ValueError above `max_message_bytes`, trio.ClosedResourceError,
        trio.BrokenResourceError.
        """
        self._verify_open()
        self.carry_out(self._machine.send_message(data))

    async def receive_message(self) -> bytes:
        """The next message that arrived, of at most MAX_WAITING_MESSAGES.

        Raises: trio.BusyResourceError, trio.ClosedResourceError, trio.BrokenResourceError.
        Cancel: nothing is lost.
        """
        await trio.lowlevel.checkpoint()
        while not self._messages:
            self._verify_open()
            await self._message_arrival.wait()
        return self._messages.popleft()

    async def aclose(self) -> None:
        """Hang up.

        What was sent before is still delivered, as with TCP, while the endpoint is open and for
        at most FAREWELL_SECONDS. A remote that goes on sending after it has all that is reset.

        Cancel: hangs up all the same.
        """
        if self._ownership is _Ownership.HELD:
            self._ownership = _Ownership.LEFT
            if self._machine.state is State.CONNECTED:
                self._discard()
                self._end_sending()
                self._endpoint.bury(self, trio.current_time() + FAREWELL_SECONDS)
            else:
                self.destroy()
            self._wake()
        await trio.lowlevel.checkpoint()

    def destroy(self) -> None:
        """Close at once; what is under way is lost. The remote learns it if our packet arrives."""
        if self._ownership is _Ownership.HELD:
            self._ownership = _Ownership.LEFT
        self.carry_out(self._machine.destroy(trio.current_time()))

    def carry_out(self, outputs: list[Output]) -> None:
        """Do what the machine wants; for the endpoint."""
        for output in outputs:
            match output:
                case Transmit(path, datagrams):
                    self._endpoint.transmit(path, datagrams)
                case Readable() if self._ownership is _Ownership.LEFT:
                    self._discard()
                case Readable():
                    self._readable.set()
                case Writable():
                    self._writable.set()
                case MessageReceived(data):
                    self._take_message(data)
                case RemoteChanged():
                    self._changed.set()
                case Closed(reason):
                    self._reason = reason
                    self._over.set()
                    self._wake()
                    self._changed.set()
                    self._endpoint.note_closed(self)
                case Gone():
                    self._endpoint.forget(self)
                case _:
                    assert_never(output)
        if self._has_discarded and self._reason is None and self._machine.has_sent_all:
            # As with TCP, a remote that sends to an end that hung up is told; but not before it has
            # our bytes.
            self.destroy()
        self._endpoint.schedule(self)

    # For the endpoint.

    @property
    def endpoint(self) -> UdxEndpoint:
        """The endpoint that looks after this stream's timers, and that it sends through."""
        return self._endpoint

    @property
    def machine(self) -> UdxStream:
        return self._machine

    @property
    def is_left(self) -> bool:
        """Whether the user has closed it, and it still has something to deliver."""
        return self._ownership is _Ownership.LEFT and self._reason is None

    def admit(self, endpoint: UdxEndpoint, source: Address) -> bool:
        """Whether it takes a packet that came to this endpoint from `source`."""
        if self._lookouts:
            self._note_contact(endpoint, source)
        return self._is_contactable or self._machine.state is not State.IDLE

    def _verify_alive(self) -> None:
        if self._ownership is not _Ownership.HELD:
            raise trio.ClosedResourceError("this stream was closed here")
        if self._reason is not None:
            raise trio.BrokenResourceError(self._describe())

    def _verify_open(self) -> None:
        self._verify_alive()
        if self._machine.state is State.IDLE:
            raise RuntimeError(f"stream {self.local_id} is not connected")

    def _note_contact(self, endpoint: UdxEndpoint, source: Address) -> None:
        if not source[1]:
            return  # nothing can be sent to port 0, so there is nobody to connect to
        for lookout in [each for each in self._lookouts if each.known != source]:
            self._lookouts.remove(lookout)
            lookout.contact = (endpoint, source)
            lookout.seen.set()

    def _choose_endpoint(self, through: UdxEndpoint | None) -> UdxEndpoint:
        if through is None:
            return self._endpoint
        if not through.shares_with(self._endpoint):
            raise ValueError("that endpoint does not share its streams with this one's")
        return through

    async def _wait_room(self) -> None:
        self._verify_open()
        while not self._machine.is_writable:
            await self._writable.wait()
            self._verify_open()

    def _describe(self) -> str:
        remote = self.remote_address or "the remote"
        match self._reason:
            case CloseReason.RESET:
                return f"{remote} reset the stream"
            case CloseReason.TIMED_OUT:
                return f"{remote} answers no more"
            case CloseReason.DESTROYED | CloseReason.ENDED | None:
                return f"the stream with {remote} is over"
            case _:
                assert_never(self._reason)

    def _end_sending(self) -> None:
        if not self._is_send_ended:
            self._is_send_ended = True
            self.carry_out(self._machine.send_end(trio.current_time()))

    def _discard(self) -> None:
        """Make room for what nobody will read, so that the remote's end can arrive."""
        while self._machine.read(PIECE_BYTES):
            self._has_discarded = True

    def _take_message(self, data: bytes) -> None:
        if len(self._messages) < MAX_WAITING_MESSAGES and self._ownership is _Ownership.HELD:
            self._messages.append(data)
            self._message_arrival.set()

    def _wake(self) -> None:
        """Have all that wait see that it is over."""
        self._readable.set()
        self._writable.set()
        self._message_arrival.set()
