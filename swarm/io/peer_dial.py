"""Connecting to a public key, wherever it is.

The nodes that know the way pass our handshake on, several at a time; the first genuine answer
counts. Then a direct way and one through a blind relay, if one of us named one, are looked for at
the same time. The first that is found is taken; a direct one still replaces the relay's later.

Source: hyperdht 6.34.0 lib/connect.js.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import trio

from hypercore.crypto import KeyPair, encode_id
from swarm.announcement import Address
from swarm.dht.hosts import is_usable
from swarm.dht.introduction import Introduced, read_introduction
from swarm.dht.messages import Command
from swarm.dht.payloads import peer_target
from swarm.dht.peer_messages import (
    TOKEN_BYTES,
    Mode,
    NatKind,
    PeerHandshake,
    PeerOffer,
    RelayThrough,
    StreamOffer,
)
from swarm.dht.peer_noise import CallerNoise
from swarm.dht.requests import Call, TooManyRequests
from swarm.errors import HandshakeFailed, PeerUnreachable
from swarm.io.direct_search import DirectSearch, is_reachable, open_direct_search
from swarm.io.peer_sockets import PeerSockets
from swarm.io.relay_client import Connect, RelayMeeting, open_meeting
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address
from swarm.io.udx_transport import UdxTransport
from swarm.io.way import leave_relay
from swarm.reach import Reach, Route

PARALLEL_TRIES = 3
"""How many of the given nodes are asked together."""

PATIENCE_SECONDS = 0.5
"""For a node to pass our handshake on and bring an answer, before another is asked as well."""

_NO_ANSWER = (PeerUnreachable, TooManyRequests, trio.ClosedResourceError)


class PeerDial:
    """One attempt to connect; its sockets live as long as `stack`."""

    def __init__(
        self,
        sockets: PeerSockets,
        public_key: bytes,
        key_pair: KeyPair,
        stack: AsyncExitStack,
        go_to_relay: Connect | None,
        relay_through: bytes | None,
    ) -> None:
        """Without `go_to_relay` no blind relay is used, whoever names one."""
        self._go_to_relay = go_to_relay
        self._through: RelayThrough | None = None
        if relay_through is not None:
            self._through = RelayThrough(relay_through, sockets.entropy(TOKEN_BYTES))
        self.relays_tried: list[Address] = []
        self._sockets = sockets
        self._public_key = public_key
        self._target = peer_target(public_key)
        self._key_pair = key_pair
        self._stack = stack
        self._name = encode_id(public_key)

    async def run(self, relays: Sequence[Address]) -> tuple[UdxTransport, Introduced, Route]:
        """The stream, connected.

        Raises: PeerUnreachable, CannotPunch when only a blind relay could help, HandshakeFailed,
        trio.BrokenResourceError when the remote ends it at once, trio.ClosedResourceError, OSError
        when there is no socket to punch with.
        Cancel: nothing stays open.
        """
        stream = self._sockets.server.open_stream(is_contactable=True)
        self._stack.push_async_callback(trio.aclose_forcefully, stream)
        own = self._sockets.public_address
        local = self._sockets.local_addresses()
        offer = PeerOffer(
            nat=NatKind.UNKNOWN if own is None else NatKind.OPEN,
            addresses=local if own is None else (own, *local),
            stream=StreamOffer(stream.local_id),
            relay_through=self._through,
            shuns_relays=self._go_to_relay is None,
        )
        noise = CallerNoise(self._key_pair, self._public_key, offer, self._sockets.entropy)
        introduced = await self._find(noise, relays)
        meeting = await self._meet_at_relay(stream, introduced)
        search = await self._stack.enter_async_context(
            open_direct_search(self._sockets, self._public_key, introduced, stream, meeting)
        )
        route = await self._connect_stream(stream, introduced.stream, search, meeting)
        return stream, introduced, route

    # Finding a way to the server.

    async def _find(self, noise: CallerNoise, relays: Sequence[Address]) -> Introduced:
        """Ask through the nodes that are given, then through those that the table knows.

        The nodes asked have a moment to themselves before others are asked as well: most of the
        time that is enough, and neither the others nor the rest of the way have to be bothered.
        """
        tries = _Tries(self, noise)
        async with trio.open_nursery() as nursery:
            given = [relay for relay in dict.fromkeys(relays) if is_usable(relay)]
            for start in range(0, len(given), PARALLEL_TRIES):
                await tries.ask(given[start : start + PARALLEL_TRIES], nursery)
            if tries.found is None:
                nursery.start_soon(self._search, tries, nursery)
        if tries.found is None:
            raise PeerUnreachable(self._name, len(self.relays_tried))
        return tries.found

    async def _search(self, tries: _Tries, nursery: trio.Nursery) -> None:
        answers = self._sockets.dht.find_peer(self._public_key)
        try:
            async for peer in answers:
                if peer.source not in self.relays_tried:
                    answers.hold()
                    await tries.ask([peer.source], nursery)
                    answers.go_on()
        except trio.ClosedResourceError:
            pass  # the node is closing: nobody is found
        finally:
            answers.cancel()

    async def introduce(self, noise: CallerNoise, relay: Address) -> Introduced | None:
        """Have a node pass our handshake on; None when nothing comes of it.

        Cancel: an answer that still comes is ignored.
        """
        value = PeerHandshake(Mode.FROM_CLIENT, noise.message).encode()
        call = Call(relay, Command.PEER_HANDSHAKE, target=self._target, value=value)
        try:
            return read_introduction(noise, relay, await self._sockets.dht.driver.call(call))
        except (*_NO_ANSWER, HandshakeFailed):
            return None

    # From where we are to where it is.

    async def _meet_at_relay(
        self, stream: UdxTransport, introduced: Introduced
    ) -> RelayMeeting | None:
        """Go to the relay that one of us named, if we may need it.

        The server's counts, if both named one.
        """
        theirs = introduced.offer.relay_through
        through = theirs or self._through
        is_open = is_reachable(introduced) or self._sockets.public_address is not None
        if through is None or self._go_to_relay is None or is_open:
            return None
        return await self._stack.enter_async_context(
            open_meeting(
                through, stream, self._go_to_relay, is_initiator=theirs is None, is_caller=True
            )
        )

    async def _connect_stream(
        self,
        stream: UdxTransport,
        remote: StreamOffer,
        search: DirectSearch,
        meeting: RelayMeeting | None,
    ) -> Route:
        """Take what is there first: a direct way, or the one through the relay."""
        ways: list[Callable[[], Awaitable[object]]] = [search.wait_way]
        if meeting is not None:
            ways.append(meeting.wait_leg)
        await _first_of(ways)
        way = search.way
        if way is not None:
            stream.connect(remote.id, way.address, through=way.endpoint, first_ack=remote.first_seq)
            if meeting is not None:
                meeting.leave()
            return way.route
        if meeting is None or meeting.leg is None:
            assert search.error is not None
            raise search.error
        leg = meeting.leg
        stream.connect(leg.remote_id, leg.address, through=leg.endpoint)
        route = Route(Reach.RELAYED, format_address(leg.address))
        nursery = await self._stack.enter_async_context(open_background_nursery())
        nursery.start_soon(_improve, stream, remote.id, search, meeting, route)
        return route


class _Tries:
    """The nodes that were asked to introduce us, and the first answer."""

    def __init__(self, dial: PeerDial, noise: CallerNoise) -> None:
        self.found: Introduced | None = None
        self._dial = dial
        self._noise = noise

    async def ask(self, relays: Sequence[Address], nursery: trio.Nursery) -> None:
        """Return when all of them have failed, or their moment is over; an answer ends all."""
        self._dial.relays_tried += relays
        failures = [trio.Event() for _ in relays]
        for relay, failed in zip(relays, failures, strict=True):
            nursery.start_soon(self._try, relay, failed, nursery.cancel_scope)
        with trio.move_on_after(PATIENCE_SECONDS):
            for failed in failures:
                await failed.wait()

    async def _try(self, relay: Address, failed: trio.Event, others: trio.CancelScope) -> None:
        introduced = await self._dial.introduce(self._noise, relay)
        if introduced is not None and self.found is None:
            self.found = introduced
            others.cancel()
        failed.set()


async def _first_of(waits: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Return when one of them gives something, or none will."""
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[object]]) -> None:
            if await wait() is not None:
                nursery.cancel_scope.cancel()

        for wait in waits:
            nursery.start_soon(run, wait)


async def _improve(
    stream: UdxTransport,
    remote_id: int,
    search: DirectSearch,
    meeting: RelayMeeting,
    route: Route,
) -> None:
    """Leave the relay when a better way is found."""
    way = await search.wait_way()
    if way is None or meeting.address is None:
        return
    try:
        await leave_relay(stream, remote_id, way, meeting.address, route)
    except (trio.BrokenResourceError, trio.ClosedResourceError, RuntimeError):
        return  # the stream is over, and its reader learns it
    meeting.leave()
