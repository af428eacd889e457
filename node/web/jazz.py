"""The WebSocket server that Jazz clients connect to.

`websockets` parses and builds frames, except short texts, which are read many at a time
(`text_frames.py`); trio moves the bytes. A connection has two tasks: the handler, which pulls
frames as it wants them (not pulling is how a busy node slows a client down), and a writer, which
sends everything that was queued since its last turn in one call.

Bounds, per connection unless said otherwise:

| what | bound | beyond it |
|---|---|---|
| one incoming message | `max_message_bytes`, 32 MiB | the socket closes: 1009 |
| half-received messages of all clients | `MAX_PARTIAL_BYTES`, 512 MiB | the socket closes: 1013 |
| outgoing bytes | `OUTBOX_BYTES`, 128 KiB, plus one message | `send` waits |
| pongs not yet taken by the network | `MAX_CONTROL_BYTES`, 16 KiB | the connection is dropped |
| time for the HTTP request | `handshake_seconds` | the connection is dropped |
| connections, in total and per address or IPv6 /64 | limits | 503; loopback has the total |

A door may ask for a token: without one the answer to an upgrade is 401. `/health` is open.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio
from websockets.exceptions import InvalidState
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from node.cojson.gatekeeper import Origin
from node.notation import format_address
from node.web.socket_outbox import SocketOutbox
from node.web.tcp import CLOSE_SECONDS, answer_head, keep_alive, refuse
from node.web.text_frames import TextFrames
from swarm.io.crowd import Crowd
from swarm.site import site_of

RECEIVE_BYTES = 64 * 1024
OUTBOX_BYTES = 128 * 1024  # JavaScript's sender queues above 100,000
MAX_CONTROL_BYTES = 16 * 1024
MAX_PARTIAL_BYTES = 512 * 2**20

_TURN_MESSAGES = 128  # hand over this many without yielding, about 1 ms of work for the handler
_UNAUTHORIZED = "a token is needed: connect to /?token=... or /?key=...\n"
_silent = logging.getLogger("beemesh.websockets")
"""For debugging `websockets` logs the paths that clients ask for, and those have tokens in them."""
_silent.setLevel(logging.ERROR)

Handler = Callable[["JazzSocket"], Awaitable[None]]
"""Serves one client until it returns; then the socket is closed."""


@dataclass(frozen=True, slots=True)
class JazzLimits:
    """What clients may cost; see the table above."""

    max_message_bytes: int = 32 * 2**20
    max_connections: int = 4096
    max_connections_per_address: int = 256
    handshake_seconds: float = 10.0
    deflate: bool = False


class Doorkeeper(Protocol):
    """Says who may connect; `node/access/door.py` does."""

    def admit(self, peer: str, path: str, forwarded_for: Sequence[str]) -> Origin | None:
        """A client at `peer` asks for this path; None when it may not come in."""
        ...

    def is_proxy(self, address: str) -> bool:
        """Whether others come in through this address."""
        ...


@dataclass(frozen=True, slots=True)
class JazzStatistics:
    """`connections` are open now; the rest counts from the start.

    `refused` were too many, `unauthorized` had no token.
    """

    connections: int
    accepted: int
    refused: int
    unauthorized: int
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


class JazzServer:
    """Accepts clients and gives each to the handler."""

    def __init__(
        self,
        handler: Handler,
        limits: JazzLimits | None = None,
        door: Doorkeeper | None = None,
    ) -> None:
        self.limits = limits or JazzLimits()
        self.door = door
        self.partial_bytes = 0
        self.messages_received = self.messages_sent = 0
        self.bytes_received = self.bytes_sent = 0
        self._handler = handler
        self._accepted = self._refused = self._unauthorized = 0
        self._connections: Counter[str] = Counter()
        self._newcomers = Crowd(max(1, self.limits.max_connections * 3 // 4))
        """Those whose request has not come yet: they leave room for who has something to ask."""

        self._forwarded: Counter[str] = Counter()
        """Connections that came through a proxy, by the site behind it."""
        self._admitted: set[JazzSocket] = set()

    def statistics(self) -> JazzStatistics:
        return JazzStatistics(
            connections=self._connections.total(),
            accepted=self._accepted,
            refused=self._refused,
            unauthorized=self._unauthorized,
            messages_received=self.messages_received,
            messages_sent=self.messages_sent,
            bytes_received=self.bytes_received,
            bytes_sent=self.bytes_sent,
        )

    def dismiss(self, is_unwelcome: Callable[[Origin], bool]) -> int:
        """Send away the clients of these origins, with 1008; returns how many there were."""
        unwelcome = [client for client in self._admitted if is_unwelcome(client.origin)]
        for client in unwelcome:
            client.dismiss()
        return len(unwelcome)

    def answer(self, request: Request, client: JazzSocket) -> Response:
        """The answer to an HTTP request: an upgrade, if the client may come in."""
        protocol = client.protocol
        if request.path.partition("?")[0] == "/health" and request.method == "GET":
            return protocol.reject(200, "ok")
        origin: Origin | None = Origin(client.host)
        if self.door is not None:
            forwarded_for = request.headers.get_all("X-Forwarded-For")
            origin = self.door.admit(client.host, request.path, forwarded_for)
        if origin is None:
            self._unauthorized += 1
            response = protocol.reject(401, _UNAUTHORIZED)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        if self._forwarded[site_of(origin.address)] >= self.limits.max_connections_per_address:
            self._refused += 1
            return protocol.reject(503, "too many connections\n")
        # From here on the client counts, so that `dismiss` finds it during the upgrade, too.
        client.come_from(origin)
        self._admitted.add(client)
        self._forwarded[site_of(origin.address)] += origin.address != client.host
        return protocol.accept(request)

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept clients until cancelled.

        Cancel: every client is told 1001 (going away), at most CLOSE_SECONDS long.
        """
        task_status.started()
        await trio.serve_listeners(self._serve_stream, list(listeners))

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        try:
            host, port = stream.socket.getpeername()[:2]
            keep_alive(stream)
        except OSError:  # gone before we looked
            await trio.aclose_forcefully(stream)
            return
        if not self._admits(host):
            self._refused += 1
            await refuse(stream)
            return
        site = site_of(host)
        self._connections[site] += 1
        client = JazzSocket(self, stream, host, port)
        try:
            await self._serve_client(client)
        finally:
            self._release(client)
            self._connections[site] -= 1
            if not self._connections[site]:
                del self._connections[site]
            await trio.aclose_forcefully(stream)

    async def _serve_client(self, client: JazzSocket) -> None:
        with (
            self._newcomers.place(client.host),
            trio.move_on_after(self.limits.handshake_seconds),
        ):
            await client.accept()
        if not client.is_open:
            return
        self._accepted += 1
        async with trio.open_nursery() as nursery:
            # Outlives a cancellation, to say goodbye; nothing is awaited before the `try`.
            writer_scope = trio.CancelScope(shield=True)
            nursery.start_soon(client.write, writer_scope)
            try:
                with client.scope:
                    await self._handler(client)
            except trio.BrokenResourceError:
                pass  # the client went while the handler was sending
            finally:
                is_cancelled = trio.current_effective_deadline() == -math.inf
                if client.scope.cancelled_caught:
                    client.close(CloseCode.POLICY_VIOLATION, "the token was withdrawn")
                client.close(CloseCode.GOING_AWAY if is_cancelled else CloseCode.NORMAL_CLOSURE)
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await client.wait_hung_up()
                writer_scope.cancel()

    def _release(self, client: JazzSocket) -> None:
        """Count a client no more, if it was admitted."""
        if client in self._admitted:
            self._admitted.remove(client)
            site = site_of(client.origin.address)
            self._forwarded[site] -= client.origin.address != client.host
            if not self._forwarded[site]:
                del self._forwarded[site]

    def _admits(self, host: str) -> bool:
        if self._connections.total() >= self.limits.max_connections:
            return False
        # Behind a reverse proxy all the world is loopback.
        is_local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        is_shared = is_local or (self.door is not None and self.door.is_proxy(host))
        return (
            is_shared or self._connections[site_of(host)] < self.limits.max_connections_per_address
        )


