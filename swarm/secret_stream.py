"""An encrypted stream of messages over a stream of bytes, as a machine.

| unit, each in a frame | bytes         | meaning                                             |
|-----------------------|---------------|-----------------------------------------------------|
| Noise XX, 3 messages  | 32, 96, 64    | initiator, responder, initiator                     |
| header, one each way  | 32 + 24       | stream id of the sender's role, secretstream header |
| message, any number   | 17 + its size | secretstream; an empty one keeps the peer informed  |

Where a handshake was held before there was a stream, its messages are left out. The responder then
sends its header when it has the initiator's: so nobody can make us send anything to somebody else.

The stream id is H(key = handshake hash; namespace of the sender's role).

Source: @hyperswarm/secret-stream 6.9.2.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from hypercore.crypto import Entropy, KeyPair, blake2b, namespace, system_entropy
from swarm.errors import HandshakeFailed, MalformedPacket, SwarmError
from swarm.frames import FrameDecoder, encode_frame
from swarm.noise.handshake import Handshake, HandshakeResult, Pattern
from swarm.stream_cipher import (
    HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    OVERHEAD_BYTES,
    Pull,
    Push,
    create_pull,
    create_push,
)

HANDSHAKE_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 5.0
"""Silence on our side after which we send an empty message; the original's default."""

_MAX_HANDSHAKE_FRAME_BYTES = 128  # the largest is 96: a stranger makes us buffer no more
_STREAM_ID_BYTES = 32
_INITIATOR, _RESPONDER = namespace("hyperswarm/secret-stream", 2)


