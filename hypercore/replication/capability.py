"""The proof that both ends of a channel know the key of the core they replicate.

A discovery key is public. The capability binds the core's key to this very connection, so
that it can neither be made without the key nor be replayed on another connection.

Source: hypercore 11.37.1 lib/caps.js `replicate`.
"""

from __future__ import annotations

import hmac

from hypercore.crypto import blake2b, namespace

_, _REPLICATE_INITIATOR, _REPLICATE_RESPONDER = namespace("hypercore", 3)


def replicate_capability(*, is_initiator: bool, key: bytes, handshake_hash: bytes) -> bytes:
    """What the initiator (or the responder) of the connection sends for the core `key`."""
    role = _REPLICATE_INITIATOR if is_initiator else _REPLICATE_RESPONDER
    return blake2b(role, key, key=handshake_hash)


def is_capable(capability: bytes, *, is_initiator: bool, key: bytes, handshake_hash: bytes) -> bool:
    """Whether the initiator (or the responder) proved to know `key`; in constant time."""
    expected = replicate_capability(
        is_initiator=is_initiator, key=key, handshake_hash=handshake_hash
    )
    return hmac.compare_digest(capability, expected)
