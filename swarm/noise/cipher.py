"""The primitives of `Noise_*_Ed25519_ChaChaPoly_BLAKE2b`.

Diffie-Hellman is on Edwards points: the scalar is the clamped first half of SHA-512(seed), so
that an Ed25519 signing key is a Noise static key. HKDF is RFC 5869 over HMAC-BLAKE2b-512 with
an empty info; cipher keys are the first 32 bytes of an output.

Source: noise-handshake 4, noise-curve-ed 2.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult_ed25519_noclamp
from nacl.exceptions import CryptoError

from hypercore.crypto import KeyPair
from swarm.errors import HandshakeFailed

HASH_BYTES = 64
CIPHER_KEY_BYTES = 32
TAG_BYTES = 16


def noise_hash(*parts: bytes) -> bytes:
    """BLAKE2b-512 of the concatenation."""
    return hashlib.blake2b(b"".join(parts)).digest()


def hkdf(chaining_key: bytes, key_material: bytes) -> tuple[bytes, bytes]:
    """Two 64-byte outputs."""
    secret = hmac.digest(chaining_key, key_material, "blake2b")
    first = hmac.digest(secret, b"\x01", "blake2b")
    return first, hmac.digest(secret, first + b"\x02", "blake2b")


def diffie_hellman(key_pair: KeyPair, remote_public_key: bytes) -> bytes:
    """The 32-byte shared point.

    Raises: HandshakeFailed for a remote key that is no point, or one of small order.
    """
    scalar = bytearray(hashlib.sha512(key_pair.secret_key[:32]).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    try:
        return crypto_scalarmult_ed25519_noclamp(bytes(scalar), remote_public_key)
    except CryptoError:
        raise HandshakeFailed("the remote's public key is not usable") from None


class CipherState:
    """ChaCha20-Poly1305 with a counting nonce; without a key it passes plaintext through."""

    def __init__(self) -> None:
        self._cipher: ChaCha20Poly1305 | None = None
        self._counter = 0

    @property
    def overhead(self) -> int:
        """Bytes that encryption adds now."""
        return TAG_BYTES if self._cipher else 0

    def set_key(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._counter = 0

    def _next_nonce(self) -> bytes:
        nonce = bytes(4) + self._counter.to_bytes(8, "little")
        self._counter += 1
        return nonce

    def encrypt(self, plaintext: bytes, associated: bytes) -> bytes:
        if self._cipher is None:
            return plaintext
        return self._cipher.encrypt(self._next_nonce(), plaintext, associated)

    def decrypt(self, ciphertext: bytes, associated: bytes) -> bytes:
        """Raises: HandshakeFailed when the ciphertext is not the remote's."""
        if self._cipher is None:
            return ciphertext
        try:
            return self._cipher.decrypt(self._next_nonce(), ciphertext, associated)
        except InvalidTag:
            raise HandshakeFailed("a handshake message does not decrypt") from None
