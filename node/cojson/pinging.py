"""[trio] Tells all clients now and then that the connection lives.

Clients drop a connection after 10 s without a message, and believe in it after the first. One
task does it for all of them: a timer for each client made a thousand silent ones cost a tenth of
a processor.

Source: cojson-transport-ws 0.20.19, jazz-run startSyncServer.ts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio

from node.cojson.messages import encode_ping

PING_SECONDS = 1.5

PLACE = "beemesh"

_TURN = 64
"""Clients after which other tasks run: a millisecond."""


class Pinged(Protocol):
    """A connection that carries text frames."""

    def send_soon(self, text: str) -> None:
        """Send one text frame without waiting; harmless when the client has gone."""
        ...


class Pinger:
    """`run` it beside the clients."""

    def __init__(self) -> None:
        self._sockets: dict[Pinged, None] = {}

    @contextmanager
    def pinging(self, socket: Pinged) -> Iterator[None]:
        """Ping a client at once, and while the block lasts."""
        socket.send_soon(_ping())
        self._sockets[socket] = None
        try:
            yield
        finally:
            del self._sockets[socket]

    async def run(self) -> None:
        """Ping everybody, until cancelled."""
        while True:
            await trio.sleep(PING_SECONDS)
            sockets = list(self._sockets)
            for start in range(0, len(sockets), _TURN):
                ping = _ping()  # some clients read the clock from it
                for socket in sockets[start : start + _TURN]:
                    if socket in self._sockets:
                        socket.send_soon(ping)
                await trio.lowlevel.checkpoint()


def _ping() -> str:
    return encode_ping(time.time_ns() // 1_000_000, PLACE)
