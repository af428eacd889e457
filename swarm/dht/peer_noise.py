"""The handshake between two peers, and what it leaves them: keys for a stream and for punching.

Source: hyperdht 6.34.0 lib/noise-wrap.js, lib/secure-payload.js.
"""

from __future__ import annotations

import hmac

from hypercore.crypto import Entropy, KeyPair, blake2b, namespace
from hypercore.encoding import DecodeError
from swarm.announcement import Address
from swarm.dht.messages import Command
from swarm.dht.peer_messages import PeerOffer, PunchRound
from swarm.errors import HandshakeFailed
from swarm.noise.handshake import Handshake, HandshakeResult, Pattern
from swarm.noise.sealed import seal, unseal

_NAMESPACES = namespace("hyperswarm/dht", max(Command) + 1)
# hyperdht numbers its namespaces as it does its commands.
_PROLOGUE = _NAMESPACES[Command.PEER_HANDSHAKE]
_PUNCH = _NAMESPACES[Command.PEER_HOLEPUNCH]


class CallerNoise:
    """The side that connects. Several answers may come; the first that is genuine counts."""

    def __init__(
        self, key_pair: KeyPair, remote_public_key: bytes, offer: PeerOffer, entropy: Entropy
    ) -> None:
        """Raises: HandshakeFailed for a remote key that is no point."""
        self._handshake = Handshake(
            Pattern.IK,
            key_pair,
            is_initiator=True,
            prologue=_PROLOGUE,
            remote_public_key=remote_public_key,
            entropy=entropy,
        )
        self.message = self._handshake.send(offer.encode())
        """What to send, the same to every relay: the server recognizes it."""

    def receive(self, noise: bytes) -> tuple[PeerOffer, HandshakeResult]:
        """The server's answer. Raises: HandshakeFailed, which leaves everything as it was."""
        attempt = self._handshake.copy()
        payload = attempt.receive(noise)
        assert attempt.result is not None
        return _read_offer(payload), attempt.result


class ServerNoise:
    """The side that is connected to: reads who comes, then answers."""

    def __init__(self, key_pair: KeyPair, noise: bytes, entropy: Entropy) -> None:
        """Raises: HandshakeFailed."""
        self._handshake = Handshake(
            Pattern.IK, key_pair, is_initiator=False, prologue=_PROLOGUE, entropy=entropy
        )
        self.offer = _read_offer(self._handshake.receive(noise))
        remote = self._handshake.remote_public_key
        assert remote is not None
        self.remote_public_key = remote

    def answer(self, offer: PeerOffer) -> tuple[bytes, HandshakeResult]:
        """The message to send, and what was agreed on."""
        noise = self._handshake.send(offer.encode())
        assert self._handshake.result is not None
        return noise, self._handshake.result


class PunchBox:
    """Seals the rounds of a hole punch, and makes tokens for hosts."""

    def __init__(self, result: HandshakeResult, entropy: Entropy) -> None:
        self._key = blake2b(_PUNCH, key=result.handshake_hash)
        self._secret = entropy(32)
        self._entropy = entropy

    def seal(self, message: PunchRound) -> bytes:
        return seal(message.encode(), self._key, self._entropy)

    def unseal(self, sealed: bytes) -> PunchRound | None:
        """None when it is not the other end's, or makes no sense."""
        encoded = unseal(sealed, self._key)
        if encoded is None:
            return None
        try:
            return PunchRound.decode(encoded)
        except DecodeError:
            return None

    def token(self, address: Address) -> bytes:
        """What only somebody who receives at this host can know."""
        return blake2b(address[0].encode(), key=self._secret)

    def is_token(self, token: bytes | None, address: Address) -> bool:
        return token is not None and hmac.compare_digest(token, self.token(address))


def _read_offer(payload: bytes) -> PeerOffer:
    try:
        return PeerOffer.decode(payload)
    except DecodeError as error:
        raise HandshakeFailed(f"the remote's offer is malformed: {error}") from None
