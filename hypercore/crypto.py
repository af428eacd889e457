"""BLAKE2b, Ed25519 and the keys derived from them.

Hashes are BLAKE2b-256. Signatures are libsodium's Ed25519, with its 64-byte secret keys
(seed, then public key).

Source: hypercore-crypto 3.7.0; z-base-32 ids from hypercore-id-encoding.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b32encode
from collections.abc import Callable
from dataclasses import dataclass, field

from nacl.bindings import (
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
    randombytes,
)
from nacl.exceptions import CryptoError

from hypercore.errors import UsageError

Entropy = Callable[[int], bytes]
"""Gives that many random bytes; tests pass their own."""

system_entropy: Entropy = randombytes

SIGNATURE_BYTES = 64
KEY_BYTES = 32
SECRET_KEY_BYTES = 64

_Z_BASE_32 = "ybndrfg8ejkmcpqxot1uwisza345h769"
_Z_BASE_32_LETTERS = frozenset(_Z_BASE_32)
# Python's own base 32, of bytes and of numbers, in other letters: many times as fast as a loop.
_FROM_RFC_4648 = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", _Z_BASE_32.encode())
_TO_DIGITS = str.maketrans(_Z_BASE_32, "0123456789abcdefghijklmnopqrstuv")
_ID_LENGTH = 52


def blake2b(*parts: bytes, key: bytes = b"", size: int = 32) -> bytes:
    """Hash the concatenation of `parts`; `key` has at most 64 bytes."""
    return hashlib.blake2b(b"".join(parts), digest_size=size, key=key).digest()


def namespace(name: str, count: int) -> list[bytes]:
    """The first `count` domain separators of a protocol: H(H(name) || i)."""
    name_hash = blake2b(name.encode())
    return [blake2b(name_hash, bytes((i,))) for i in range(count)]


def discovery_key(key: bytes) -> bytes:
    """What is announced instead of a core's key: knowing it does not open the core.

    Raises: UsageError for what is no key.
    """
    if len(key) != KEY_BYTES:
        raise UsageError(
            f"a key has {KEY_BYTES} bytes, not {len(key)}: `decode_id` reads what people write"
        )
    return blake2b(b"hypercore", key=key)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair: 32-byte public key, 64-byte secret key (seed, public key)."""

    public_key: bytes
    secret_key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Raises: UsageError for what is no pair: nobody could verify what it would sign."""
        sizes = len(self.public_key), len(self.secret_key)
        if sizes != (KEY_BYTES, SECRET_KEY_BYTES):
            raise UsageError(f"a key pair of {sizes[0]} and {sizes[1]} bytes, not 32 and 64")
        if self.secret_key[-KEY_BYTES:] != self.public_key:
            raise UsageError("a key pair whose public key does not belong to its secret key")

    @classmethod
    def from_seed(cls, seed: bytes) -> KeyPair:
        return cls(*crypto_sign_seed_keypair(seed))

    @classmethod
    def generate(cls, entropy: Entropy = system_entropy) -> KeyPair:
        return cls.from_seed(entropy(32))


def sign(message: bytes, secret_key: bytes) -> bytes:
    """The detached 64-byte signature."""
    return crypto_sign(message, secret_key)[:SIGNATURE_BYTES]


def verify(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the owner of `public_key` signed `message`; False for keys of a wrong size."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        return False
    return True


def z_base_32_encode(data: bytes) -> str:
    return b32encode(data).rstrip(b"=").translate(_FROM_RFC_4648).decode()


def z_base_32_decode(text: str) -> bytes:
    """Raises: ValueError for letters outside the alphabet or left-over bits that are set."""
    if not _Z_BASE_32_LETTERS.issuperset(text):
        letter = next(letter for letter in text if letter not in _Z_BASE_32_LETTERS)
        raise ValueError(f"{letter!r} is not a z-base-32 letter")
    bits = int(text.translate(_TO_DIGITS) or "0", 32)
    size = len(text) * 5 // 8
    spare = len(text) * 5 - size * 8
    if bits & ((1 << spare) - 1):
        raise ValueError("z-base-32 text does not end on a byte")
    return (bits >> spare).to_bytes(size, "big")


def encode_id(key: bytes) -> str:
    """A 32-byte key as 52 z-base-32 letters. Raises: ValueError for any other size."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return z_base_32_encode(key)


def decode_id(text: str) -> bytes:
    """Read a key: 52 z-base-32 letters, 64 hex digits, or either inside a `pear://` link.

    Raises: ValueError when it is none of these.
    """
    link = re.match(r"pear://(?:[^/]*\.)?([^./]+)", text)
    body = link.group(1) if link else text
    if len(body) == 2 * KEY_BYTES:
        return bytes.fromhex(body)
    if len(body) == _ID_LENGTH:
        return z_base_32_decode(body)
    raise ValueError(f"a key is 52 z-base-32 letters or 64 hex digits, not {len(body)} characters")
