"""[trio] Streams of web clients, before and below WebSocket."""

from __future__ import annotations

import re
import socket

import trio

CLOSE_SECONDS = 2.0
"""How long the other end has to take what we said last, and to hang up."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: 21\r\nContent-Type: text/plain\r\n\r\ntoo many connections\n"
)

_HEAD_PROBE = re.compile(rb"HEAD /health(?:\?[^ \r\n]*)? HTTP/1\.[01]\r\n(?:[^\r\n]+\r\n)*\r\n")
_HEALTHY = (
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\n"
)


def answer_head(asked: bytes) -> bytes | None:
    """The answer to a `HEAD /health`, as monitors send it; None if this is another request.

    `websockets` knows only GET, so the monitor would take us for dead.
    """
    return _HEALTHY if _HEAD_PROBE.match(asked) else None


def keep_alive(stream: trio.SocketStream) -> None:
    """Find out within two minutes that a silent client's machine has vanished."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
        if (option := getattr(socket, name, None)) is not None:  # macOS names the first otherwise
            stream.setsockopt(socket.IPPROTO_TCP, option, value)


async def refuse(stream: trio.SocketStream) -> None:
    """Say that there are too many connections, and hang up.

    Cancel: it hangs up at once.
    """
    try:
        with trio.move_on_after(CLOSE_SECONDS):
            await stream.send_all(_BUSY)
            await stream.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)
