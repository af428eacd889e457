"""What an end asks of a core before the other has proven that it knows the core's key.

A channel is open when both ends have sent their open, each with its capability. Only then may its
opener ask for anything, since what readers ask is for readers alone: that costs a round trip.
Early data goes right behind the open. It is encrypted on this connection for whoever knows the
core's key, and nobody else can read it: one round trip less to the first answer. (If the other end
learns the key only later, it can read it then.)

It is an extension message named `beemesh/early`, which peers that do not know it ignore:

    nonce (24) | XChaCha20-Poly1305 of: string name | payload

and means: I have nothing of this core; take my sync message as sent, and this extension message.
Both are sent again when the channel is open. Each end's key is the BLAKE2b-256 of its namespace
and the core's key, keyed with the handshake hash; the nonce is random.
"""

from __future__ import annotations

from typing import NamedTuple

from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_ABYTES,
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
)
from nacl.exceptions import CryptoError

from hypercore.crypto import Entropy, blake2b, namespace
from hypercore.encoding import DecodeError, Reader, encode_string
from hypercore.replication.channel import Link
from hypercore.replication.messages import Sync

NAME = "beemesh/early"

NOTHING_HERE = Sync(
    fork=0,
    length=0,
    remote_length=0,
    can_upgrade=True,
    uploading=True,
    downloading=True,
    has_manifest=False,
    allow_push=False,
)
"""The sync message that early data stands for."""

_NONCE_BYTES = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_INITIATOR, _RESPONDER = namespace(NAME, 2)


class EarlyData(NamedTuple):
    """An extension message that is sent early."""

    name: str
    payload: bytes

    def seal(self, link: Link, key: bytes, entropy: Entropy) -> bytes:
        """Encrypt it for the other end of this connection, if that knows the core `key`."""
        nonce = entropy(_NONCE_BYTES)
        secret = _secret(link, key, is_initiator=link.is_initiator)
        plain = encode_string(self.name) + self.payload
        return nonce + crypto_aead_xchacha20poly1305_ietf_encrypt(plain, None, nonce, secret)

    @classmethod
    def unseal(cls, data: bytes, link: Link, key: bytes) -> EarlyData | None:
        """What the other end has sealed; None for anything else."""
        if len(data) < _NONCE_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES:
            return None
        nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
        secret = _secret(link, key, is_initiator=not link.is_initiator)
        try:
            reader = Reader(crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, None, nonce, secret))
            return cls(reader.string(), reader.rest())
        except (CryptoError, DecodeError):
            return None


def _secret(link: Link, key: bytes, *, is_initiator: bool) -> bytes:
    role = _INITIATOR if is_initiator else _RESPONDER
    return blake2b(role, key, key=link.handshake_hash)
