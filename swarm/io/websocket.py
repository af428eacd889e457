"""A stream of bytes over a WebSocket, for networks that let web pages through and nothing else.

Bytes travel in binary frames, whose borders mean nothing. Where a node listens for TCP it takes
WebSockets, too: a client that begins with `G` asks for an upgrade, a peer begins with the length of
its first frame. So a reverse proxy can hand a path of a web server on to the port of a node, and do
the TLS.

    ws://host:port/path      wss://host/path

The path is the proxy's business; a node takes any.
"""

from __future__ import annotations

import logging
import operator
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, InvalidURI
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from swarm.errors import PeerUnreachable
from swarm.io.tasks import SoleSender
from swarm.io.tcp import CONNECT_SECONDS, open_stream

FRAME_BYTES = 2**16
"""What one frame of ours holds at most; proxies buffer whole frames."""

MAX_FRAME_BYTES = 2**20
RECEIVE_BYTES = 2**16
MAX_URL_CHARACTERS = 2048
MAX_UNANSWERED_PINGS = 64
"""Of a remote that does not take our answers, before nothing more is read of it."""

MAX_IDLE_FRAMES = 1024
"""In a row that bring no bytes: a peer sends none, and a proxy a ping now and then."""

PIECE_BYTES = 2**12
"""What is parsed at once: a frame has 2.5 µs, and may have 6 bytes. Others go on in between."""

CLOSE_SECONDS = 1.0

_MANY_FRAMES = 64  # of one piece, after which others have their turn

_silent = logging.getLogger("beemesh.websockets")
_silent.setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class WebSocketAddress:
    """Where a node is reached over a WebSocket."""

    url: str
    host: str
    port: int
    is_secure: bool

    @classmethod
    def parse(cls, text: str) -> WebSocketAddress:
        """Raises: ValueError for what is not a `ws://` or `wss://` URL."""
        parts = urlsplit(text)
        if parts.scheme not in ("ws", "wss") or len(text) > MAX_URL_CHARACTERS:
            raise ValueError(f"{text!r} is not a ws:// or wss:// URL")
        if parts.username is not None or parts.fragment:
            raise ValueError(f"{text!r} holds more than a host, a port and a path")
        try:
            parsed = parse_uri(text)
        except (InvalidURI, ValueError) as error:
            raise ValueError(f"{text!r} is not a ws:// or wss:// URL") from error
        return cls(text, parsed.host, parsed.port, parsed.secure)

    def __str__(self) -> str:
        return self.url


