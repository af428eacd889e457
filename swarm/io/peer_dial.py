"""Connecting to a public key, wherever it is.

The nodes that know the way pass our handshake on, several at a time; the first genuine answer
counts. It says where the server is, and what is between it and the world:

| the server's answer                        | what we do                                          |
|--------------------------------------------|-----------------------------------------------------|
| came from itself                           | connect there                                       |
| it is open, or has nobody to punch through | connect to its public address                       |
| else, and we are open                      | wait for it to connect to us, 10 s                  |
| else, and it is in a network of ours       | ask at its private address, while we punch          |
| else                                       | punch                                               |

Source: hyperdht 6.34.0 lib/connect.js.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial

import trio

from hypercore.crypto import KeyPair, encode_id
from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.dht.hosts import first_public, is_private, is_usable, match_address
from swarm.dht.messages import Command, Internal
from swarm.dht.payloads import peer_target
from swarm.dht.peer_messages import (
    TOKEN_BYTES,
    Mode,
    NatKind,
    PeerError,
    PeerHandshake,
    PeerHolepunch,
    PeerOffer,
    PunchRound,
    RelayPair,
    RelayThrough,
    StreamOffer,
)
from swarm.dht.peer_noise import CallerNoise, PunchBox
from swarm.dht.requests import Answered, Call, TooManyRequests, Via
from swarm.errors import CannotPunch, HandshakeFailed, PeerUnreachable, SwarmError
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import HolePunch, open_hole_punch
from swarm.io.relay_client import Connect, RelayMeeting
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address
from swarm.io.udp import UdxEndpoint
from swarm.io.udx_transport import UdxTransport
from swarm.noise.handshake import HandshakeResult
from swarm.reach import Reach

PARALLEL_TRIES = 3
PASSIVE_SECONDS = 10.0
"""For a server to come to us."""

UNDECIDED_SECONDS = 1.0
"""For a server that does not know its own NAT yet: its first probe may be under way."""

_NO_ANSWER = (PeerUnreachable, TooManyRequests, trio.ClosedResourceError)
_Way = tuple[UdxEndpoint, Address, Reach]  # through which socket, where to, and what that is


@dataclass(frozen=True, slots=True)
class Introduced:
    """A server answered our handshake."""

    relay: Address
    """Who passed it on; the server itself, if nobody did."""
    is_relayed: bool
    server: Address
    """Where the relay sees it."""
    client: Address
    """Where the relay sees us."""
    offer: PeerOffer
    result: HandshakeResult

    @property
    def stream(self) -> StreamOffer:
        assert self.offer.stream is not None  # else it was no answer
        return self.offer.stream


class PeerDial:
    """One attempt to connect; its sockets live as long as `stack`."""

    def __init__(
        self,
        sockets: PeerSockets,
        public_key: bytes,
        key_pair: KeyPair,
        stack: AsyncExitStack,
        connect: Connect,
        relay_through: bytes | None,
    ) -> None:
        self._connect = connect
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

    async def run(self, relays: Sequence[Address]) -> tuple[UdxTransport, Introduced, Reach]:
        """The stream, connected.

        Raises: PeerUnreachable, CannotPunch when only a blind relay could help,
        trio.ClosedResourceError.
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
        )
        noise = CallerNoise(self._key_pair, self._public_key, offer, self._sockets.entropy)
        introduced = await self._find(noise, relays)
        meeting = await self._meet_at_relay(stream, introduced)
        try:
            endpoint, address, reach = await self._reach(stream, introduced, meeting)
        except (CannotPunch, PeerUnreachable):
            leg = None if meeting is None else await meeting.wait_leg()
            if leg is None:
                raise
            stream.connect(leg.remote_id, leg.address, through=leg.endpoint)
            return stream, introduced, Reach.RELAYED
        remote = introduced.stream
        stream.connect(remote.id, address, through=endpoint, first_ack=remote.first_seq)
        return stream, introduced, reach

    # Finding a way to the server.

    async def _find(self, noise: CallerNoise, relays: Sequence[Address]) -> Introduced:
        """Ask through nodes that are given, and through those that the table knows."""
        limiter = trio.CapacityLimiter(PARALLEL_TRIES)
        found: list[Introduced] = []
        async with trio.open_nursery() as nursery:
            for relay in dict.fromkeys(filter(is_usable, relays)):
                self.relays_tried.append(relay)
                nursery.start_soon(self._try, noise, relay, limiter, found, nursery.cancel_scope)
            nursery.start_soon(self._search, noise, limiter, found, nursery)
        if not found:
            raise PeerUnreachable(self._name, len(self.relays_tried))
        return found[0]

    async def _search(
        self,
        noise: CallerNoise,
        limiter: trio.CapacityLimiter,
        found: list[Introduced],
        nursery: trio.Nursery,
    ) -> None:
        answers = self._sockets.dht.find_peer(self._public_key)
        try:
            async for peer in answers:
                if peer.source in self.relays_tried:
                    continue
                self.relays_tried.append(peer.source)
                nursery.start_soon(
                    self._try, noise, peer.source, limiter, found, nursery.cancel_scope
                )
        except trio.ClosedResourceError:
            pass  # the node is closing: nobody is found
        finally:
            answers.cancel()

    async def _try(
        self,
        noise: CallerNoise,
        relay: Address,
        limiter: trio.CapacityLimiter,
        found: list[Introduced],
        others: trio.CancelScope,
    ) -> None:
        async with limiter:
            value = PeerHandshake(Mode.FROM_CLIENT, noise.message).encode()
            call = Call(relay, Command.PEER_HANDSHAKE, target=self._target, value=value)
            try:
                answered = await self._sockets.dht.driver.call(call)
                introduced = _read_introduction(noise, relay, answered)
            except (*_NO_ANSWER, HandshakeFailed):
                return
        if introduced is not None and not found:
            found.append(introduced)
            others.cancel()

    # From where we are to where it is.

    async def _meet_at_relay(
        self, stream: UdxTransport, introduced: Introduced
    ) -> RelayMeeting | None:
        """Go to the relay that one of us named, in case that there is no better way.

        The server's counts, if both named one.
        """
        theirs = introduced.offer.relay_through
        through = theirs or self._through
        is_open = introduced.offer.nat is NatKind.OPEN or self._sockets.public_address is not None
        if through is None or not introduced.is_relayed or is_open:
            return None
        meeting = RelayMeeting(through, stream, is_initiator=theirs is None, is_caller=True)
        nursery = await self._stack.enter_async_context(open_background_nursery())
        nursery.start_soon(meeting.run, self._connect)
        return meeting

    async def _reach(
        self, stream: UdxTransport, introduced: Introduced, meeting: RelayMeeting | None
    ) -> _Way:
        offer, server = introduced.offer, introduced.server
        asking = self._sockets.asking
        if not introduced.is_relayed:
            return asking, introduced.relay, _reach_of(introduced.relay)
        can_punch = offer.punch is not None and bool(offer.punch.relays)
        if offer.nat is NatKind.OPEN or not can_punch:
            address = first_public(offer.addresses) or server
            return asking, address, _reach_of(address)
        if self._sockets.public_address is not None:
            with trio.move_on_after(PASSIVE_SECONDS):
                endpoint, source = await stream.wait_contact()
                return endpoint, source, _reach_of(source)
            raise PeerUnreachable(self._name, 1)
        return await self._race(stream, introduced, meeting)

    def _neighbor_address(self, introduced: Introduced) -> Address | None:
        """Where it is if it is in a network of ours: whoever sees us both sees one host."""
        if introduced.client[0] != introduced.server[0]:
            return None
        private = [address for address in introduced.offer.addresses if is_private(address)]
        ours = self._sockets.local_addresses()
        return match_address(ours, private) or next(iter(private), None)

    async def _race(
        self, stream: UdxTransport, introduced: Introduced, meeting: RelayMeeting | None
    ) -> _Way:
        """Whatever comes through first: a neighbor's answer, a hole, or the server by itself."""
        punch = await self._stack.enter_async_context(
            open_hole_punch(self._sockets, is_initiator=True, remote_nat=introduced.offer.nat)
        )
        won: list[_Way] = []
        errors: list[SwarmError] = []
        async with trio.open_nursery() as nursery:

            async def run(attempt: Callable[[], Awaitable[_Way]]) -> None:
                try:
                    way = await attempt()
                except (PeerUnreachable, CannotPunch) as error:
                    errors.append(error)
                    return
                won.append(way)
                nursery.cancel_scope.cancel()

            neighbor = self._neighbor_address(introduced)
            if neighbor is not None:
                nursery.start_soon(run, partial(self._ask_neighbor, neighbor))
            nursery.start_soon(run, partial(self._punch, stream, introduced, punch, meeting))
        if won:
            return won[0]
        raise errors[-1]

    async def _ask_neighbor(self, address: Address) -> _Way:
        try:
            await self._sockets.dht.driver.call(Call(address, Internal.PING, True, via=Via.SERVER))
        except _NO_ANSWER as error:
            raise PeerUnreachable(format_address(address), 1) from error
        return self._sockets.server, address, Reach.LAN

    # Punching.

    async def _punch(
        self,
        stream: UdxTransport,
        introduced: Introduced,
        punch: HolePunch,
        meeting: RelayMeeting | None,
    ) -> _Way:
        box = PunchBox(introduced.result, self._sockets.entropy)
        talk = _PunchTalk(self._sockets, self._target, introduced, punch, box)
        async with open_background_nursery() as nursery:
            nursery.start_soon(talk.run)
            # A probe may come through before the talk is over.
            endpoint, address = await _first_contact(stream, punch, talk, meeting)
        punch.stop()
        return endpoint, address, Reach.LAN if is_private(address) else Reach.PUNCHED


