"""Sealing short messages with a key that a handshake left to both ends: libsodium's secretbox.

A sealed message is 24 random bytes, then the message and 16 bytes that authenticate it.

Source: hyperdht 6.34.0 lib/secure-payload.js.
"""

from __future__ import annotations

from nacl.bindings import crypto_secretbox, crypto_secretbox_open
from nacl.exceptions import CryptoError

from hypercore.crypto import Entropy

NONCE_BYTES = 24
OVERHEAD_BYTES = NONCE_BYTES + 16


def seal(message: bytes, key: bytes, entropy: Entropy) -> bytes:
    nonce = entropy(NONCE_BYTES)
    return nonce + crypto_secretbox(message, nonce, key)


def unseal(sealed: bytes, key: bytes) -> bytes | None:
    """The message; None when it was not sealed with this key."""
    if len(sealed) < OVERHEAD_BYTES:
        return None
    try:
        return crypto_secretbox_open(sealed[NONCE_BYTES:], sealed[:NONCE_BYTES], key)
    except CryptoError:
        return None
