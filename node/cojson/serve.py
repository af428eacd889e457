"""One Jazz client over a socket, until it goes.

Two tasks: one reads frames and never waits to write, one sends. A frame holds as many lines as
fit FRAME_CHARACTERS; control messages go first.

Source: cojson-transport-ws 0.20.19, jazz-run startSyncServer.ts.
"""

from __future__ import annotations

import time
from typing import Protocol

import structlog
import trio

from node.cojson.client_link import ClientLink
from node.cojson.host import SyncHost
from node.cojson.messages import MAX_FRAME_BYTES, decode_frame, encode_ping

FRAME_CHARACTERS = 25_000
"""Lines are joined up to about this; JavaScript's batches are as large."""

PING_SECONDS = 1.5
"""Clients drop a connection after 10 s without a message, and believe in it after the first."""

MAX_BAD_LINES = 1000
"""Lines of one client that are no messages, after which it is sent away."""

PLACE = "beemesh"

_log = structlog.get_logger(__name__)


class ClientSocket(Protocol):
    """A connection that carries text frames."""

    @property
    def remote(self) -> str:
        """Who is there, for logs."""
        ...

    async def receive(self) -> str | None:
        """The next text frame; None when the client has gone."""
        ...

    async def send(self, text: str) -> None:
        """Send one text frame; waits while the client is slow.

        Raises: trio.BrokenResourceError when the client has gone.
        """
        ...


async def serve_client(host: SyncHost, socket: ClientSocket) -> None:
    """Serve one client until it goes or breaks a limit.

    Cancel: the client is forgotten; what it sent and was accepted is stored.
    """
    with host.client(socket.remote) as link:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_write, link, socket, nursery.cancel_scope)
                await _read(host, link, socket)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it went: that is how every client ends
        if link.end_reason is not None:
            _log.warning("client sent away", remote=socket.remote, reason=link.end_reason)


async def _read(host: SyncHost, link: ClientLink, socket: ClientSocket) -> None:
    bad_lines = 0
    while link.end_reason is None:
        text = await socket.receive()
        if text is None:
            return
        if len(text) > MAX_FRAME_BYTES:
            link.outbox.end(f"a frame of {len(text)} characters")
            return
        frame = decode_frame(text)
        bad_lines += len(frame.errors)
        host.count_bad_lines(len(frame.errors))
        for error in frame.errors[:1]:
            _log.info("bad line", remote=socket.remote, error=str(error))
        if bad_lines > MAX_BAD_LINES:
            link.outbox.end(f"more than {MAX_BAD_LINES} lines that are no messages")
            return
        await link.receive(frame.messages)


async def _write(link: ClientLink, socket: ClientSocket, scope: trio.CancelScope) -> None:
    """Send what there is to send, and a ping when one is due."""
    ping_at = trio.current_time()
    while link.end_reason is None:
        if trio.current_time() >= ping_at:
            ping_at = trio.current_time() + PING_SECONDS
            await socket.send(encode_ping(time.time_ns() // 1_000_000, PLACE))
        lines = await link.next_lines(FRAME_CHARACTERS)
        if lines:
            await socket.send("\n".join(lines))
        else:
            with trio.move_on_at(ping_at):
                await link.outbox.wake.wait()
    scope.cancel()
