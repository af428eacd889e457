"""[trio] Where a node listens, and what others can dial to get there."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from node.errors import ConfigError, reason_of
from node.notation import format_address
from node.settings import Endpoint
from node.verbs import ExitCode, VerbError

T = TypeVar("T")

_log = structlog.get_logger(__name__)


async def open_endpoint(
    option: str, endpoint: Endpoint, open_on: Callable[[str, int], Awaitable[T]]
) -> T:
    """Open with `open_on(host, port)`; a default that is taken moves to a free port.

    Raises: VerbError naming the option, when what was asked for cannot be had; ConfigError when no
    host can have such a name.
    """
    try:
        return await open_on(endpoint.host, endpoint.port)
    except UnicodeError as error:
        raise ConfigError(f"{option} {endpoint}: {endpoint.host!r} cannot be a host") from error
    except OSError as error:
        if endpoint.may_move and _errno(error) == errno.EADDRINUSE:
            # A warning, since others may know the port: a web server, or clients' settings.
            _log.warning("taken, so any free port is used", option=option, address=str(endpoint))
            return await open_on(endpoint.host, 0)
        advice = "choose another address, or port 0 for any free one"
        raise cannot_listen(f"{option} {endpoint}", error, advice) from error


def cannot_listen(where: str, error: OSError, advice: str) -> VerbError:
    """The error to raise when an address cannot be listened on."""
    is_taken = _errno(error) == errno.EADDRINUSE
    reason = "another program listens there" if is_taken else reason_of(error)
    return VerbError(ExitCode.FAILED, f"cannot listen on {where}: {reason}; {advice}")


async def open_tcp(host: str, port: int) -> list[trio.SocketListener]:
    """Raises: OSError."""
    return list(await trio.open_tcp_listeners(port, host=host))


def bound_port(listeners: list[trio.SocketListener]) -> int:
    return int(listeners[0].socket.getsockname()[1])


def dialable(host: str, port: int) -> list[str]:
    """HOST:PORT that others can dial, the best first; a wildcard stands for our addresses."""
    if not _is_wildcard(host):
        return [format_address(host, port)]
    families = (
        [(socket.AF_INET, "192.0.2.1")] if ":" not in host else []  # a test network: never sent to
    ) or [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")]
    found = [_source_address(family, probe) for family, probe in families]
    addresses = [address for address in found if address is not None]
    return [format_address(address, port) for address in addresses] or [
        format_address("127.0.0.1", port)
    ]


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _source_address(family: socket.AddressFamily, probe: str) -> str | None:
    """Which of our addresses the system would send from, to somewhere far; sends nothing."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((probe, 9))
            return str(datagrams.getsockname()[0])
    except OSError:
        return None


def _errno(error: OSError) -> int | None:
    """Trio wraps the failures of several addresses in one error without a number."""
    if error.errno is not None:
        return error.errno
    causes = (
        error.__cause__.exceptions
        if isinstance(error.__cause__, BaseExceptionGroup)
        else (error.__cause__,)
    )
    return next((cause.errno for cause in causes if isinstance(cause, OSError)), None)
