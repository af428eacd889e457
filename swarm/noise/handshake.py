"""The Noise handshakes XX and IK as a machine.

| pattern | messages                                 | bytes without payload |
|---------|------------------------------------------|-----------------------|
| XX      | -> e  <- e ee s es  -> s se              | 32, 96, 64            |
| IK      | -> e es s ss  <- e ee se                 | 96, 48                |

IK's initiator knows the responder's key beforehand.

Source: noise-handshake 4; vectors/hypercore/noise.json.
"""

from __future__ import annotations

import copy
import enum
from dataclasses import dataclass, field

from hypercore.crypto import KEY_BYTES, Entropy, KeyPair, system_entropy
from swarm.errors import HandshakeFailed
from swarm.noise.cipher import (
    CIPHER_KEY_BYTES,
    HASH_BYTES,
    CipherState,
    diffie_hellman,
    hkdf,
    noise_hash,
)


class Pattern(enum.Enum):
    """Who sends which tokens, message by message, the initiator first."""

    XX = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
    IK = (("e", "es", "s", "ss"), ("e", "ee", "se"))


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What both ends agreed on; the cipher keys are seen from our side."""

    remote_public_key: bytes
    handshake_hash: bytes
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


class _State(enum.Enum):
    SENDING = enum.auto()
    RECEIVING = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class Handshake:
    """One side of a handshake: `send` and `receive` take turns until `result` is there.

    After an error, or called out of turn, it refuses everything with HandshakeFailed.
    """

    def __init__(
        self,
        pattern: Pattern,
        key_pair: KeyPair,
        *,
        is_initiator: bool,
        prologue: bytes = b"",
        remote_public_key: bytes | None = None,
        entropy: Entropy = system_entropy,
    ) -> None:
        if (pattern is Pattern.IK and is_initiator) != (remote_public_key is not None):
            raise ValueError("the remote key is known beforehand to IK's initiator and nobody else")
        self.is_initiator = is_initiator
        self.result: HandshakeResult | None = None
        self._messages = list(pattern.value)
        self._static = key_pair
        self._entropy = entropy
        self._ephemeral: KeyPair | None = None
        self._remote_static = remote_public_key
        self._remote_ephemeral: bytes | None = None
        self._cipher = CipherState()
        self._hash = f"Noise_{pattern.name}_Ed25519_ChaChaPoly_BLAKE2b".encode().ljust(
            HASH_BYTES, b"\0"
        )
        self._chaining_key = self._hash
        self._state = _State.SENDING if is_initiator else _State.RECEIVING
        self._mix_hash(prologue)
        if pattern is Pattern.IK:
            self._mix_hash(remote_public_key or key_pair.public_key)

    @property
    def remote_public_key(self) -> bytes | None:
        """The remote's static key, as soon as it is known."""
        return self._remote_static

    def copy(self) -> Handshake:
        """Another handshake in the same state: what one goes through leaves the other alone.

        Where anybody may answer, a forged answer then does not spoil the genuine one.
        """
        twin = copy.copy(self)
        twin._messages = list(self._messages)
        twin._cipher = copy.copy(self._cipher)
        return twin

    def send(self, payload: bytes = b"") -> bytes:
        """The next message to transmit. Raises: HandshakeFailed."""
        self._expect(_State.SENDING)
        parts: list[bytes] = []
        for token in self._messages.pop(0):
            match token:
                case "e":
                    self._ephemeral = KeyPair.from_seed(self._entropy(32))
                    self._mix_hash(self._ephemeral.public_key)
                    parts.append(self._ephemeral.public_key)
                case "s":
                    parts.append(self._encrypt(self._static.public_key))
                case _:
                    self._mix_shared(token)
        parts.append(self._encrypt(payload))
        self._finish_message(_State.RECEIVING)
        return b"".join(parts)

    def receive(self, message: bytes) -> bytes:
        """The payload of the remote's next message. Raises: HandshakeFailed."""
        self._expect(_State.RECEIVING)
        for token in self._messages.pop(0):
            match token:
                case "e":
                    self._remote_ephemeral, message = _split(message, KEY_BYTES)
                    self._mix_hash(self._remote_ephemeral)
                case "s":
                    sealed, message = _split(message, KEY_BYTES + self._cipher.overhead)
                    self._remote_static = self._decrypt(sealed)
                case _:
                    self._mix_shared(token)
        payload = self._decrypt(message)
        self._finish_message(_State.SENDING)
        return payload

    def _expect(self, state: _State) -> None:
        """Refuse what is out of turn; an error below leaves the machine in FAILED."""
        if self._state is not state:
            raise HandshakeFailed(f"handshake is {self._state.name}, not {state.name}")
        self._state = _State.FAILED

    def _finish_message(self, state: _State) -> None:
        if self._messages:
            self._state = state
            return
        assert self._remote_static is not None
        first, second = (key[:CIPHER_KEY_BYTES] for key in hkdf(self._chaining_key, b""))
        if not self.is_initiator:
            first, second = second, first
        self.result = HandshakeResult(self._remote_static, self._hash, first, second)
        self._state = _State.DONE

    def _mix_hash(self, data: bytes) -> None:
        self._hash = noise_hash(self._hash, data)

    def _encrypt(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(plaintext, self._hash)
        self._mix_hash(ciphertext)
        return ciphertext

    def _decrypt(self, ciphertext: bytes) -> bytes:
        plaintext = self._cipher.decrypt(ciphertext, self._hash)
        self._mix_hash(ciphertext)
        return plaintext

    def _mix_shared(self, token: str) -> None:
        """Mix a shared secret in: the token names the initiator's key, then the responder's."""
        ours, theirs = (token[0], token[1]) if self.is_initiator else (token[1], token[0])
        key_pair = self._ephemeral if ours == "e" else self._static
        remote = self._remote_ephemeral if theirs == "e" else self._remote_static
        assert key_pair is not None
        assert remote is not None
        self._chaining_key, key = hkdf(self._chaining_key, diffie_hellman(key_pair, remote))
        self._cipher.set_key(key[:CIPHER_KEY_BYTES])


def _split(message: bytes, size: int) -> tuple[bytes, bytes]:
    if len(message) < size:
        raise HandshakeFailed(f"handshake message cut off: {len(message)} of {size} bytes")
    return message[:size], message[size:]
