"""Being a blind relay for others, up to a number of bytes.

A relay is found by its key like any other peer, and should be open: strangers must reach it.

    relay = BlindRelay(max_bytes=2**30)
    await nursery.start(hyperdht.serve, key_pair, relay.handle)
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

import trio

from hypercore.encoding import DecodeError
from swarm.blind_relay import PAIR, PROTOCOL, UNPAIR, Matched, Pair, Pairings, Unpair
from swarm.errors import MalformedPacket
from swarm.io.channel import Channel
from swarm.io.connection import Connection
from swarm.io.mux import MuxHandle, open_mux
from swarm.io.udx_relay import RelayEnd, UdxRelayHandle
from swarm.io.udx_transport import UdxTransport
from swarm.udx.relay import ByteBudget

MAX_LINKS = 256
MAX_LINKS_PER_SESSION = 8
MAX_CONNECTIONS = 1024
"""Whether or not they have asked for anything yet."""


class _Session:
    """One connection that asks for links."""

    def __init__(self, transport: UdxTransport, channel: Channel) -> None:
        self.transport = transport
        self.channel = channel
        self.links: set[UdxRelayHandle] = set()

    def end(self, pair: Pair, local_id: int) -> RelayEnd:
        path = self.transport.machine.path
        assert path is not None  # a message came this way
        return RelayEnd(local_id, pair.stream_id, path.address, self.transport.endpoint)


@dataclass(frozen=True, slots=True)
class BlindRelayStatistics:
    """Links now, and counts since the start."""

    sessions: int
    waiting: int
    links: int
    links_opened: int
    refused: int
    """Since there were too many, or no bytes left."""
    bytes_left: int


class BlindRelay:
    """Passes packets on between those who bring the same token; `handle` serves one connection."""

    def __init__(self, max_bytes: int) -> None:
        """All links together pass on `max_bytes`; then they end, until `refill`."""
        self._max_bytes = max_bytes
        self._budget = ByteBudget(max_bytes)
        self._pairings: Pairings[_Session] = Pairings()
        self._sessions: set[_Session] = set()
        self._connections = 0
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
        self._budget.left = self._max_bytes

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
        self._connections += 1
        try:
            await self._serve_all(connection, transport)
        finally:
            self._connections -= 1

    async def _serve_all(self, connection: Connection, transport: UdxTransport) -> None:
        async with (
            open_mux(connection, accept=[PROTOCOL]) as mux,
            aclosing(mux.remote_opens(PROTOCOL)) as opens,
        ):
            async for opened in opens:
                if opened.id != connection.link.remote_public_key:
                    opened.reject()
                    continue
                await self._serve(mux, transport, opened.id)

    async def _serve(self, mux: MuxHandle, transport: UdxTransport, id: bytes) -> None:
        try:
            channel = await mux.open_channel(PROTOCOL, id)
        except trio.EndOfChannel:
            return
        session = _Session(transport, channel)
        self._sessions.add(session)
        try:
            while True:
                for message_type, payload in await channel.receive():
                    self._take(session, message_type, payload)
        except trio.EndOfChannel:
            pass
        except DecodeError as error:
            mux.abort(MalformedPacket(f"a message to the relay is malformed: {error}"))
        finally:
            self._sessions.discard(session)
            self._pairings.ended(session)
            for link in list(session.links):
                link.close()
            channel.close()

    @property
    def _links(self) -> set[UdxRelayHandle]:
        links: set[UdxRelayHandle] = set()
        for session in self._sessions:
            session.links = {link for link in session.links if not link.is_closed}
            links |= session.links
        return links

    def _take(self, session: _Session, message_type: int, payload: bytes) -> None:
        if message_type == PAIR:
            matched = self._pairings.pair(session, Pair.decode(payload))
            if matched is not None:
                self._link(matched)
        elif message_type == UNPAIR:
            self._pairings.unpair(session, Unpair.decode(payload).token)

    def _link(self, matched: Matched[_Session]) -> None:
        """Open the way between two ends, and tell both where it is."""
        links = self._links
        sessions = (matched.initiator, matched.other)
        is_full = len(links) >= MAX_LINKS or any(
            len(session.links) >= MAX_LINKS_PER_SESSION for session in sessions
        )
        if is_full or self._budget.left <= 0:
            self._refused += 1
            return
        endpoint = matched.initiator.transport.endpoint
        left = matched.initiator.end(matched.initiator_pair, endpoint.choose_id())
        right = matched.other.end(matched.other_pair, endpoint.choose_id())
        link = endpoint.open_relay(left, right, budget=self._budget)
        self._links_opened += 1
        for session, pair, end in (
            (matched.initiator, matched.initiator_pair, left),
            (matched.other, matched.other_pair, right),
        ):
            session.links.add(link)
            answer = Pair(pair.is_initiator, pair.token, end.local_id)
            session.channel.send(PAIR, answer.encode())