class _PunchTalk:
    """The rounds with the server; after each a probe may have come through already."""

    def __init__(
        self,
        sockets: PeerSockets,
        target: bytes,
        introduced: Introduced,
        punch: HolePunch,
        box: PunchBox,
    ) -> None:
        assert introduced.offer.punch is not None
        self._failed = trio.Event()
        self._error: SwarmError | None = None
        self._sockets = sockets
        self._target = target
        self._introduced = introduced
        self._offer = introduced.offer.punch
        self._punch = punch
        self._box = box
        self._round = 0
        self._server = introduced.server
        self._server_relay = _pick_relay(self._offer.relays, introduced.relay)

    async def run(self) -> None:
        """Talk until both ends are punching; `wait_failed` tells if that is not to be."""
        try:
            token = await self._probe()
            await self._begin(token)
        except (PeerUnreachable, CannotPunch) as error:
            self._error = error
            self._failed.set()

    async def wait_failed(self) -> tuple[UdxEndpoint, Address]:
        """Raises: PeerUnreachable, CannotPunch; never returns."""
        await self._failed.wait()
        assert self._error is not None
        raise self._error

    async def _probe(self, *, may_repeat: bool = True) -> bytes | None:
        """Learn what is between the server and the world; returns its token."""
        machine, relay = self._punch.machine, self._server_relay
        self._punch.open_session(self._server)
        said = PunchRound(
            nat=machine.nat.kind,
            addresses=machine.nat.addresses,
            remote_address=self._server,
        )
        heard, peer, answered = await self._talk(relay.relay, relay.peer, said)
        self._punch.add_sample(answered.response.to, answered.call.to)
        if machine.remote_nat is NatKind.UNKNOWN:
            await trio.sleep(UNDECIDED_SECONDS)
        is_settled = await self._punch.analyze(may_reopen=False)
        if not is_settled and await self._punch.analyze(may_reopen=True):
            is_settled = not may_repeat  # from a new socket: the server has not heard of it yet
        is_known = machine.remote_nat is not NatKind.UNKNOWN and heard.token is not None
        if may_repeat and not (is_settled and is_known):
            return await self._probe(may_repeat=False)
        if machine.is_unstable or machine.remote_nat is NatKind.UNKNOWN:
            await self._abort()
        if relay.relay == self._introduced.relay and peer is not None and peer != self._server:
            self._server = peer
            self._punch.open_session(peer)
        return heard.token

    async def _begin(self, token: bytes | None) -> None:
        """Tell the server to punch, through our relay; it shows who we both are."""
        machine = self._punch.machine
        machine.nat.freeze()
        is_random = NatKind.RANDOM in (machine.nat.kind, machine.remote_nat)
        if is_random and not self._sockets.random_punches.is_free:
            raise CannotPunch("another punch with thousands of probes is under way")
        said = PunchRound(
            nat=machine.nat.kind,
            addresses=machine.nat.addresses,
            is_punching=True,
            token=self._box.token(self._server),
            remote_token=token,
        )
        await self._talk(self._introduced.relay, self._server, said)
        if not machine.is_remote_punching or not self._punch.start():
            raise CannotPunch("the server does not punch")

    async def _talk(
        self, relay: Address, server: Address, said: PunchRound
    ) -> tuple[PunchRound, Address | None, Answered]:
        said = replace(said, round=self._round)
        self._round += 1
        value = PeerHolepunch(
            Mode.FROM_CLIENT, self._offer.id, self._box.seal(said), server
        ).encode()
        call = Call(
            relay, Command.PEER_HOLEPUNCH, target=self._target, value=value, via=self._punch.via
        )
        try:
            answered = await self._sockets.dht.driver.call(call)
        except _NO_ANSWER as error:
            raise CannotPunch(f"the server's relay: {error}") from error
        try:
            reply = PeerHolepunch.decode(answered.response.value or b"")
        except DecodeError:
            raise CannotPunch("a relay answers what makes no sense") from None
        heard = self._box.unseal(reply.sealed)
        if reply.mode is not Mode.REPLY or heard is None:
            raise CannotPunch("a relay answers what is not the server's")
        if heard.error != PeerError.NONE:
            raise CannotPunch(f"the server gave up with error {heard.error}")
        is_echo = self._box.is_token(heard.remote_token, server) and said.token is not None
        self._punch.hear(heard, server[0] if is_echo else None)
        return heard, reply.peer_address, answered

    async def _abort(self) -> None:
        """Tell the server that nothing will come of it."""
        with contextlib.suppress(PeerUnreachable, CannotPunch):
            said = PunchRound(error=PeerError.ABORTED)
            await self._talk(self._server_relay.relay, self._server_relay.peer, said)
        machine = self._punch.machine
        kinds = f"ours is {machine.nat.kind.name}, theirs {machine.remote_nat.name}"
        raise CannotPunch(f"the NATs: {kinds}")


