"""Being a blind relay for others, up to a number of bytes.

A relay is found by its key like any other peer, and should be open: strangers must reach it.

    relay = BlindRelay(max_bytes=2**30)
    serve = partial(hyperdht.serve, max_message_bytes=MAX_MESSAGE_BYTES)
    await nursery.start(serve, key_pair, relay.handle)
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass

import trio

from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.blind_relay import (
    PAIR,
    PROTOCOL,
    UNPAIR,
    Matched,
    Pair,
    Pairings,
    Refused,
    Unpair,
)
from swarm.errors import MalformedPacket
from swarm.io.channel import Channel
from swarm.io.connection import Connection
from swarm.io.crowd import Crowd
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.tasks import open_background_nursery
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle
from swarm.io.udx_transport import UdxTransport
from swarm.relay_budget import RelayBudget
from swarm.relay_links import RelayLinks

MAX_LINKS = 256
"""One more takes the place of one of the host that has most."""

MAX_LINKS_PER_SESSION = 8
MAX_CONNECTIONS = 1024
"""Whether or not they have asked for anything yet."""

CROWDED_CONNECTIONS = 896
"""From here on one more ends the oldest of the host that has most; the rest is for those that come
at a time."""

MAX_LINKS_PER_HOST = 64
MAX_CONNECTIONS_PER_HOST = 96
"""Keys cost nothing, so what one remote may take is counted by where it is. A node whose clients
are met here has a connection and a link for each of them."""

MAX_MESSAGE_BYTES = 2**14
"""Of what is said to the relay itself; a pair has some 40 bytes, and few of them come at once."""

QUIET_SECONDS = 60.0
"""Between two looks at a connection. What has carried nothing since the last one is let go: live
ends say so every five seconds, and wait fifteen for each other at most."""


class _Session:
    """One connection, and what it asks for."""

    def __init__(self, transport: UdxTransport) -> None:
        self.transport = transport
        self.host = self._address[0]
        self.channel: Channel | None = None
        self._links: dict[bytes, UdxRelayHandle] = {}

    @property
    def links(self) -> dict[bytes, UdxRelayHandle]:
        """Those that are not closed, by their tokens."""
        self._links = {token: link for token, link in self._links.items() if not link.is_closed}
        return self._links

    @property
    def _address(self) -> Address:
        path = self.transport.machine.path
        assert path is not None  # its handshake came this way
        return path.address

    def end(self, pair: Pair, local_id: int) -> RelayEnd:
        return RelayEnd(local_id, pair.stream_id, self._address, self.transport.endpoint)

    def linked(self, pair: Pair, end: RelayEnd, link: UdxRelayHandle) -> None:
        """Tell it where the other end is."""
        assert self.channel is not None
        self._links[pair.token] = link
        self.channel.send(PAIR, Pair(pair.is_initiator, pair.token, end.local_id).encode())

    def refuse(self, token: bytes, *, is_last: bool) -> None:
        """Nothing comes of this token; close the channel if there is nothing else on it."""
        if self.channel is not None:
            self.channel.send(UNPAIR, Unpair(token).encode())
            if is_last:
                self.channel.close()
                self.channel = None


@dataclass(frozen=True, slots=True)
class BlindRelayStatistics:
    """Links now, and counts since the start."""

    sessions: int
    waiting: int
    links: int
    links_opened: int
    refused: int
    """Because there were too many, or no bytes left, or not for that host."""
    bytes_left: int


class BlindRelay:
    """Passes packets on between ends that bring the same token; `handle` serves one connection."""

    def __init__(self, max_bytes: int) -> None:
        """All links together pass on `max_bytes`, those of one host no more than they leave.

        Then they end, until `refill`.
        """
        self._budget = RelayBudget(max_bytes)
        self._pairings: Pairings[_Session] = Pairings(lambda session: session.host)
        self._sessions: set[_Session] = set()
        self._links: RelayLinks[UdxRelayHandle] = RelayLinks()
        self._crowd = Crowd(CROWDED_CONNECTIONS)
        self._connections = 0
        self._per_host: Counter[str] = Counter()
        self._links_opened = 0
        self._refused = 0

    def lets_in(self, _: bytes) -> bool:
        """A firewall for the server: whether there is room for one more, whoever it is."""
        if self._connections < MAX_CONNECTIONS:
            return True
        self._refused += 1
        return False

    def refill(self) -> None:
        """Another hour, or day: begin to count anew."""
        self._budget.refill()

    def statistics(self) -> BlindRelayStatistics:
        return BlindRelayStatistics(
            sessions=len(self._sessions),
            waiting=len(self._pairings),
            links=len(self._links),
            links_opened=self._links_opened,
            refused=self._refused + self._pairings.refused,
            bytes_left=self._budget.left,
        )

    async def handle(self, connection: Connection) -> None:
        """Serve one connection to its end.

        Raises: ValueError when it does not run over UDX. Cancel: ends its links.
        """
        transport = connection.stream
        if not isinstance(transport, UdxTransport):
            raise ValueError("a relay passes UDX packets on, and this connection has none")
        session = _Session(transport)
        if self._per_host[session.host] >= MAX_CONNECTIONS_PER_HOST:
            self._refused += 1
            return
        self._connections += 1
        self._per_host[session.host] += 1
        try:
            with self._crowd.place(session.host):
                await self._serve_all(connection, session)
        finally:
            self._leave(session.host)

    def _leave(self, host: str) -> None:
        self._connections -= 1
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]

    async def _serve_all(self, connection: Connection, session: _Session) -> None:
        async with (
            open_mux(connection, accept=[PROTOCOL]) as mux,
            aclosing(mux.remote_opens(PROTOCOL)) as opens,
            open_background_nursery() as nursery,
        ):
            nursery.start_soon(self._look_after, session, mux)
            async for opened in opens:
                if opened.id != connection.link.remote_public_key:
                    opened.reject()
                    continue
                await self._serve(mux, session, opened.id)

    async def _serve(self, mux: MuxHandle, session: _Session, id: bytes) -> None:
        try:
            channel = session.channel = await mux.open_channel(PROTOCOL, id)
        except trio.EndOfChannel:
            return
        self._sessions.add(session)
        try:
            while session.channel is channel:
                for message_type, payload in await channel.receive():
                    self._take(session, message_type, payload)
        except (trio.EndOfChannel, trio.ClosedResourceError):
            pass
        except DecodeError as error:
            mux.abort(MalformedPacket(f"a message to the relay is malformed: {error}"))
        finally:
            self._sessions.discard(session)
            self._pairings.ended(session)
            for link in session.links.values():
                link.close()
            session.channel = None
            channel.close()

    async def _look_after(self, session: _Session, mux: MuxHandle) -> None:
        """Let go of what is idle, and of the connection when it has long had nothing to do."""
        packets: dict[UdxRelayHandle, int] = {}
        waiting: set[bytes] = set()
        is_idle = False
        while True:
            await trio.sleep(QUIET_SECONDS)
            for link in session.links.values():
                if packets.get(link) == link.statistics().packets:
                    link.close()
            packets = {link: link.statistics().packets for link in session.links.values()}
            for token in waiting & self._pairings.waiting(session):
                self._pairings.unpair(session, token)
                self._refuse(session, token)
            waiting = self._pairings.waiting(session)
            if packets or waiting:
                is_idle = False
            elif is_idle:
                mux.abort()
                return
            else:
                is_idle = True

    def _take(self, session: _Session, message_type: int, payload: bytes) -> None:
        if session.channel is None:
            return  # closed by what it sent before
        if message_type == PAIR:
            pair = Pair.decode(payload)
            if (crowded := self._pairings.making_way(session, pair)) is not None:
                other, token = crowded
                self._pairings.unpair(other, token)
                self._refuse(other, token)
            match self._pairings.pair(session, pair):
                case Refused():
                    self._refuse(session, pair.token)
                case Matched() as matched:
                    self._link(matched)
        elif message_type == UNPAIR:
            token = Unpair.decode(payload).token
            self._pairings.unpair(session, token)
            link = session.links.get(token)
            if link is not None:
                link.close()

    def _refuse(self, session: _Session, token: bytes) -> None:
        is_last = not session.links and not self._pairings.waiting(session)
        session.refuse(token, is_last=is_last)

    def _link(self, matched: Matched[_Session]) -> None:
        """Open the way between two ends, and tell both where it is."""
        sessions = one, other = matched.initiator, matched.other
        is_full = any(
            len(session.links) >= MAX_LINKS_PER_SESSION
            or self._links.count(session.host) >= MAX_LINKS_PER_HOST
            or not self._budget.has_room(session.host)
            for session in sessions
        )
        if not is_full and len(self._links) >= MAX_LINKS:
            crowded = self._links.making_way(one.host, other.host)
            is_full = crowded is None
            if crowded is not None:
                crowded.close()
        if is_full:
            self._refused += 1
            for session in sessions:
                self._refuse(session, matched.initiator_pair.token)
            return
        endpoint = one.transport.endpoint
        left = one.end(matched.initiator_pair, endpoint.choose_id())
        right = other.end(matched.other_pair, endpoint.choose_id())
        budget = self._budget.link(one.host, other.host)
        link = endpoint.open_relay(left, right, budget=budget)
        self._links.add(link, one.host, other.host)
        self._links_opened += 1
        one.linked(matched.initiator_pair, left, link)
        other.linked(matched.other_pair, right, link)
