"""Being connected to by our public key, through the nodes that know the way.

Source: hyperdht 6.34.0 lib/server.js.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import trio

from hypercore.crypto import KeyPair, encode_id
from swarm.announcement import Address
from swarm.dht.hosts import is_private, match_address
from swarm.dht.payloads import PeerRecord
from swarm.dht.peer_messages import (
    TOKEN_BYTES,
    NatKind,
    PeerError,
    PeerHandshake,
    PeerHolepunch,
    PeerOffer,
    PunchOffer,
    PunchRound,
    RelayThrough,
    StreamOffer,
)
from swarm.dht.reception import MEETING_SECONDS, Arrived, Reception, Repeated, Visitor
from swarm.dht.requests import Via
from swarm.dht.router import PeerAsked
from swarm.errors import SwarmError
from swarm.io.announcer import Announcer
from swarm.io.connection import Connection, open_connection
from swarm.io.crowd import Crowd, Place
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import HolePunch, open_hole_punch
from swarm.io.relay_client import PAIRING_SECONDS, Connect, RelayMeeting, open_meeting
from swarm.io.tasks import open_background_nursery
from swarm.io.tcp import format_address
from swarm.io.udp import UdxEndpoint
from swarm.io.udx_transport import UdxTransport
from swarm.io.way import Way, leave_relay, reach_of
from swarm.reach import Reach, Route
from swarm.udx.packet import MESSAGE, encode_packet
from swarm.udx.receiver import NEWCOMER_WINDOW_BYTES, WINDOW_BYTES

MAX_MEETINGS = 256
"""Clients that are on their way at the same time; for one more, one is given up."""

MAX_ROUNDS = 16
"""Rounds of one punch that wait for an answer at the same time; further ones get none. An honest
client says one after the other, each at most four times."""

MAX_NAMED_RELAYS = 2
"""Relays that clients of one host have named, and that we are on the way to: each takes a walk
through the table, and fresh keys that name others cost nothing."""

IMPROVING_SECONDS = 120.0
"""For a client that came by a relay to find a better way; punching at random takes its time."""

NUDGE_SECONDS = (0.0, 0.5, 1.0)
"""Pauses before a client that waits for us is written to: 20 bytes each time, until it answers."""

_NETWORK_ERRORS = (
    SwarmError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.EndOfChannel,
    OSError,
)
_log = logging.getLogger("beemesh.dht")

PeerHandler = Callable[[Connection], Awaitable[None]]
PeerFirewall = Callable[[bytes], bool]
"""Whether a remote public key may connect; asked before it gets any answer."""

ChooseRelay = Callable[[], bytes | None]
"""The key of a blind relay to meet the next client at, if need be."""


@dataclass(slots=True)
class _Meeting:
    """A visitor that was let in, and is to come through."""

    visitor: Visitor
    stream: UdxTransport
    punch: HolePunch | None = None
    through: RelayThrough | None = None  # of ours
    relay: RelayMeeting | None = None
    via: Via | None = None  # the socket to answer its handshake through, if not the usual one
    rounds: int = 0  # of its punch that are to be answered
    is_ready: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class PeerServerStatistics:
    """Counts since it was started; `meetings` are those under way."""

    meetings: int
    connections: int
    refused: int
    """By the firewall, or because there were too many; those that were given up, too."""
    malformed: int
    relays: int


class PeerServer:
    """A key of ours that can be connected to; made by `HyperDht.serve`."""

    def __init__(
        self,
        sockets: PeerSockets,
        key_pair: KeyPair,
        handler: PeerHandler,
        firewall: PeerFirewall,
        *,
        connect: Connect,
        choose_relay: ChooseRelay,
        max_message_bytes: int,
    ) -> None:
        self._connect = connect
        self._max_message_bytes = max_message_bytes
        self._choose_relay = choose_relay
        self.public_key = key_pair.public_key
        self._sockets = sockets
        self._key_pair = key_pair
        self._handler = handler
        self._firewall = firewall
        self._announcer = Announcer(sockets.dht, key_pair)
        self._reception = Reception(
            key_pair, sockets.entropy, trio.current_time(), self._announcer.is_relay
        )
        self._on_their_way = Crowd(MAX_MEETINGS)
        self._meetings: dict[int, _Meeting] = {}
        self._connections = 0
        self._refused = 0

    @property
    def relay_addresses(self) -> tuple[Address, ...]:
        """Where handshakes for this key can be sent to, at most three."""
        return self._announcer.relay_addresses

    async def wait_announced(self) -> None:
        """Return when the first announcement is over, whether or not a node took it.

        Cancel: nothing changes.
        """
        await self._announcer.announced.wait()

    def refresh(self) -> None:
        """Announce again now: the network has changed."""
        self._announcer.refresh()

    def statistics(self) -> PeerServerStatistics:
        reception = self._reception
        return PeerServerStatistics(
            meetings=len(self._meetings),
            connections=self._connections,
            refused=self._refused + reception.refused,
            malformed=reception.malformed,
            relays=len(self._announcer.relays),
        )

    async def run(self) -> None:
        """Announce the key and let clients in; runs until cancelled."""
        with self._sockets.dht.driver.serving(PeerRecord(self.public_key)) as questions:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._announcer.run)
                while True:
                    question = await questions.receive()
                    if isinstance(question.message, PeerHandshake):
                        self._take_handshake(question, nursery)
                        # Many may have come at once, and each takes a millisecond.
                        await trio.lowlevel.checkpoint()
                    else:
                        self._take_punch(question, nursery)

    def _take_handshake(self, question: PeerAsked, nursery: trio.Nursery) -> None:
        match self._reception.receive(question, trio.current_time()):
            case Arrived(visitor):
                if self._is_welcome(visitor):
                    nursery.start_soon(self._receive_visitor, visitor, question)
                else:
                    self._refused += 1
            case Repeated(visitor):
                meeting = self._meetings.get(visitor.id)
                if visitor.answer is not None:
                    via = None if meeting is None else meeting.via
                    self._sockets.dht.driver.answer(question, visitor.answer, via)
            case None:
                pass

    def _is_welcome(self, visitor: Visitor) -> bool:
        return visitor.remote_public_key != self.public_key and self._firewall(
            visitor.remote_public_key
        )

    async def _receive_visitor(self, visitor: Visitor, question: PeerAsked) -> None:
        """Answer one visitor, and serve it to the end when it comes through."""
        try:
            with self._on_their_way.place(visitor.host) as place:
                async with AsyncExitStack() as stack:
                    await self._meet(visitor, question, stack, place)
            self._refused += place.is_lost
        except* _NETWORK_ERRORS as group:
            key = encode_id(visitor.remote_public_key)
            _log.debug("connection from %s failed: %r", key, group.exceptions)
        finally:
            self._meetings.pop(visitor.id, None)

    async def _meet(
        self, visitor: Visitor, question: PeerAsked, stack: AsyncExitStack, place: Place
    ) -> None:
        offer, driver = visitor.offer, self._sockets.dht.driver
        error = _judge(offer)
        if error is not PeerError.NONE or offer.stream is None:
            visitor.let_in(PeerOffer(error=error), self._sockets.entropy)
            assert visitor.answer is not None
            driver.answer(question, visitor.answer)
            return
        stream = self._sockets.server.open_stream(
            is_contactable=True, window_bytes=NEWCOMER_WINDOW_BYTES
        )
        stack.push_async_callback(trio.aclose_forcefully, stream)
        meeting = self._meetings[visitor.id] = _Meeting(visitor, stream)
        own_address = self._sockets.public_address
        is_expected = visitor.is_direct or offer.nat is NatKind.OPEN
        if not is_expected and own_address is None:
            await self._prepare_punch(meeting, stack)
            await self._go_to_relay(meeting, stack)
        result = visitor.let_in(self._offer(meeting), self._sockets.entropy)
        assert visitor.answer is not None
        meeting.is_ready.set()
        driver.answer(question, visitor.answer, meeting.via)
        route = await self._come_together(meeting, question, is_expected=is_expected)
        nursery = await stack.enter_async_context(open_background_nursery())
        is_relayed = route.reach is Reach.RELAYED
        if is_relayed:
            nursery.start_soon(self._improve, meeting, route)
        async with open_connection(
            stream,
            self._key_pair,
            is_initiator=False,
            route=route,
            max_message_bytes=self._max_message_bytes,
            handshake=result,
        ) as connection:
            place.leave()
            if self._max_message_bytes > NEWCOMER_WINDOW_BYTES:
                stream.widen()
            if not is_relayed:
                self._meetings.pop(visitor.id, None)
            self._connections += 1
            await self._handler(connection)

    async def _prepare_punch(self, meeting: _Meeting, stack: AsyncExitStack) -> None:
        """Open a socket; the relay shows it to the client, unless that may be our neighbor."""
        visitor = meeting.visitor
        meeting.punch = await stack.enter_async_context(
            open_hole_punch(self._sockets, is_initiator=False, remote_nat=visitor.offer.nat)
        )
        theirs = [address for address in visitor.offer.addresses if is_private(address)]
        is_neighbor = visitor.client[0] == visitor.seen_as[0] and bool(
            match_address(self._sockets.local_addresses(), theirs)
        )
        if not is_neighbor:
            meeting.via = meeting.punch.via

    async def _go_to_relay(self, meeting: _Meeting, stack: AsyncExitStack) -> None:
        """Wait at a blind relay, ours or else the client's, in case nothing else works.

        A relay that is this node itself is no third place: whoever reaches it reaches us. To dial
        it would make us a visitor of our own, for whom we would dial it, and so on. And for a
        visitor that comes to us as to a relay we go to none: two that name each other would go on
        and on for one client.
        """
        if meeting.visitor.offer.shuns_relays:
            return
        serves, ours = self._sockets.dht.driver.serves, self._choose_relay()
        if ours is not None and not serves(ours):
            meeting.through = RelayThrough(ours, self._sockets.entropy(TOKEN_BYTES))
        through = meeting.through or meeting.visitor.offer.relay_through
        is_initiator = meeting.through is not None
        if through is None or serves(through.public_key):
            return
        if not is_initiator and self._named_relays(meeting.visitor.host) >= MAX_NAMED_RELAYS:
            return
        meeting.relay = await stack.enter_async_context(
            open_meeting(
                through, meeting.stream, self._connect, is_initiator=is_initiator, is_caller=False
            )
        )

    def _named_relays(self, host: str) -> int:
        """How many relays we are on the way to because clients of this host have named them."""
        return sum(
            meeting.visitor.host == host
            and meeting.through is None
            and meeting.relay is not None
            and not meeting.relay.is_settled
            for meeting in self._meetings.values()
        )

    def _offer(self, meeting: _Meeting) -> PeerOffer:
        visitor, stream = meeting.visitor, meeting.stream
        own_address = self._sockets.public_address
        local = self._sockets.local_addresses()
        punch = None
        if own_address is None:
            punch = PunchOffer(visitor.id, self._announcer.relays)
        return PeerOffer(
            nat=NatKind.UNKNOWN if own_address is None else NatKind.OPEN,
            punch=punch,
            addresses=local if own_address is None else (own_address, *local),
            stream=StreamOffer(stream.local_id),
            relay_through=meeting.through,
            relay_addresses=self.relay_addresses,
        )

    async def _come_together(
        self, meeting: _Meeting, question: PeerAsked, *, is_expected: bool
    ) -> Route:
        """Connect the stream, to where the client is or to where it comes from.

        What its relay says of where it is does not suffice: the two may be one, and name a victim.
        """
        visitor, stream = meeting.visitor, meeting.stream
        assert visitor.offer.stream is not None
        remote = visitor.offer.stream
        if visitor.is_direct:
            through = self._sockets.endpoint(question.asked.via)
            stream.connect(remote.id, visitor.client, through=through, first_ack=remote.first_seq)
            return Way(through, visitor.client, reach_of(visitor.client)).route
        seconds = MEETING_SECONDS if meeting.relay is None else PAIRING_SECONDS
        with trio.move_on_after(seconds) as scope:
            async with open_background_nursery() as nursery:
                if is_expected:
                    nursery.start_soon(_nudge, self._sockets.asking, visitor.client, remote.id)
                endpoint, source = await _wait_contact(meeting, scope)
            relay = meeting.relay
            if relay is not None and relay.address == source:
                # The client is there before anything better is found.
                leg = await relay.wait_leg()
                if leg is None:
                    raise trio.BrokenResourceError("the relay let us down")
                stream.connect(leg.remote_id, leg.address, through=leg.endpoint)
                return Route(Reach.RELAYED, format_address(leg.address))
            if meeting.punch is not None:
                meeting.punch.stop()
            if relay is not None:
                relay.leave()
            stream.connect(remote.id, source, through=endpoint, first_ack=remote.first_seq)
            return Way(
                endpoint, source, reach_of(source, is_punched=meeting.punch is not None)
            ).route
        raise trio.BrokenResourceError("the client did not come through")

    async def _improve(self, meeting: _Meeting, route: Route) -> None:
        """Leave the relay when the client has found a better way."""
        visitor, relay = meeting.visitor, meeting.relay
        assert visitor.offer.stream is not None
        assert relay is not None
        assert relay.address is not None
        try:
            with trio.move_on_after(IMPROVING_SECONDS):
                way = await _wait_better_way(meeting, relay.address)
                if meeting.punch is not None:
                    meeting.punch.stop()
                await leave_relay(
                    meeting.stream, visitor.offer.stream.id, way, relay.address, route
                )
                relay.leave()
        except (trio.BrokenResourceError, trio.ClosedResourceError, RuntimeError):
            pass  # the stream is over, and its reader learns it
        finally:
            self._meetings.pop(visitor.id, None)
        if route.reach is Reach.RELAYED and meeting.punch is not None:
            meeting.punch.release()

    def _take_punch(self, question: PeerAsked, nursery: trio.Nursery) -> None:
        visitor = self._reception.find(question, trio.current_time())
        message = question.message
        if visitor is None or visitor.box is None or not isinstance(message, PeerHolepunch):
            return
        meeting = self._meetings.get(visitor.id)
        heard = visitor.box.unseal(message.sealed)
        if heard is None:
            return
        if meeting is None or meeting.punch is None or heard.error != PeerError.NONE:
            if meeting is not None and meeting.punch is not None:
                meeting.punch.stop()
            self._answer_round(question, visitor, PunchRound(error=PeerError.ABORTED))
            return
        if meeting.rounds < MAX_ROUNDS:
            meeting.rounds += 1
            nursery.start_soon(self._negotiate, question, meeting, meeting.punch, heard)

    def _answer_round(
        self, question: PeerAsked, visitor: Visitor, said: PunchRound, via: Via | None = None
    ) -> None:
        assert visitor.box is not None
        self._sockets.dht.driver.answer(question, visitor.box.seal(said), via)

    async def _negotiate(
        self, question: PeerAsked, meeting: _Meeting, punch: HolePunch, heard: PunchRound
    ) -> None:
        """One round: find out what our NAT does, begin to punch if the client does, and say so."""
        try:
            await self._answer_punch(question, meeting, punch, heard)
        finally:
            meeting.rounds -= 1

    async def _answer_punch(
        self, question: PeerAsked, meeting: _Meeting, punch: HolePunch, heard: PunchRound
    ) -> None:
        visitor, box = meeting.visitor, meeting.visitor.box
        assert box is not None
        client, relay = question.client, question.came_from
        is_own_relay = self._announcer.is_relay(relay)
        is_echo = is_own_relay and box.is_token(heard.remote_token, client)
        if question.asked.via is punch.via:
            punch.add_sample(question.seen_as, relay)
        if heard.round >= visitor.last_round:
            visitor.last_round = heard.round
            punch.hear(heard, client[0] if is_echo else None)
        with trio.move_on_after(MEETING_SECONDS):
            is_stable = await punch.analyze(may_reopen=False)
            if not is_stable and not punch.machine.is_remote_punching:
                is_stable = await punch.analyze(may_reopen=True)
                if not is_stable:
                    self._answer_round(question, visitor, PunchRound(error=PeerError.ABORTED))
                    return
        nat = punch.machine.nat
        opened = heard.remote_address
        if nat.kind.is_consistent and opened is not None and opened in (nat.addresses or ()):
            punch.probe(client)  # it has just opened its NAT for us
        if punch.machine.is_remote_punching and not punch.start():
            is_later = punch.machine.strategy is not None
            error = PeerError.TRY_LATER if is_later else PeerError.ABORTED
            self._answer_round(question, visitor, PunchRound(error=error))
            return
        if nat.kind is not NatKind.UNKNOWN:
            nat.freeze()
        said = PunchRound(
            nat=nat.kind,
            round=visitor.last_round,
            is_punching=punch.machine.is_punching,
            addresses=nat.addresses,
            token=box.token(client) if is_own_relay else None,
            remote_token=heard.token,
        )
        self._answer_round(question, visitor, said, punch.via)


def _judge(offer: PeerOffer) -> PeerError:
    if offer.version != PeerOffer().version:
        return PeerError.VERSION_MISMATCH
    return PeerError.NONE if offer.stream is not None else PeerError.ABORTED


async def _nudge(endpoint: UdxEndpoint, client: Address, stream_id: int) -> None:
    """Open our NAT for a client that waits for us, and tell it where we are, until cancelled."""
    packet = encode_packet(MESSAGE, stream_id, WINDOW_BYTES, 0, 0)
    for seconds in NUDGE_SECONDS:
        await trio.sleep(seconds)
        with contextlib.suppress(trio.ClosedResourceError):
            endpoint.send_datagram(packet, client)


async def _wait_while_punching(punch: HolePunch, scope: trio.CancelScope) -> None:
    """Let the meeting take longer once both are punching."""
    await punch.wait_begun()
    scope.deadline = float("inf")
    await punch.wait_ended()
    scope.deadline = trio.current_time() + MEETING_SECONDS


async def _wait_contact(meeting: _Meeting, scope: trio.CancelScope) -> tuple[UdxEndpoint, Address]:
    """A punch that has begun may take as long as it takes."""
    async with trio.open_nursery() as nursery:
        if meeting.punch is not None:
            nursery.start_soon(_wait_while_punching, meeting.punch, scope)
        contact = await meeting.stream.wait_contact()
        nursery.cancel_scope.cancel()
    return contact


async def _wait_better_way(meeting: _Meeting, relay: Address) -> Way:
    """Where else the client shows up; what others send, having guessed an id, is not a way."""
    visitor = meeting.visitor
    hosts = {visitor.client[0], *(host for host, _ in visitor.offer.addresses)}
    while True:
        endpoint, source = await meeting.stream.wait_contact_beyond(relay)
        if source[0] in hosts:
            is_punched = meeting.punch is not None
            return Way(endpoint, source, reach_of(source, is_punched=is_punched))
