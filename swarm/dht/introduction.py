"""A server's answer to our handshake, which nodes of the table passed on."""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.dht.hosts import is_usable
from swarm.dht.peer_messages import Mode, PeerError, PeerHandshake, PeerOffer, StreamOffer
from swarm.dht.peer_noise import CallerNoise
from swarm.dht.requests import Answered
from swarm.noise.handshake import HandshakeResult


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


def read_introduction(noise: CallerNoise, relay: Address, answered: Answered) -> Introduced | None:
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