class JazzSocket:
    """One client: whole text messages in and out."""

    def __init__(self, server: JazzServer, stream: trio.SocketStream, host: str, port: int) -> None:
        self.host = host
        self.remote = format_address(host, port)
        """For logs: the address, behind a proxy the client's own, too, and the token's name."""
        self.origin = Origin(host)
        self.scope = trio.CancelScope()
        self.bytes_received = 0
        limits = server.limits
        self._server = server
        self._stream = stream
        self.protocol = ServerProtocol(
            extensions=[ServerPerMessageDeflateFactory()] if limits.deflate else None,
            max_size=limits.max_message_bytes,
            logger=_silent,
        )
        self._texts: TextFrames | None = None  # None while all frames are for `protocol`
        self._inbox: deque[str] = deque()
        self._handed_over = 0
        self._message = bytearray()  # of the message that is arriving in fragments
        self._message_opcode = Opcode.TEXT
        self._partial_bytes = 0
        self._has_ended = False  # no more messages will come
        self._has_hung_up = False  # no more bytes will come
        self._has_failed = False  # what still comes is not looked at
        self._outbox = SocketOutbox(stream)

    @property
    def is_open(self) -> bool:
        return self.protocol.state is State.OPEN

    def come_from(self, origin: Origin) -> None:
        """The door has said who this is."""
        self.origin = origin
        if origin.address != self.host:
            self.remote = f"{origin.address} by {self.remote}"
        if origin.token:
            self.remote = f"{self.remote} as {origin.token}"

    def dismiss(self) -> None:
        """End the handler; the client is told 1008."""
        self.scope.cancel()

    async def accept(self) -> None:
        """Answer the HTTP request: an upgrade opens the socket, `/health` says ok.

        Any path and any origin will do, as with the JavaScript server.

        Cancel: the connection is useless; close it.
        """
        asked = b""
        while self.protocol.state is State.CONNECTING and not self._has_ended:
            data, before = await self._receive_some(), asked[-3:]
            asked = before + data
            if not before and (answer := answer_head(data)) is not None:
                self._outbox.add(answer)
                break
            # Frames that came along wait for the socket to open: before, `protocol` fails on them.
            end = asked.find(b"\r\n\r\n") + 4 - len(before) if b"\r\n\r\n" in asked else len(data)
            for event in self._parse(data[:end]):
                if isinstance(event, Request):
                    self.protocol.send_response(self._server.answer(event, self))
            if self.is_open and data[end:]:
                for event in self._parse(data[end:]):
                    self._receive_frame(event)
            self._queue_writes()
            if self.protocol.eof_sent or self.is_open:
                break
        # `protocol` may have a part of a frame already, of a client that did not wait.
        has_waited = asked.find(b"\r\n\r\n") == len(asked) - 4
        if self.is_open and has_waited and not self.protocol.extensions:
            self._texts = TextFrames(self._server.limits.max_message_bytes)
        try:
            await self._outbox.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._has_ended = True

    async def receive(self) -> str | None:
        """The next text messages; None when the client has gone or broke the rules.

        Short ones that came together have a line feed between them. A binary frame counts as text
        if it is UTF-8, and is dropped otherwise.

        Cancel: nothing is lost; the next call goes on.
        """
        while not self._inbox:
            if self._has_ended:
                return None
            self._receive_data(await self._receive_some())
            self._queue_writes(are_control=True)
            self._handed_over = 0
        self._handed_over += 1
        if self._handed_over % _TURN_MESSAGES == 0:
            await trio.lowlevel.checkpoint()
        return self._inbox.popleft()

    async def send(self, text: str) -> None:
        """Queue a message, after waiting while OUTBOX_BYTES are not yet taken by the network.

        Returns without yielding when there is room.

        Raises: trio.BrokenResourceError when the client has gone.
        Cancel: nothing is sent.
        """
        await self._outbox.wait_room(OUTBOX_BYTES)
        data = text.encode()
        try:
            self.protocol.send_text(data)
        except InvalidState as error:
            raise trio.BrokenResourceError(f"{self.remote} has closed the socket") from error
        if self._outbox.has_ended:
            raise trio.BrokenResourceError(f"{self.remote} has gone")
        self._server.messages_sent += 1
        self._server.bytes_sent += len(data)
        self._queue_writes()

    def send_soon(self, text: str) -> None:
        """Send a short message without waiting; not if the client has gone or reads too slowly."""
        if not self.is_open or self._outbox.size >= OUTBOX_BYTES:
            return
        data = text.encode()
        self.protocol.send_text(data)
        self._server.messages_sent += 1
        self._server.bytes_sent += len(data)
        self._outbox.send_now(b"".join(self.protocol.data_to_send()))

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake; harmless when it has begun."""
        if self.is_open:
            self.protocol.send_close(code, reason)
            self._queue_writes()

    async def write(self, scope: trio.CancelScope) -> None:
        """The writer: carry the outbox to the network until the socket or the scope ends."""
        await self._outbox.write(scope, lambda: self.protocol.eof_sent)

    async def wait_gone(self) -> None:
        """Return when nothing can be sent any more.

        This is how it is noticed that a client has gone while nothing is read from it.

        Cancel: nothing is changed.
        """
        await self._outbox.wait_ended()

    async def wait_hung_up(self) -> None:
        """Let the last bytes out and wait for the other end to close.

        Closing with bytes unread would reset the connection, and the client might never see why.
        """
        while not self._has_hung_up:
            self._receive_data(await self._receive_some())
            self._inbox.clear()
            self._queue_writes(are_control=True)
        await self._outbox.wait_ended()

    async def _receive_some(self) -> bytes:
        """Read once; nothing when no more will come."""
        try:
            data = await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self.bytes_received += len(data)
        self._server.bytes_received += len(data)
        return bytes(data)

    def _receive_data(self, data: bytes) -> None:
        for segment in self._texts.split(data) if self._texts and data else [data]:
            if isinstance(segment, bytes):
                for event in self._parse(segment):
                    self._receive_frame(event)
            elif self.is_open and not self._has_failed:
                self._receive_texts(segment)

    def _parse(self, data: bytes) -> list[object]:
        """What arrived, as events; after a failure `protocol` discards all frames."""
        if data:
            self.protocol.receive_data(data)
            self._count_partial(self._partial_bytes + len(data))
        else:
            if not self._has_hung_up:
                self.protocol.receive_eof()
            self._has_ended = self._has_hung_up = True
            self._count_partial(0)
        return list(self.protocol.events_received())

    def _receive_texts(self, texts: Sequence[bytes]) -> None:
        """Take whole messages, joined into one if all are text."""
        try:
            self._inbox.append(b"\n".join(texts).decode())
        except UnicodeDecodeError:
            self._message_opcode = Opcode.TEXT
            for text in texts:
                if not self._has_failed:
                    self._receive_message(text)
        else:
            self._count_partial(0)
            self._server.messages_received += len(texts)

    def _receive_frame(self, frame: object) -> None:
        if not isinstance(frame, Frame) or self._has_failed:
            return
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY | Opcode.CONT:
                if frame.opcode is not Opcode.CONT:
                    self._message_opcode = frame.opcode
                if frame.fin and not self._message:
                    self._receive_message(bytes(frame.data))
                    return
                self._message += frame.data
                if frame.fin:
                    message, self._message = bytes(self._message), bytearray()
                    self._receive_message(message)
            case Opcode.CLOSE | Opcode.PING | Opcode.PONG:
                pass  # answered by the protocol object

    def _receive_message(self, message: bytes) -> None:
        self._count_partial(0)
        self._server.messages_received += 1
        try:
            self._inbox.append(message.decode())
        except UnicodeDecodeError:
            if self._message_opcode is Opcode.TEXT:
                self._fail(CloseCode.INVALID_DATA, "text frames are UTF-8")

    def _fail(self, code: int, reason: str) -> None:
        """End the connection for what the client did: nothing that comes after counts."""
        if not self._has_failed:
            self._has_failed = True
            self.protocol.fail(code, reason)

    def _count_partial(self, partial_bytes: int) -> None:
        self._server.partial_bytes += partial_bytes - self._partial_bytes
        self._partial_bytes = partial_bytes
        if self._server.partial_bytes > MAX_PARTIAL_BYTES:
            self._fail(CloseCode.TRY_AGAIN_LATER, "too many large messages at once")

    def _queue_writes(self, *, are_control: bool = False) -> None:
        """Move what the protocol object wants to send to the outbox."""
        for data in self.protocol.data_to_send():
            if data:  # b"" asks for the half-close that `write` does at the end
                self._outbox.add(data, is_control=are_control)
        if self._outbox.control_bytes > MAX_CONTROL_BYTES:
            self._fail(CloseCode.POLICY_VIOLATION, "many pings, and the pongs are not read")
        if self.protocol.eof_sent:
            self._has_ended = True
        self._outbox.wake()
