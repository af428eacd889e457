"""One Jazz client over a socket, until it goes.

Two tasks: one reads frames and never waits to write, one sends. A frame holds as many lines as
fit FRAME_CHARACTERS; control messages go first.

Source: cojson-transport-ws 0.20.19, jazz-run startSyncServer.ts.
"""

from __future__ import annotations

from typing import Protocol

import structlog
import trio

from hypercore.encoding import DecodeError
from node.cojson.client_link import TURN, ClientLink
from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Origin
from node.cojson.host import SyncHost
from node.cojson.messages import MAX_FRAME_BYTES, Message, read_frame
from node.cojson.pinging import Pinged

FRAME_CHARACTERS = 25_000
"""Lines are joined up to about this; JavaScript's batches are as large."""

MAX_BAD_LINES = 1000
"""Lines of one client that are not messages, after which it is sent away."""

MAX_LOGGED_BAD_LINES = 10
"""Per client; all are counted."""

MAX_FRAME_LINES = 100_000
"""Those of one frame. JavaScript's largest batch is 25,000 lines."""

QUIET_SECONDS = 5.0
"""After so long without sending what it claims to have, a client may be asked for it."""

QUIET_BYTES = 16 * 1024
"""A client that sends less in that time is not in the midst of an upload."""

_log = structlog.get_logger(__name__)


class ClientSocket(Pinged, Protocol):
    """A connection that carries text frames."""

    @property
    def remote(self) -> str:
        """What to call the client in logs."""
        ...

    @property
    def bytes_received(self) -> int:
        """So far; those of a frame that is still arriving, too."""
        ...

    async def receive(self) -> str | None:
        """The next text frame, or several, line feeds between them; None: the client has gone."""
        ...

    async def wait_gone(self) -> None:
        """Return when what is sent, pings too, no longer arrives. Cancel: nothing is changed."""
        ...

    async def send(self, text: str) -> None:
        """Send one text frame; waits while the client is slow.

        Raises: trio.BrokenResourceError when the client has gone.
        """
        ...


async def serve_client(
    host: SyncHost, socket: ClientSocket, origin: Origin = UNKNOWN_ORIGIN
) -> None:
    """Serve one client until it goes or breaks a limit.

    Cancel: the client is forgotten; what it sent and was accepted is stored.
    """
    with host.client(socket.remote, origin) as link, host.pinger.pinging(socket):
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, link, socket, nursery.cancel_scope)
                await _Reader(host, link, socket, origin).run()
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went: that is how every client ends
        if link.end_reason is not None:
            _log.warning("client sent away", remote=socket.remote, reason=link.end_reason)


class _Reader:
    """Takes a client's frames, line by line, as fast as it may."""

    def __init__(
        self, host: SyncHost, link: ClientLink, socket: ClientSocket, origin: Origin
    ) -> None:
        self._host = host
        self._link = link
        self._socket = socket
        self._origin = origin
        self._bad_lines = 0
        self._listened_seconds = 0.0
        self._heard_bytes = 0
        """Bytes received before the listening that `_listened_seconds` counts."""

    async def run(self) -> None:
        """Read until the client goes or is to go."""
        await self._keep_pace(0, 0)
        while self._link.end_reason is None:
            taken = await self._take_frame()
            if taken is None:
                return
            await self._keep_pace(*taken)

    async def _take_frame(self) -> tuple[int, int] | None:
        """Take one and let go of its text; its characters and lines, None if there is none."""
        text = await self._listen()
        if text is None:
            return None
        if len(text) > MAX_FRAME_BYTES:
            self._link.outbox.end(f"a frame of {len(text)} characters is too large")
            return None
        return len(text), await self._take(text)

    async def _listen(self) -> str | None:
        """The next frame. While the client has claims, report each `while` of listening to it."""
        while self._link.has_claims:
            if not self._listened_seconds:
                self._heard_bytes = self._socket.bytes_received
            text, started = None, trio.current_time()
            with trio.move_on_after(QUIET_SECONDS - self._listened_seconds) as scope:
                text = await self._socket.receive()
            # Time in which we did not read does not count.
            self._listened_seconds += trio.current_time() - started
            if scope.cancelled_caught or self._listened_seconds >= QUIET_SECONDS:
                self._listened_seconds = 0.0
                heard = self._socket.bytes_received - self._heard_bytes
                await self._link.listened(is_quiet=heard <= QUIET_BYTES)
            if not scope.cancelled_caught:
                return text
        return await self._socket.receive()

    async def _take(self, text: str) -> int:
        """Handle the lines of one frame, a turn at a time; how many there were."""
        messages: list[Message] = []
        lines = 0
        for item in read_frame(text):
            lines += 1
            if isinstance(item, DecodeError):
                self._note_bad_line(item)
            elif item is not None:
                messages.append(item)
            if lines > MAX_FRAME_LINES:
                self._link.outbox.end(f"more than {MAX_FRAME_LINES} lines in a frame")
            if self._link.end_reason is not None:
                break
            if len(messages) >= self._host.messages_together:
                await self._link.receive(messages)
                messages = []
            if lines % TURN == 0:
                await trio.lowlevel.checkpoint()
        await self._link.receive(messages)
        return lines

    def _note_bad_line(self, error: DecodeError) -> None:
        self._bad_lines += 1
        self._host.count_bad_lines(1)
        if self._bad_lines <= MAX_LOGGED_BAD_LINES:
            _log.info("bad line", remote=self._socket.remote, error=str(error))
        if self._bad_lines > MAX_BAD_LINES:
            self._link.outbox.end(f"more than {MAX_BAD_LINES} lines that are not messages")

    async def _keep_pace(self, size: int, lines: int) -> None:
        """Slow the client down by not pulling its next frame."""
        pace = self._host.pace(self._origin, size, lines)
        if pace.end_reason is not None:
            self._link.outbox.end(pace.end_reason)
        elif pace.wait_seconds > 0:
            with trio.move_on_after(pace.wait_seconds):
                await self._socket.wait_gone()


async def _write(link: ClientLink, socket: ClientSocket, scope: trio.CancelScope) -> None:
    """Send what there is to send."""
    while link.end_reason is None:
        lines = await link.next_lines(FRAME_CHARACTERS)
        if lines:
            await socket.send("\n".join(lines))
        else:
            await link.outbox.wake.wait()
    scope.cancel()
