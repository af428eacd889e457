"""The hashes, texts and signatures that cojson is made of.

| text                 | bytes                                               |
|----------------------|-----------------------------------------------------|
| `hash_z...`          | base58 of BLAKE3, 32 bytes                          |
| `shortHash_z...`     | base58 of the first 19 bytes of BLAKE3              |
| `co_z...`            | the same 19 bytes, of a header's canonical JSON     |
| `signer_z...`        | base58 of an Ed25519 public key                     |
| `signature_z...`     | base58 of an Ed25519 signature, 64 bytes            |

base58 is Bitcoin's alphabet without a checksum. Worked example: b"\\x00\\x01" is "12".

Source: cojson 0.20.19 crypto/crypto.ts and its native core.
"""

from __future__ import annotations

from blake3 import blake3
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from hypercore.encoding import DecodeError

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
SHORT_HASH_BYTES = 19

SIGNATURE_PREFIX = "signature_z"
SIGNER_PREFIX = "signer_z"
_HASH_PREFIX = "hash_z"
_SHORT_HASH_PREFIX = "shortHash_z"

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_MAX_BASE58_LETTERS = 128
_MAX_BASE58_BYTES = 93
_NO_LETTER = 0xFF
_LETTER_VALUES = bytes(
    _ALPHABET.find(chr(code)) if chr(code) in _ALPHABET else _NO_LETTER for code in range(256)
)
_NOT_LETTERS = bytes(code for code, value in enumerate(_LETTER_VALUES) if value == _NO_LETTER)

RunningHash = blake3
"""The BLAKE3 state over a session's transactions; `copy()` makes it branch."""


def _split_steps() -> tuple[tuple[int, int, int, int], ...]:
    """For lanes of 256, 128, ... bits: what splits each into two lanes of half its width.

    A lane of w bits holds w / 16 letters, a number below 58**(w / 16). Multiplied with `factor`
    and shifted by `shift` it is the quotient by half the letters, which `mask` frees from what its
    neighbor left. The quotient times `move` takes it out of the lower half and into the upper.
    """
    steps = []
    for letters in (16, 8, 4, 2):
        width = 16 * letters
        radix: int = 58 ** (letters // 2)
        shift = (58**letters).bit_length() + radix.bit_length()
        factor = -(-(1 << shift) // radix)
        low = (1 << radix.bit_length()) - 1
        mask = sum(low << lane for lane in range(0, 16 * _MAX_BASE58_LETTERS, width))
        steps.append((factor, shift, mask, (1 << width // 2) - radix))
    return tuple(steps)


_SPLIT_STEPS = _split_steps()
_RADIX_16 = 58**16
_LETTERS = _ALPHABET.encode().ljust(256)


def base58_encode(data: bytes) -> str:
    """The letters of at most 93 bytes.

    Numbers of 16 letters lie side by side in one long integer. Each step splits all of them in
    halves at once, until there is one letter a lane: two thirds of the time that one division for
    every ten letters takes (3 us instead of 4 for a hash, 5 instead of 8 for a signature).

    Raises: ValueError for more.
    """
    if len(data) > _MAX_BASE58_BYTES:
        raise ValueError(f"{len(data)} bytes are too many for base58")
    number = int.from_bytes(data, "big")
    lanes = lane = 0
    while number:
        number, word = divmod(number, _RADIX_16)
        lanes |= word << lane
        lane += 256
    for factor, shift, mask, move in _SPLIT_STEPS:
        lanes += (lanes * factor >> shift & mask) * move
    letters = lanes.to_bytes(lane // 8, "big")[1::2].lstrip(b"\0").translate(_LETTERS)
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + letters.decode()


def _join_steps() -> tuple[tuple[int, int, int], ...]:
    """For lanes of 16, 32, ... bits: half their width, a mask of their low halves, the radix."""
    steps = []
    for half in (8, 16, 32, 64, 128, 256, 512):
        low = (1 << half) - 1
        mask = sum(low << lane for lane in range(0, 8 * _MAX_BASE58_LETTERS, 2 * half))
        steps.append((half, mask, 58 ** (half // 8)))
    return tuple(steps)


_JOIN_STEPS = _join_steps()


def base58_decode(text: str) -> bytes:
    """The bytes of at most 128 letters.

    Letter values lie side by side in one long integer, one a byte. Each step joins all
    neighbors at once, so that seven steps do for 128 letters: a quarter of the time that one
    multiplication for every ten letters takes (2 us instead of 9 for a signature).

    Raises: DecodeError for a letter outside the alphabet, and for longer texts.
    """
    letters = text.encode("utf-8", "surrogatepass")
    if len(letters) > _MAX_BASE58_LETTERS or letters.translate(None, _NOT_LETTERS) != letters:
        raise DecodeError("not base58, or too long", 0)
    number = int.from_bytes(letters.translate(_LETTER_VALUES), "big")
    for half, mask, radix in _JOIN_STEPS:
        number = (number >> half & mask) * radix + (number & mask)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


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
