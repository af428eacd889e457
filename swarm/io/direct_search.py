"""Finding a way to a server that has answered our handshake.

| the server's answer                        | what we do                                          |
|--------------------------------------------|-----------------------------------------------------|
| came from itself                           | connect there                                       |
| it is open, or has nobody to punch through | connect to its public address                       |
| else, and we are open                      | wait for it to connect to us, 10 s                  |
| else, and it is in a network of ours       | ask at its private address, while we punch          |
| else                                       | punch                                               |

Source: hyperdht 6.34.0 lib/connect.js holepunch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from hypercore.crypto import encode_id
from swarm.announcement import Address
from swarm.dht.hosts import first_public, is_private, match_address
from swarm.dht.introduction import Introduced
from swarm.dht.messages import Internal
from swarm.dht.payloads import peer_target
from swarm.dht.peer_messages import NatKind
from swarm.dht.peer_noise import PunchBox
from swarm.dht.requests import Call, TooManyRequests, Via
from swarm.errors import CannotPunch, PeerUnreachable, SwarmError
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punch_talk import PunchTalk, first_contact
from swarm.io.punching import HolePunch, open_hole_punch
from swarm.io.relay_client import RelayMeeting
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address
from swarm.io.udx_transport import UdxTransport
from swarm.io.way import Way, reach_of
from swarm.reach import Reach

PASSIVE_SECONDS = 10.0
"""For a server to come to us."""

_NO_ANSWER = (PeerUnreachable, TooManyRequests, trio.ClosedResourceError)


class DirectSearch:
    """One search; made by `open_direct_search`."""

    def __init__(
        self,
        sockets: PeerSockets,
        public_key: bytes,
        introduced: Introduced,
        stream: UdxTransport,
        meeting: RelayMeeting | None,
        punch: HolePunch | None,
    ) -> None:
        self.error: SwarmError | None = None
        """Why there is no way."""
        self._sockets = sockets
        self._public_key = public_key
        self._introduced = introduced
        self._stream = stream
        self._meeting = meeting
        self._punch = punch
        self._way: Way | None = None
        self._over = trio.Event()

    @property
    def way(self) -> Way | None:
        """The way that was found; None before that."""
        return self._way

    async def wait_way(self) -> Way | None:
        """The way that was found; None when there is none, see `error`.

        Cancel: nothing changes.
        """
        await self._over.wait()
        return self._way

    async def run(self) -> None:
        """Search to the end."""
        try:
            self._way = await self._search()
        except (CannotPunch, PeerUnreachable) as error:
            self.error = error
            if self._punch is not None:
                self._punch.release()
        self._over.set()

    async def _search(self) -> Way:
        introduced = self._introduced
        asking = self._sockets.asking
        if not introduced.is_relayed:
            return Way(asking, introduced.relay, reach_of(introduced.relay))
        if self._punch is not None:
            return await self._race(self._punch)
        if is_contacted_first(introduced, self._sockets):
            with trio.move_on_after(PASSIVE_SECONDS):
                endpoint, source = await self._stream.wait_contact()
                return Way(endpoint, source, reach_of(source))
            raise PeerUnreachable(encode_id(self._public_key), 1)
        address = first_public(introduced.offer.addresses) or introduced.server
        return Way(asking, address, reach_of(address))

    async def _race(self, punch: HolePunch) -> Way:
        """Whatever comes through first: a neighbor's answer, a hole, or the server by itself."""
        won: list[Way] = []
        errors: list[SwarmError] = []
        async with trio.open_nursery() as nursery:

            async def run(attempt: Callable[[], Awaitable[Way]]) -> None:
                try:
                    way = await attempt()
                except (PeerUnreachable, CannotPunch) as error:
                    errors.append(error)
                    return
                won.append(way)
                nursery.cancel_scope.cancel()

            neighbor = self._neighbor_address()
            if neighbor is not None:
                nursery.start_soon(run, partial(self._ask_neighbor, neighbor))
            nursery.start_soon(run, partial(self._make_hole, punch))
        if won:
            return won[0]
        raise errors[-1]

    def _neighbor_address(self) -> Address | None:
        """Where the server is if it is in a network of ours: the relay sees one host for both."""
        introduced = self._introduced
        if introduced.client[0] != introduced.server[0]:
            return None
        private = [address for address in introduced.offer.addresses if is_private(address)]
        ours = self._sockets.local_addresses()
        return match_address(ours, private) or next(iter(private), None)

    async def _ask_neighbor(self, address: Address) -> Way:
        try:
            await self._sockets.dht.driver.call(Call(address, Internal.PING, True, via=Via.SERVER))
        except _NO_ANSWER as error:
            raise PeerUnreachable(format_address(address), 1) from error
        return Way(self._sockets.server, address, Reach.LAN)

    async def _make_hole(self, punch: HolePunch) -> Way:
        box = PunchBox(self._introduced.result, self._sockets.entropy)
        target = peer_target(self._public_key)
        talk = PunchTalk(self._sockets, target, self._introduced, punch, box)
        async with open_background_nursery() as nursery:
            nursery.start_soon(talk.run)
            # A probe may come through before the talk is over.
            endpoint, address = await first_contact(self._stream, punch, talk, self._meeting)
        punch.stop()
        return Way(endpoint, address, reach_of(address, is_punched=True))


def is_reachable(introduced: Introduced) -> bool:
    """Whether the server has an address that should let us in."""
    punch = introduced.offer.punch
    can_punch = punch is not None and bool(punch.relays)
    return not introduced.is_relayed or introduced.offer.nat is NatKind.OPEN or not can_punch


def is_contacted_first(introduced: Introduced, sockets: PeerSockets) -> bool:
    """Whether the server comes to us, since that is the easier way."""
    return not is_reachable(introduced) and sockets.public_address is not None


@asynccontextmanager
async def open_direct_search(
    sockets: PeerSockets,
    public_key: bytes,
    introduced: Introduced,
    stream: UdxTransport,
    meeting: RelayMeeting | None,
) -> AsyncIterator[DirectSearch]:
    """Search until there is a way; the socket that it leads through lives until the body ends.

    What comes through the relay of `meeting` is not a way.
    Cancel: closes what was opened for it.
    """
    takes_punch = not is_reachable(introduced) and sockets.public_address is None
    async with AsyncExitStack() as stack:
        punch = None
        if takes_punch:
            punch = await stack.enter_async_context(
                open_hole_punch(sockets, is_initiator=True, remote_nat=introduced.offer.nat)
            )
        search = DirectSearch(sockets, public_key, introduced, stream, meeting, punch)
        nursery = await stack.enter_async_context(open_background_nursery())
        nursery.start_soon(search.run)
        yield search
