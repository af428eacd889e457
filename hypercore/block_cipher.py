"""Encryption of blocks, so that peers without the key can still store and serve them.

| part       | bytes | is                                                             |
|------------|-------|----------------------------------------------------------------|
| padding    | 8     | u64 fork, XSalsa20 under the blinding key, nonce u64 index     |
| ciphertext | rest  | block, XSalsa20 under the block key, nonce u64 index + padding |

Nonces are filled up with zeros to 24 bytes. Nothing authenticates a block here: the Merkle
tree does, over the stored form. (index, fork) never repeats with other content, so neither
does a nonce.

Worked example: "hello", index 0, fork 0, with the vectors' first key, is
`11 15 26 d8 f7 35 12 9e` + `95 6e 77 c7 79`.

Source: hypercore 11.37.1 lib/default-encryption.js.
"""

from __future__ import annotations

import ctypes
import struct

import nacl._sodium  # type: ignore[import-not-found]  # an extension module without stubs
from nacl.bindings import crypto_secretbox

from hypercore.crypto import blake2b, namespace
from hypercore.encoding import encode_uint64
from hypercore.given_blocks import check_index

PADDING = 8
"""Bytes that encryption adds to every block."""

_DEFAULT_ENCRYPTION = namespace("hypercore", 6)[5]


class BlockCipher:
    """Encrypts and decrypts the blocks of one core.

    `encryption_key` is the core's secret, or with `is_block_key` the derived key itself (for
    handing out one core's key only). `compat` is for cores whose key is their signer's.
    """

    __slots__ = ("blinding_key", "block_key")

    padding = PADDING

    def __init__(
        self,
        encryption_key: bytes,
        core_key: bytes,
        *,
        is_block_key: bool = False,
        compat: bool = False,
    ) -> None:
        if is_block_key:
            self.block_key = encryption_key
        else:
            self.block_key = derive_block_key(encryption_key, core_key, compat=compat)
        self.blinding_key = blake2b(self.block_key)

    def encrypt(self, index: int, fork: int, block: bytes) -> bytes:
        """The stored form of a block appended at `index` while the log is at `fork`."""
        number = _encode(index)
        padding = xsalsa20_xor(_encode(fork), number + bytes(16), self.blinding_key)
        return padding + xsalsa20_xor(block, number + padding + bytes(8), self.block_key)

    def fork_of(self, index: int, block: bytes) -> int:
        """The fork in the padding of a stored block; a random number if the key is wrong."""
        nonce = _encode(index) + bytes(16)
        return int.from_bytes(xsalsa20_xor(block[:PADDING], nonce, self.blinding_key), "little")

    def decrypt(self, index: int, block: bytes) -> bytes:
        """The block in a stored form; any fork.

        Raises: ValueError when it is shorter than its padding.
        """
        if len(block) < PADDING:
            raise ValueError(f"an encrypted block of {len(block)} bytes, at least {PADDING}")
        nonce = _encode(index) + block[:PADDING] + bytes(8)
        return xsalsa20_xor(block[PADDING:], nonce, self.block_key)


def _encode(number: int) -> bytes:
    """Raises: TypeError, OutOfRange."""
    try:
        return encode_uint64(number)
    except struct.error:
        check_index(number, 1 << 64)
        raise


def derive_block_key(encryption_key: bytes, core_key: bytes, *, compat: bool = False) -> bytes:
    """The key of one core's blocks, from a secret that may serve many cores."""
    if compat:
        return blake2b(encryption_key, key=core_key)
    return blake2b(_DEFAULT_ENCRYPTION, core_key, encryption_key)


def xsalsa20_xor(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """Encrypt or decrypt: `nonce` has 24 bytes, `key` 32."""
    if _native_xor is None:
        return xsalsa20_xor_portable(message, nonce, key)
    result = ctypes.create_string_buffer(len(message))
    _native_xor(result, message, len(message), nonce, key)
    return result.raw


def xsalsa20_xor_portable(message: bytes, nonce: bytes, key: bytes) -> bytes:
    """`xsalsa20_xor` without the library's own function, about a hundred times slower.

    PyNaCl binds secretbox, whose ciphertext is this keystream from byte 32 on. The bytes before
    it come from Salsa20 in Python.
    """
    first = _salsa20_block(_hsalsa20(key, nonce[:16]), nonce[16:] + bytes(8))
    head = bytes(a ^ b for a, b in zip(message[:32], first, strict=False))
    if len(message) <= 32:
        return head
    return head + crypto_secretbox(message[32:], nonce, key)[16:]


_NativeXor = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_ulonglong,
    ctypes.c_char_p,
    ctypes.c_char_p,
)


def _load_native_xor() -> ctypes._CFunctionType | None:
    """The function of libsodium itself: PyNaCl brings the library, but does not bind this."""
    try:
        library = ctypes.CDLL(nacl._sodium.__file__)
        return _NativeXor(("crypto_stream_xsalsa20_xor", library))
    except (OSError, AttributeError):
        return None


_native_xor = _load_native_xor()

_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_QUARTERS = (
    (0, 4, 8, 12),
    (5, 9, 13, 1),
    (10, 14, 2, 6),
    (15, 3, 7, 11),
    (0, 1, 2, 3),
    (5, 6, 7, 4),
    (10, 11, 8, 9),
    (15, 12, 13, 14),
)


def _salsa20_state(key: bytes, nonce: bytes) -> list[int]:
    k = struct.unpack("<8I", key)
    n = struct.unpack("<4I", nonce)
    return [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]


def _salsa20_rounds(state: list[int]) -> list[int]:
    x = list(state)
    for _ in range(10):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return x


def _rotated(word: int, bits: int) -> int:
    word &= 0xFFFFFFFF
    return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF


def _hsalsa20(key: bytes, nonce: bytes) -> bytes:
    x = _salsa20_rounds(_salsa20_state(key, nonce))
    return struct.pack("<8I", *(x[i] for i in (0, 5, 10, 15, 6, 7, 8, 9)))


def _salsa20_block(key: bytes, nonce: bytes) -> bytes:
    state = _salsa20_state(key, nonce)
    mixed = _salsa20_rounds(state)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(state, mixed, strict=True)))
