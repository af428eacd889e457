"""Where TCP comes in: peers that speak at once, and those that ask for a WebSocket first."""

from __future__ import annotations

import logging

import trio

from hypercore.crypto import KeyPair
from swarm.errors import SwarmError
from swarm.io.connection import open_connection
from swarm.io.crowd import Crowd
from swarm.io.sessions import Changes, Sessions
from swarm.io.tcp import remote_address, tune
from swarm.known_peer import Source
from swarm.reach import Reach, Route
from swarm.secret_stream import HANDSHAKE_SECONDS

MAX_UNPROVEN_CONNECTIONS = 128
"""Incoming connections that have not finished their handshake. As many nodes of a data center,
which may be one host for us, can start at the same moment and need not come again."""

_log = logging.getLogger("beemesh.swarm")


class Entrance:
    """Has newcomers prove their keys; those that do are admitted to the sessions."""

    def __init__(self, key_pair: KeyPair, sessions: Sessions, changes: Changes) -> None:
        self._key_pair = key_pair
        self._sessions = sessions
        self._changes = changes
        self._unproven = Crowd(MAX_UNPROVEN_CONNECTIONS)

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve an incoming connection to its end. Cancel: ends it."""
        if self._sessions.is_full or self._sessions.is_suspended:
            self._sessions.counters.refused += 1
            self._changes.note()
            await trio.aclose_forcefully(stream)
            return
        address = remote_address(stream)
        try:
            with self._unproven.place(address.rpartition(":")[0]) as place:
                tune(stream)
                opened, reach = await _open_inner(stream)
                async with open_connection(
                    opened, self._key_pair, is_initiator=False, route=Route(reach, address)
                ) as connection:
                    place.leave()
                    await self._sessions.admit(connection, Source.INCOMING)
            self._sessions.counters.refused += place.is_lost
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            _log.debug("connection from %s failed: %s", address, error)
        finally:
            self._changes.note()
            await trio.aclose_forcefully(stream)


async def _open_inner(stream: trio.SocketStream) -> tuple[trio.abc.Stream, Reach]:
    """The stream that has the peer's words.

    Raises: trio.BrokenResourceError when the peer says nothing.
    """
    with trio.move_on_after(HANDSHAKE_SECONDS):
        # A peer begins with the length of its first frame, 32, and HTTP with a letter.
        if not (await peek(stream)).isalpha():
            return stream, Reach.TCP
        from swarm.io.websocket import accept_websocket  # of use to few

        return await accept_websocket(stream), Reach.WEBSOCKET
    raise trio.BrokenResourceError(f"nothing was said in {HANDSHAKE_SECONDS} s")


async def peek(stream: trio.SocketStream) -> bytes:
    """The first byte, which stays unread; empty when there is none. Cancel: nothing is lost."""
    return await stream.socket.recv(1, trio.socket.MSG_PEEK)
