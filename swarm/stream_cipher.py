"""libsodium's secretstream (XChaCha20-Poly1305): an ordered stream of sealed messages.

Each message grows by 17 bytes: an encrypted tag byte in front and the authenticator behind.
Tags are always MESSAGE (0) when sent and not looked at when received, as in the originals.

Calls go through PyNaCl's own cffi handle, which costs a quarter of its public bindings on small
messages; the bindings remain for a PyNaCl that hides the handle.

Source: libsodium crypto_secretstream; @hyperswarm/secret-stream 6.9.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from nacl import bindings
from nacl.exceptions import CryptoError

from swarm.errors import MalformedPacket
from swarm.frames import MAX_FRAME_BYTES, PREFIX_BYTES

try:
    from nacl._sodium import ffi as _ffi  # type: ignore[import-not-found]  # compiled, no stubs
    from nacl._sodium import lib as _lib
except ImportError:  # pragma: no cover - depends on how PyNaCl was built
    _ffi = _lib = None

HEADER_BYTES = 24
OVERHEAD_BYTES = 17
MAX_MESSAGE_BYTES = MAX_FRAME_BYTES - OVERHEAD_BYTES

_KEPT_SCRATCH_BYTES = 2**19  # a connection that once saw a huge message does not keep its size
_UNDECIPHERABLE = "a message does not decrypt"


class Push(Protocol):
    """The sending side."""

    def encrypt_frames(self, messages: Sequence[bytes]) -> bytes:
        """The messages sealed and framed, one after the other, ready for the wire.

        Requires at most MAX_MESSAGE_BYTES in each.
        """


class Pull(Protocol):
    """The receiving side."""

    def decrypt(self, frames: Sequence[bytes]) -> list[bytes]:
        """The messages inside; empty ones (keep-alives) are left out.

        Raises: MalformedPacket, after which the stream is of no use.
        """


class NativePush:
    """`Push` through the cffi handle."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = _native_state(key, header)
        self._scratch = _Scratch()

    def encrypt_frames(self, messages: Sequence[bytes]) -> bytes:
        push = _lib.crypto_secretstream_xchacha20poly1305_push
        null = _ffi.NULL
        total = (PREFIX_BYTES + OVERHEAD_BYTES) * len(messages) + sum(map(len, messages))
        pointer, view = self._scratch.reserve(total)
        offset = 0
        for message in messages:
            size = len(message)
            start = offset + PREFIX_BYTES
            view[offset:start] = (size + OVERHEAD_BYTES).to_bytes(PREFIX_BYTES, "little")
            push(self._state, pointer + start, null, message, size, null, 0, 0)
            offset = start + size + OVERHEAD_BYTES
        frames: bytes = view[:total]
        return frames


class NativePull:
    """`Pull` through the cffi handle."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = _native_state(key, header)
        self._scratch = _Scratch()

    def decrypt(self, frames: Sequence[bytes]) -> list[bytes]:
        pull = _lib.crypto_secretstream_xchacha20poly1305_pull
        null = _ffi.NULL
        messages: list[bytes] = []
        for frame in frames:
            size = len(frame) - OVERHEAD_BYTES
            if size < 0:
                raise MalformedPacket(f"a message of {len(frame)} bytes, at least {OVERHEAD_BYTES}")
            pointer, view = self._scratch.reserve(size)
            if pull(self._state, pointer, null, null, frame, size + OVERHEAD_BYTES, null, 0):
                raise MalformedPacket(_UNDECIPHERABLE)
            if size:
                messages.append(view[:size])
        return messages


class _Scratch:
    """Memory that libsodium writes into, reused from call to call."""

    __slots__ = ("_capacity", "_pointer", "_view")

    def __init__(self) -> None:
        self._capacity = -1

    def reserve(self, size: int) -> tuple[Any, Any]:  # cffi has no types for what these are
        """A pointer to at least `size` bytes, and a buffer over the same memory."""
        if size > self._capacity or self._capacity > _KEPT_SCRATCH_BYTES:
            self._capacity = max(size, 4096)
            self._pointer = _ffi.new("unsigned char[]", self._capacity)
            self._view = _ffi.buffer(self._pointer)
        return self._pointer, self._view


def _native_state(key: bytes, header: bytes) -> Any:  # a cffi array
    """A stream state; a sender's and a receiver's are the same for the same header."""
    state = _ffi.new("unsigned char[]", bindings.crypto_secretstream_xchacha20poly1305_STATEBYTES)
    _lib.crypto_secretstream_xchacha20poly1305_init_pull(state, header, key)
    return state


class PortablePush:
    """`Push` through the public bindings."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = _portable_state(key, header)

    def encrypt_frames(self, messages: Sequence[bytes]) -> bytes:
        parts: list[bytes] = []
        for message in messages:
            parts.append((len(message) + OVERHEAD_BYTES).to_bytes(PREFIX_BYTES, "little"))
            parts.append(
                bindings.crypto_secretstream_xchacha20poly1305_push(self._state, message, None, 0)
            )
        return b"".join(parts)


class PortablePull:
    """`Pull` through the public bindings."""

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = _portable_state(key, header)

    def decrypt(self, frames: Sequence[bytes]) -> list[bytes]:
        messages: list[bytes] = []
        for frame in frames:
            if len(frame) < OVERHEAD_BYTES:
                raise MalformedPacket(f"a message of {len(frame)} bytes, at least {OVERHEAD_BYTES}")
            try:
                message, _ = bindings.crypto_secretstream_xchacha20poly1305_pull(
                    self._state, frame, None
                )
            except CryptoError:
                raise MalformedPacket(_UNDECIPHERABLE) from None
            if message:
                messages.append(message)
        return messages


def _portable_state(
    key: bytes, header: bytes
) -> bindings.crypto_secretstream_xchacha20poly1305_state:
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, header, key)
    return state


def create_push(key: bytes, header: bytes) -> Push:
    """Requires a 32-byte key and a random 24-byte header, which the receiver must be told."""
    return PortablePush(key, header) if _lib is None else NativePush(key, header)


def create_pull(key: bytes, header: bytes) -> Pull:
    return PortablePull(key, header) if _lib is None else NativePull(key, header)