class WebSocketStream(trio.abc.Stream):
    """Bytes over an open WebSocket; takes over the stream below."""

    def __init__(self, stream: trio.abc.Stream, protocol: ClientProtocol | ServerProtocol) -> None:
        self._stream = stream
        self._protocol = protocol
        self._received = bytearray()
        self._has_ended = False
        self._is_closed = False
        self._write_lock = trio.Lock()
        self._sole_sender = SoleSender()
        self._unanswered_pings = 0
        self._idle_frames = 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises: trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError.

        Cancel: part of it may be on the wire.
        """
        with self._sole_sender:
            self._verify_open()
            view = memoryview(data)
            await trio.lowlevel.checkpoint()
            for start in range(0, len(view), FRAME_BYTES):
                try:
                    self._protocol.send_binary(bytes(view[start : start + FRAME_BYTES]))
                except InvalidState:
                    raise trio.BrokenResourceError("the WebSocket is closed") from None
                await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room.

        Raises: as `send_all`. Cancel: nothing changes.
        """
        with self._sole_sender:
            self._verify_open()
            async with self._write_lock:
                await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they have arrived; empty when the remote has closed.

        Raises: trio.BrokenResourceError, trio.ClosedResourceError. Cancel: nothing is lost.
        """
        limit = RECEIVE_BYTES if max_bytes is None else operator.index(max_bytes)
        if limit < 1:
            raise ValueError(f"{limit} is less than one byte")
        await trio.lowlevel.checkpoint()
        self._verify_open()
        while not self._received:
            if self._has_ended:
                return b""
            await self._read()
        data = bytes(self._received[:limit])
        del self._received[:limit]
        return data

    async def aclose(self) -> None:
        """Say goodbye, for at most CLOSE_SECONDS. Cancel: closes at once."""
        self._is_closed = True
        try:
            if self._protocol.state is State.OPEN:
                with trio.move_on_after(CLOSE_SECONDS):
                    self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
                    await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it is gone already
        finally:
            await trio.aclose_forcefully(self._stream)

    def _verify_open(self) -> None:
        if self._is_closed:
            raise trio.ClosedResourceError("this stream was closed here")

    async def shake_hands(self) -> None:
        """Ask for the upgrade, or grant it.

        Raises: trio.BrokenResourceError when the other end does neither.
        """
        protocol = self._protocol
        if isinstance(protocol, ClientProtocol):
            protocol.send_request(protocol.connect())
        await self._flush()
        while protocol.state is State.CONNECTING and not (self._has_ended or protocol.eof_sent):
            await self._read()
        if protocol.state is not State.OPEN:
            raise trio.BrokenResourceError(f"no WebSocket: {protocol.handshake_exc or 'it ended'}")

    async def _read(self) -> None:
        """Take what one read brings; answers to pings leave at once, or with what is being sent."""
        data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
        if not data:
            self._protocol.receive_eof()
            self._has_ended = True
        for start in range(0, len(data), PIECE_BYTES):
            self._protocol.receive_data(data[start : start + PIECE_BYTES])
            if self._take_events() > _MANY_FRAMES:
                await trio.lowlevel.cancel_shielded_checkpoint()  # the rest would be lost
            if self._has_ended:
                break
        if self._protocol.close_expected():
            self._has_ended = True
        if not self._write_lock.locked() or self._unanswered_pings > MAX_UNANSWERED_PINGS:
            try:
                await self._flush()
            except trio.BrokenResourceError:  # it did not wait for our goodbye
                self._has_ended = True

    def _take_events(self) -> int:
        """Take what was parsed; return how many frames that were."""
        events = self._protocol.events_received()
        for event in events:
            self._idle_frames += 1
            match event:
                case Request() if isinstance(self._protocol, ServerProtocol):
                    if not self._protocol.eof_sent:  # else it was not HTTP to begin with
                        self._protocol.send_response(self._protocol.accept(event))
                case Frame(opcode=Opcode.BINARY | Opcode.CONT):
                    self._received += event.data
                    if event.data:
                        self._idle_frames = 0
                case Frame(opcode=Opcode.TEXT | Opcode.CLOSE):
                    self._has_ended = True  # a peer sends no text
                case Frame(opcode=Opcode.PING):
                    self._unanswered_pings += 1
                case Frame() | Response():
                    pass
        self._has_ended |= self._idle_frames > MAX_IDLE_FRAMES
        return len(events)

    async def _flush(self) -> None:
        async with self._write_lock:
            while chunks := [chunk for chunk in self._protocol.data_to_send() if chunk]:
                self._unanswered_pings = 0
                await self._stream.send_all(b"".join(chunks))


async def accept_websocket(stream: trio.abc.Stream) -> WebSocketStream:
    """Grant an upgrade that a client asks for, whatever the path.

    Raises: trio.BrokenResourceError when it asks for none.
    Cancel: the stream is useless; close it.
    """
    protocol = ServerProtocol(max_size=MAX_FRAME_BYTES, logger=_silent)
    websocket = WebSocketStream(stream, protocol)
    await websocket.shake_hands()
    return websocket


async def dial_websocket(
    address: WebSocketAddress, *, context: ssl.SSLContext | None = None
) -> WebSocketStream:
    """Connect to a node over a WebSocket. `context` is for `wss`, the system's if not given.

    Raises: PeerUnreachable, caused by the failure.
    Cancel: nothing stays open.
    """
    stream: trio.abc.Stream | None = None
    try:
        with trio.fail_after(2 * CONNECT_SECONDS):
            stream = tcp = await open_stream(address.host, address.port)
            if address.is_secure:
                stream = trio.SSLStream(
                    tcp,
                    context or ssl.create_default_context(),
                    server_hostname=address.host,
                    https_compatible=True,
                )
            protocol = ClientProtocol(
                parse_uri(address.url), max_size=MAX_FRAME_BYTES, logger=_silent
            )
            websocket = WebSocketStream(stream, protocol)
            await websocket.shake_hands()
            return websocket
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise PeerUnreachable(address.url, 1) from error
    except BaseException:
        if stream is not None:
            await trio.aclose_forcefully(stream)
        raise
