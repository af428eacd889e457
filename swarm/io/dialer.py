"""Dialing the peers that the book names, in the way that it names."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from hypercore.crypto import Entropy, KeyPair, encode_id
from swarm.errors import HandshakeFailed, PeerUnreachable, SwarmError
from swarm.io.connection import Connection, open_connection
from swarm.io.hyperdht import HyperDht
from swarm.io.sessions import Changes, Sessions
from swarm.io.tcp import dial, remote_address
from swarm.known_peer import Source
from swarm.peer_book import Dial, PeerBook
from swarm.reach import Reach, Route

MAX_DIALS = 32
"""Dials under way at once, unless set otherwise: nodes that do not answer take seconds
each, and hold up nobody else."""

_log = logging.getLogger("beemesh.swarm")


class Dialer:
    """Keeps as many dials under way as there is room for; `run` does it."""

    def __init__(
        self,
        key_pair: KeyPair,
        book: PeerBook,
        sessions: Sessions,
        changes: Changes,
        hyperdht: HyperDht | None,
        relays: Sequence[bytes],
        max_dials: int,
        entropy: Entropy,
    ) -> None:
        self._key_pair = key_pair
        self._book = book
        self._sessions = sessions
        self._changes = changes
        self._hyperdht = hyperdht
        self._relays = relays
        self._max_dials = max_dials
        self._entropy = entropy
        self._dialing: set[trio.CancelScope] = set()

    async def run(self) -> None:
        """Start dials when they are due, and end them when suspended; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                sessions = self._sessions
                dialing = len(self._dialing)
                room = min(
                    self._max_dials - dialing, sessions.max_connections - len(sessions) - dialing
                )
                if sessions.is_suspended:
                    room = 0
                    for scope in self._dialing:
                        scope.cancel()
                for planned in self._book.plan_dials(trio.current_time(), max(room, 0)):
                    scope = trio.CancelScope()
                    self._dialing.add(scope)
                    nursery.start_soon(self._dial, planned, scope)
                # Without room the end of a dial or of a connection is what wakes us.
                deadline = self._book.deadline if room > 0 else None
                with trio.move_on_at(math.inf if deadline is None else deadline):
                    await self._changes.wait_for_dialer()

    async def _dial(self, planned: Dial, scope: trio.CancelScope) -> None:
        """Connect to one peer, unless `scope` is cancelled, and serve the connection to its end."""
        self._sessions.counters.dials += 1
        try:
            with scope:
                async with self._connect(planned) as connection:
                    self._dialing.discard(scope)
                    await self._serve(planned, connection)
            if scope.cancelled_caught:
                self._book.dial_given_up(planned.name, trio.current_time())
        except (SwarmError, trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            _log.debug("dialing %s failed: %s", planned.name, error)
            self._sessions.counters.dials_failed += 1
            self._book.dial_failed(
                planned.name,
                str(error),
                trio.current_time(),
                is_refused=isinstance(error, PeerUnreachable) and error.is_refused,
                is_answered=isinstance(error, HandshakeFailed),
            )
        finally:
            self._dialing.discard(scope)
            self._changes.note()

    async def _serve(self, planned: Dial, connection: Connection) -> None:
        key = connection.link.remote_public_key
        if planned.expected_key not in (None, key):
            raise HandshakeFailed(f"{planned.name} has another key: {encode_id(key)}")
        if key == self._key_pair.public_key:
            self._book.found_ourselves(planned.name, trio.current_time())
            return
        self._book.dial_succeeded(planned.name, key)
        await self._sessions.admit(connection, planned.source)

    @asynccontextmanager
    async def _connect(self, planned: Dial) -> AsyncIterator[Connection]:
        """By way of the table, over a WebSocket, or over TCP."""
        if planned.source is Source.DHT:
            if self._hyperdht is None or planned.expected_key is None:
                raise PeerUnreachable(planned.name, 0)
            async with self._hyperdht.connect(
                planned.expected_key,
                self._key_pair,
                relay_addresses=planned.addresses,
                relay_through=choose_relay(self._relays, self._entropy),
            ) as connection:
                yield connection
            return
        stream, route = await _open_stream(planned)
        async with open_connection(
            stream, self._key_pair, is_initiator=True, route=route
        ) as connection:
            yield connection


async def _open_stream(planned: Dial) -> tuple[trio.abc.Stream, Route]:
    if planned.url is not None:
        from swarm.io.websocket import WebSocketAddress, dial_websocket  # of use to few

        websocket = await dial_websocket(WebSocketAddress.parse(planned.url))
        return websocket, Route(Reach.WEBSOCKET, planned.url)
    stream = await dial(planned.addresses)
    reach = Reach.LAN if planned.source is Source.LAN else Reach.TCP
    return stream, Route(reach, remote_address(stream))


def choose_relay(relays: Sequence[bytes], entropy: Entropy) -> bytes | None:
    """One at random, so that they share the work."""
    return relays[int.from_bytes(entropy(4), "little") % len(relays)] if relays else None