async def _first_contact(
    stream: UdxTransport, punch: HolePunch, talk: _PunchTalk, meeting: RelayMeeting | None
) -> tuple[UdxEndpoint, Address]:
    """Where the server came through: by a probe, or by a packet of the stream.

    Raises: PeerUnreachable, CannotPunch.
    """
    contacts: list[tuple[UdxEndpoint, Address]] = []
    errors: list[SwarmError] = []
    async with trio.open_nursery() as nursery:

        async def run(wait: Callable[[], Awaitable[tuple[UdxEndpoint, Address]]]) -> None:
            try:
                contacts.append(await wait())
            except (PeerUnreachable, CannotPunch) as error:
                errors.append(error)
            nursery.cancel_scope.cancel()

        async def wait_direct_contact() -> tuple[UdxEndpoint, Address]:
            endpoint, source = await stream.wait_contact()
            if meeting is not None and meeting.address == source:
                await trio.sleep_forever()  # that it came by the relay does not end the punching
            return endpoint, source

        nursery.start_soon(run, punch.wait_punched)
        nursery.start_soon(run, wait_direct_contact)
        nursery.start_soon(run, talk.wait_failed)
    if contacts:
        return contacts[0]
    raise errors[0]


def _read_introduction(noise: CallerNoise, relay: Address, answered: Answered) -> Introduced | None:
    """None when the relay does not know the server, or the server refuses.

    Raises: HandshakeFailed when the answer is not the server's.
    """
    try:
        reply = PeerHandshake.decode(answered.response.value or b"")
    except DecodeError:
        return None
    if reply.mode is not Mode.REPLY:
        return None
    offer, result = noise.receive(reply.noise)
    if offer.error != PeerError.NONE or offer.stream is None:
        return None
    server = reply.peer_address
    if server is not None and not is_usable(server):
        return None
    return Introduced(
        relay, server is not None, server or relay, answered.response.to, offer, result
    )


def _pick_relay(relays: Sequence[RelayPair], preferred: Address) -> RelayPair:
    """The server's relay that is ours, too, if there is one."""
    return next((pair for pair in relays if pair.relay == preferred), relays[0])


def _reach_of(address: Address) -> Reach:
    return Reach.LAN if is_private(address) else Reach.DIRECT
