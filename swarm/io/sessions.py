"""The connections of one key: one for each remote, each with its handler running."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

import trio

from hypercore.crypto import encode_id
from hypercore.errors import RemoteProtocolError
from swarm.errors import SwarmError
from swarm.io.connection import Connection
from swarm.io.duplicates import Duplicates, Session
from swarm.io.swarm_report import ConnectionInfo, Counters, describe
from swarm.io.tasks import Wakeup
from swarm.known_peer import Source
from swarm.peer_book import PeerBook

Handler = Callable[[Connection], Awaitable[None]]
Firewall = Callable[[bytes], bool]
"""Whether a remote public key may connect."""

LOOK_SECONDS = 1.0
"""How often we look whether connections carry what is sent on them, and what they hold."""

MAX_PARTIAL_BYTES = 2**29
"""Of messages that have not come whole, on all connections. One alone may have a message of 16 MiB,
and over UDX as much that came out of order, for as long as it likes."""

_HANDOVER_SECONDS = 5.0  # for the handler of a replaced connection to clean up

_NETWORK_ERRORS = (
    SwarmError,
    RemoteProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    OSError,
)
_log = logging.getLogger("beemesh.swarm")


class Changes:
    """Wakes the dialer, and all that wait for a change."""

    def __init__(self) -> None:
        self._wake = Wakeup()
        self._changed = trio.Event()
        self._is_closed = False

    def note(self) -> None:
        self._wake.set()
        self._changed.set()
        self._changed = trio.Event()

    async def wait(self) -> None:
        """Return at the next change. Raises: ClosedResourceError when there will be none."""
        if not self._is_closed:
            await self._changed.wait()
        if self._is_closed:
            raise trio.ClosedResourceError

    def close(self) -> None:
        """There will be no more changes."""
        self._is_closed = True
        self._changed.set()

    async def wait_for_dialer(self) -> None:
        """Return at the next change that the dialer, which is one task, has not seen."""
        await self._wake.wait()


class Sessions:
    """Lets connections in, and runs the handler for each."""

    def __init__(
        self,
        own_key: bytes,
        handler: Handler,
        firewall: Firewall,
        max_connections: int,
        book: PeerBook,
        changes: Changes,
    ) -> None:
        self.counters = Counters()
        self.max_connections = max_connections
        self.is_suspended = False
        """Whether nobody is dialed, nor let in, for now."""
        self._own_key = own_key
        self._handler = handler
        self._firewall = firewall
        self._book = book
        self._changes = changes
        self._sessions: dict[bytes, Session] = {}
        self._duplicates = Duplicates(own_key)
        self._probing = Wakeup()

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def is_full(self) -> bool:
        return len(self._sessions) >= self.max_connections

    @property
    def connections(self) -> tuple[ConnectionInfo, ...]:
        return tuple(
            ConnectionInfo(
                remote_public_key=key,
                address=session.connection.remote_address,
                source=session.source,
                reach=session.connection.reach,
                is_initiator=session.connection.link.is_initiator,
                since_unix_ms=session.since_unix_ms,
                statistics=session.connection.statistics(),
            )
            for key, session in self._sessions.items()
        )

    def lets_in(self, public_key: bytes) -> bool:
        """Whether a key that knocks is to be answered at all."""
        is_welcome = self._is_welcome(public_key)
        if is_welcome and (public_key in self._sessions or not self.is_full):
            return True
        self.counters.refused += 1
        self._changes.note()
        return False

    def end(self, public_key: bytes) -> None:
        """End the connection with a key, if there is one."""
        session = self._sessions.get(public_key)
        if session is not None:
            session.scope.cancel()

    def end_all(self) -> None:
        for session in self._sessions.values():
            session.scope.cancel()

    def probe(self) -> None:
        """Send something on every connection: one that is dead is found out sooner."""
        self._probing.set()

    async def run(self) -> None:
        """Send what `probe` asks for, and look for what is stuck; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after)
            while True:
                await self._probing.wait()
                for session in self._sessions.values():
                    nursery.start_soon(_show_life, session.connection)

    async def _look_after(self) -> None:
        """One look for all connections."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            self._look_for_stuck()
            self._end_hoarders()

    def _look_for_stuck(self) -> None:
        """Tell the book of connections on which nothing gets through."""
        for key, session in self._sessions.items():
            match session.look():
                case True:
                    self._book.connection_doubted(key, trio.current_time())
                    self._changes.note()
                case False:
                    self._book.connection_trusted(key)

    def _end_hoarders(self) -> None:
        """If too much has come that is no message yet, end what has most of it."""
        held = {
            session: session.connection.partial_bytes
            for session in self._sessions.values()
            if not session.scope.cancel_called
        }
        excess = sum(held.values()) - MAX_PARTIAL_BYTES
        while excess > 0:
            hoarder = _find_hoarder(held)
            excess -= held.pop(hoarder)
            self.counters.refused += 1
            hoarder.scope.cancel()
            address = hoarder.connection.remote_address
            _log.warning("messages that do not come whole: %s is sent away", address)

    async def admit(self, connection: Connection, source: Source) -> None:
        """Let a proven connection in, if it is welcome and the one to keep; serve it to its end."""
        key = connection.link.remote_public_key
        if key == self._own_key:
            return
        while self._is_welcome(key):
            existing = self._sessions.get(key)
            if existing is None:
                await self._serve(connection, source)
                return
            if not await self._duplicates.is_better(connection, existing):
                self.counters.duplicates += 1
                return
            existing.is_replaced = True
            existing.scope.cancel()
            with trio.move_on_after(_HANDOVER_SECONDS) as scope:
                await existing.done.wait()
            if scope.cancelled_caught and self._sessions.get(key) is existing:
                del self._sessions[key]
        # Refused, suspended or firewalled, perhaps only while it waited to be let in.
        self.counters.refused += 1
        self._changes.note()
        if key not in self._sessions:
            now = trio.current_time()
            self._book.connection_closed(key, now, says_nothing=self.is_suspended)

    def _is_welcome(self, public_key: bytes) -> bool:
        is_shut_out = self.is_suspended or self._book.is_refused(public_key)
        return not is_shut_out and self._firewall(public_key)

    async def _serve(self, connection: Connection, source: Source) -> None:
        """Run the handler; exceptions that the network causes end this connection only."""
        key = connection.link.remote_public_key
        session = Session(connection, source)
        self._sessions[key] = session
        self.counters.connections_opened += 1
        self._book.connection_opened(key, trio.current_time())
        self._changes.note()
        try:
            with session.scope:
                await connection.send((b"",))  # confirms it: we serve it, and keep it alive
                await self._handler(connection)
        except* _NETWORK_ERRORS as group:
            _log.info("connection with %s ended: %s", encode_id(key), describe(group))
        finally:
            statistics = connection.statistics()
            self.counters.bytes_received += statistics.bytes_received
            self.counters.bytes_sent += statistics.bytes_sent
            if self._sessions.get(key) is session:
                del self._sessions[key]
                if not session.is_replaced:
                    says_nothing = connection.is_welcome or session.scope.cancel_called
                    now = trio.current_time()
                    self._book.connection_closed(key, now, says_nothing=says_nothing)
            session.done.set()
            self._changes.note()


def _find_hoarder(held: Mapping[Session, int]) -> Session:
    """The one that holds most, of the host whose connections together hold most."""
    of_host: Counter[str] = Counter()
    for session, size in held.items():
        of_host[session.host] += size
    return max(held, key=lambda session: (of_host[session.host], held[session]))


async def _show_life(connection: Connection) -> None:
    with contextlib.suppress(SwarmError, trio.BrokenResourceError, trio.ClosedResourceError):
        await connection.send((b"",))  # what fails here, its handler learns, too
