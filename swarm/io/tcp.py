"""TCP: listening, dialing, and the socket options that a long-lived connection wants."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import trio

from swarm.announcement import Address
from swarm.errors import PeerUnreachable

CONNECT_SECONDS = 4.0
"""Patience with one address. Linux knocks at 0, 1, 3 and 7 s: a new dial knocks before that."""

UNACKNOWLEDGED_SECONDS = 60
"""A remote that acknowledges nothing for that long is gone. The system's own patience is a
quarter of an hour, in which a peer that lost its network would look connected."""

_UNSENT_BYTES = 2**18  # kept in the kernel: more would delay control messages behind bulk

_OPTIONS = (
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_SECONDS * 1000),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", _UNSENT_BYTES),
)


MAX_REPETITIONS = 3
"""What was repeated so often in vain, for some 1.4 s, may be stuck: the system waits twice as long
each time, so after a cut it may take as long again as the cut lasted."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_RETRANSMITS_BYTE = 2  # of struct tcp_info: since anything was acknowledged; probes are not counted


def is_stuck(stream: trio.abc.Stream) -> bool:
    """Whether what was sent is repeated again and again, as far as this system tells."""
    if _TCP_INFO is None or not isinstance(stream, trio.SocketStream):
        return False
    try:
        info = stream.socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RETRANSMITS_BYTE + 1)
    except OSError:
        return False  # closed, or the system does not tell
    return info[_RETRANSMITS_BYTE] >= MAX_REPETITIONS


def tune(stream: trio.SocketStream) -> None:
    """Set what this system knows of the options above; trio has set TCP_NODELAY."""
    for level, name, value in _OPTIONS:
        option = getattr(socket, name, None)
        if option is not None:
            stream.setsockopt(level, option, value)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on every address of `host`; port 0 picks a free one.

    Raises: OSError when the port is taken. Cancel: nothing stays open.
    """
    return list(await trio.open_tcp_listeners(port, host=host))


async def open_stream(host: str, port: int) -> trio.SocketStream:
    """Connect to a host, and tune the stream.

    Raises: OSError, also for what cannot be the name of a host: others tell us of hosts.
    Cancel: nothing stays open.
    """
    try:
        stream = await trio.open_tcp_stream(host, port)
    except UnicodeError as error:  # it has an empty label, or one of more than 63 characters
        raise OSError(f"{host!r} is not the name of a host") from error
    tune(stream)
    return stream


async def dial(addresses: Sequence[Address]) -> trio.SocketStream:
    """Connect to the first of these addresses that answers.

    Raises: PeerUnreachable, caused by the last failure.
    Cancel: nothing stays open.
    """
    failure: Exception | None = None
    refusals = 0
    for host, port in addresses:
        try:
            with trio.fail_after(CONNECT_SECONDS):
                return await open_stream(host, port)
        except (OSError, trio.TooSlowError) as error:
            failure = error
            refusals += _is_refusal(error)
    names = ", ".join(f"{host}:{port}" for host, port in addresses)
    is_refused = refusals == len(addresses)
    raise PeerUnreachable(names, len(addresses), is_refused=is_refused) from failure


def _is_refusal(error: Exception) -> bool:
    """Whether every attempt was refused; trio tells them as the cause."""
    match error.__cause__:
        case ExceptionGroup(exceptions=causes):
            return all(isinstance(cause, ConnectionRefusedError) for cause in causes)
        case cause:
            return isinstance(cause, ConnectionRefusedError)


def format_address(address: Sequence[object]) -> str:
    """`host:port` of a socket address, with brackets around IPv6."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def remote_address(stream: trio.SocketStream) -> str:
    """Where the other end is, as `host:port`; empty when it is gone already."""
    try:
        return format_address(stream.socket.getpeername())
    except OSError:
        return ""
