"""What a client says to a server before both punch holes in their NATs.

Source: hyperdht 6.34.0 lib/connect.js probeRound, roundPunch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import trio

from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.dht.introduction import Introduced
from swarm.dht.messages import Command
from swarm.dht.peer_messages import Mode, NatKind, PeerError, PeerHolepunch, PunchRound, RelayPair
from swarm.dht.peer_noise import PunchBox
from swarm.dht.requests import Answered, Call, TooManyRequests
from swarm.errors import CannotPunch, PeerUnreachable, SwarmError
from swarm.io.peer_sockets import PeerSockets
from swarm.io.punching import HolePunch
from swarm.io.relay_client import RelayMeeting
from swarm.io.udp import UdxEndpoint
from swarm.io.udx_transport import UdxTransport

UNDECIDED_SECONDS = 1.0
"""For a server that does not know its own NAT yet: its first probe may be under way."""

_NO_ANSWER = (PeerUnreachable, TooManyRequests, trio.ClosedResourceError)


class PunchTalk:
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
            is_settled = not may_repeat  # a new socket: the server has not heard of it yet
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
            raise CannotPunch("a relay's answer makes no sense") from None
        heard = self._box.unseal(reply.sealed)
        if reply.mode is not Mode.REPLY or heard is None:
            raise CannotPunch("a relay's answer is not the server's")
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


async def first_contact(
    stream: UdxTransport, punch: HolePunch, talk: PunchTalk, meeting: RelayMeeting | None
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
                return await stream.wait_contact_beyond(source)
            return endpoint, source

        nursery.start_soon(run, punch.wait_punched)
        nursery.start_soon(run, wait_direct_contact)
        nursery.start_soon(run, talk.wait_failed)
    if contacts:
        return contacts[0]
    raise errors[0]


def _pick_relay(relays: Sequence[RelayPair], preferred: Address) -> RelayPair:
    """The server's relay that is ours, too, if there is one."""
    return next((pair for pair in relays if pair.relay == preferred), relays[0])