@dataclass(frozen=True, slots=True)
class Transmit:
    """Bytes for the wire."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """Both ends have proven their keys; messages may be sent from now on."""

    remote_public_key: bytes
    handshake_hash: bytes


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """All messages of one chunk of bytes, in order; at least one."""

    messages: list[bytes]


Output = Transmit | Opened | MessagesReceived


class _State(enum.Enum):
    HANDSHAKE = enum.auto()
    HEADER = enum.auto()
    OPEN = enum.auto()
    FAILED = enum.auto()


class SecretStream:
    """One end of an encrypted stream.

    An initiator is open as soon as the responder has proven its key: its first messages leave
    with its last handshake message. A responder is open when the initiator's header has come.

    Raises: HandshakeFailed until it is open, MalformedPacket afterwards; either leaves it
    failed for good.
    """

    def __init__(
        self,
        key_pair: KeyPair,
        *,
        is_initiator: bool,
        now: float,
        entropy: Entropy = system_entropy,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        handshake: HandshakeResult | None = None,
    ) -> None:
        """`handshake` is the result of one that was held elsewhere."""
        self.is_initiator = is_initiator
        self.messages_received = 0
        """Keep-alives included, as in `messages_sent`."""
        self.messages_sent = 0
        self.keep_alives_received = 0
        self.max_message_bytes = max_message_bytes
        self._entropy = entropy
        self._handshake = Handshake(
            Pattern.XX, key_pair, is_initiator=is_initiator, entropy=entropy
        )
        self._result = handshake
        self._decoder = FrameDecoder(_MAX_HANDSHAKE_FRAME_BYTES)
        self._push: Push | None = None
        self._pull: Pull | None = None
        self._state = _State.HANDSHAKE if handshake is None else _State.HEADER
        self._is_opened = False  # an initiator is before the remote's header has come
        self._deadline = now + HANDSHAKE_SECONDS

    @property
    def deadline(self) -> float | None:
        """When `advance` wants to be called: to give up the handshake, or to keep alive."""
        return None if self._state is _State.FAILED else self._deadline

    @property
    def partial_bytes(self) -> int:
        """Of a message that has not come whole."""
        return self._decoder.buffered_bytes

    def start(self) -> list[Output]:
        """The initiator's first message; nothing from a responder."""
        if not self.is_initiator:
            return []
        if self._result is None:
            return [Transmit(encode_frame(self._handshake.send()))]
        outputs: list[Output] = [Transmit(self._create_header(self._result))]
        self._open(self._result, outputs)
        return outputs

    def receive(self, data: bytes, now: float) -> list[Output]:
        """Bytes from the remote, cut anywhere."""
        if self._state is _State.FAILED:
            raise MalformedPacket("the stream has failed before")
        try:
            return self._receive(data, now)
        except SwarmError as error:
            raise self._fail(error) from None

    def _receive(self, data: bytes, now: float) -> list[Output]:
        outputs: list[Output] = []
        self._decoder.add(data)
        while self._pull is None:
            frame = self._decoder.take()
            if frame is None:
                return outputs
            self._receive_setup(frame, now, outputs)
        frames = self._decoder.take_all()
        messages = self._pull.decrypt(frames)
        self.messages_received += len(frames)
        self.keep_alives_received += len(frames) - len(messages)
        if messages:
            outputs.append(MessagesReceived(messages))
        return outputs

    def receive_end(self) -> None:
        """The remote ended its bytes: an error in the middle of anything."""
        if not self._is_opened:
            raise self._fail(HandshakeFailed("the remote hung up during the handshake"))
        if self._decoder.buffered_bytes:
            raise self._fail(MalformedPacket("the stream ends within a frame"))

    def close(self) -> None:
        """Refuse everything from now on, and keep nothing of a message that will not come whole."""
        self._state = _State.FAILED
        self._decoder.clear()

    def send(self, messages: Sequence[bytes], now: float) -> list[Output]:
        """Seal messages. Requires an open stream.

        Raises: ValueError for more than `MAX_MESSAGE_BYTES` in one; then none of them is sealed.
        """
        if self._push is None or not self._is_opened or self._state is _State.FAILED:
            raise MalformedPacket(f"cannot send on a stream that is {self._state.name}")
        if (longest := max(map(len, messages), default=0)) > MAX_MESSAGE_BYTES:
            # With half of them sealed, the remote could read nothing that follows.
            raise ValueError(f"a message of {longest} bytes, at most {MAX_MESSAGE_BYTES}")
        if self._state is _State.OPEN:
            self._deadline = now + KEEP_ALIVE_SECONDS
        self.messages_sent += len(messages)
        return [Transmit(self._push.encrypt_frames(messages))]

    def advance(self, now: float) -> list[Output]:
        """The deadline passed."""
        if now < self._deadline:
            return []
        match self._state:
            case _State.HANDSHAKE | _State.HEADER:
                raise self._fail(HandshakeFailed(f"no handshake within {HANDSHAKE_SECONDS:g} s"))
            case _State.OPEN:
                return self.send((b"",), now)
            case _State.FAILED:
                return []
            case _:
                assert_never(self._state)

    def _receive_setup(self, frame: bytes, now: float, outputs: list[Output]) -> None:
        match self._state:
            case _State.HANDSHAKE:
                if self._handshake.receive(frame):
                    raise HandshakeFailed("a handshake message carries a payload")
                reply = b""
                if self._handshake.result is None:
                    reply = encode_frame(self._handshake.send())
                self._result = self._handshake.result
                if self._result is not None:
                    reply += self._create_header(self._result)
                    self._state = _State.HEADER
                outputs.append(Transmit(reply))
                if self.is_initiator and self._result is not None:
                    # Both keys are proven: what we have to say leaves a round trip earlier.
                    self._open(self._result, outputs)
            case _State.HEADER:
                result = self._result
                assert result is not None
                self._verify_header(frame, result)
                if self._push is None:
                    outputs.append(Transmit(self._create_header(result)))
                self._state = _State.OPEN
                self._deadline = now + KEEP_ALIVE_SECONDS
                if not self._is_opened:
                    self._open(result, outputs)
            case _State.OPEN | _State.FAILED:
                raise AssertionError("set up, or given up, already")
            case _:
                assert_never(self._state)

    def _open(self, result: HandshakeResult, outputs: list[Output]) -> None:
        self._is_opened = True
        outputs.append(Opened(result.remote_public_key, result.handshake_hash))

    def _create_header(self, result: HandshakeResult) -> bytes:
        header = self._entropy(HEADER_BYTES)
        self._push = create_push(result.send_key, header)
        return encode_frame(_stream_id(result.handshake_hash, self.is_initiator) + header)

    def _verify_header(self, frame: bytes, result: HandshakeResult) -> None:
        if len(frame) != _STREAM_ID_BYTES + HEADER_BYTES:
            raise HandshakeFailed(f"a header of {len(frame)} bytes")
        expected = _stream_id(result.handshake_hash, not self.is_initiator)
        if not hmac.compare_digest(frame[:_STREAM_ID_BYTES], expected):
            raise HandshakeFailed("the header names another stream")
        self._pull = create_pull(result.receive_key, frame[_STREAM_ID_BYTES:])
        self._decoder.limit_bytes = self.max_message_bytes + OVERHEAD_BYTES

    def _fail(self, error: SwarmError) -> SwarmError:
        """Refuse everything from now on; `error` under the name that fits the time."""
        self._state = _State.FAILED
        return MalformedPacket(str(error)) if self._is_opened else HandshakeFailed(str(error))


def _stream_id(handshake_hash: bytes, is_initiator: bool) -> bytes:
    return blake2b(_INITIATOR if is_initiator else _RESPONDER, key=handshake_hash)
