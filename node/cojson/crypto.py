"""The hashes, texts and signatures that cojson is made of.

| text                 | bytes                                               |
|----------------------|-----------------------------------------------------|
| `hash_z...`          | base58 of BLAKE3, 32 bytes                          |
| `shortHash_z...`     | base58 of the first 19 bytes of BLAKE3              |
| `co_z...`            | the same 19 bytes, of a header's canonical JSON     |
| `signer_z...`        | base58 of an Ed25519 public key                     |
| `signature_z...`     | base58 of an Ed25519 signature, 64 bytes            |

Source: cojson 0.20.19 crypto/crypto.ts and its native core.
"""

from __future__ import annotations

from blake3 import blake3
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from hypercore.encoding import DecodeError
from node.cojson.base58 import base58_decode, base58_encode

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
SHORT_HASH_BYTES = 19

SIGNATURE_PREFIX = "signature_z"
SIGNER_PREFIX = "signer_z"
_HASH_PREFIX = "hash_z"
_SHORT_HASH_PREFIX = "shortHash_z"

RunningHash = blake3
"""The BLAKE3 state over a session's transactions; `copy()` makes it branch."""


def hash_text(running: RunningHash) -> str:
    """`hash_z...` of everything fed to `running` so far."""
    return _HASH_PREFIX + base58_encode(running.digest())


def short_hash(canonical: str) -> str:
    """`shortHash_z...` of canonical JSON: what reconciliation compares."""
    return _SHORT_HASH_PREFIX + base58_encode(blake3(canonical.encode()).digest(SHORT_HASH_BYTES))


def header_digest(canonical_header: str) -> bytes:
    """The 19 bytes that an id shows."""
    return blake3(canonical_header.encode()).digest(SHORT_HASH_BYTES)


def co_id_of(canonical_header: str) -> str:
    """The id that a header with this canonical JSON has."""
    return "co_z" + base58_encode(header_digest(canonical_header))


class _SignatureTexts:
    """Signatures met lately, both ways: the same one is read, stored and sent within moments.

    Writing or reading one takes 10 µs, which was a tenth of the work of a small upload.
    """

    MAX_ENTRIES = 4096
    """About 350 bytes each, both ways together."""

    def __init__(self) -> None:
        self._texts: dict[bytes, str] = {}
        self._signatures: dict[str, bytes] = {}

    def text(self, signature: bytes) -> str:
        text = self._texts.get(signature)
        if text is None:
            text = SIGNATURE_PREFIX + base58_encode(signature)
            self._add(signature, text)
        return text

    def signature(self, text: str) -> bytes:
        """Raises: DecodeError."""
        signature = self._signatures.get(text)
        if signature is None:
            signature = _parse_signature(text)
            self._add(signature, text)
        return signature

    def _add(self, signature: bytes, text: str) -> None:
        if len(self._texts) >= self.MAX_ENTRIES:
            self._texts.clear()
            self._signatures.clear()
        self._texts[signature] = text
        self._signatures[text] = signature


def _parse_signature(text: str) -> bytes:
    # 64 bytes are 64 (all zero) to 88 letters; longer texts are not worth decoding.
    if not text.startswith(SIGNATURE_PREFIX) or len(text) > len(SIGNATURE_PREFIX) + 88:
        raise DecodeError("not a signature", 0)
    signature = base58_decode(text[len(SIGNATURE_PREFIX) :])
    if len(signature) != SIGNATURE_BYTES:
        raise DecodeError(f"signature of {len(signature)} bytes", 0)
    return signature


_signature_texts = _SignatureTexts()


def decode_signature(text: str) -> bytes:
    """The 64 bytes of `signature_z...`. Raises: DecodeError."""
    return _signature_texts.signature(text)


def encode_signature(signature: bytes) -> str:
    return _signature_texts.text(signature)


def signed_bytes(running: RunningHash) -> bytes:
    """What a session's author signs: the hash's text as a JSON string, quotation marks included."""
    return f'"{hash_text(running)}"'.encode()


def verify_session(running: RunningHash, signature: bytes, public_key: bytes) -> bool:
    """Whether `public_key` signed a session at exactly this point; 64 and 32 bytes required."""
    try:
        crypto_sign_open(signature + signed_bytes(running), public_key)
    except CryptoError:
        return False
    return True
