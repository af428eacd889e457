"""Protomux: many channels over one stream of messages, as a machine.

A frame is one message of the stream below: `uint channel | uint type | body`, where `channel` is
the *sender's* number of the channel. Channel 0 carries control:

| type     | body                                                                           |
|----------|--------------------------------------------------------------------------------|
| 0 batch  | uint channel, then any of: uint n > 0, n bytes `uint type | body`; or 0, uint channel |
| 1 open   | uint number, string protocol, optional buffer id, then the handshake           |
| 2 reject | uint number: the receiver's, which it had offered                              |
| 3 close  | uint number: the sender's                                                      |

Both ends open a channel independently; opens of the same (protocol, id) pair up in order, and
nothing acknowledges one. A number is offered again only when the remote is known to have
forgotten it: it answered the open that offered it, by its own or by a reject.

Worked example: messages "one" (type 0) and 0x05 (type 1) on channel 1 are the batch
`00 00 01 04 00 6f 6e 65 02 01 05`.

Source: protomux 3.12.1; vectors/hypercore/protomux.json.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_optional_buffer,
    encode_string,
    encode_uint,
)
from swarm.errors import MalformedPacket

CONTROL = 0
MAX_BATCH_BYTES = 2**20
"""A frame is sent when it has this size: the receiver has to hold a whole one to decrypt it."""

MAX_MESSAGE_BYTES = 2**24 - 64
"""Largest payload of one message, so that with all headers it fits into one frame."""

MAX_UNCLAIMED_BYTES = 2**17
"""What offers, and messages right behind them, may take up (each counts 512 bytes besides its
own): above it the machine is congested, no more input until some are answered. The original
pauses at 32 KiB, but does not count the opens."""

_MESSAGE_OVERHEAD_BYTES = 512
_STEP_MESSAGES = 4096  # a frame may hold millions of tiny messages: unpack it bit by bit

ChannelKey = tuple[str, bytes | None]
Message = tuple[int, bytes]
"""Type and payload."""


class Control(enum.IntEnum):
    """Message types of channel 0."""

    BATCH = 0
    OPEN = 1
    REJECT = 2
    CLOSE = 3


@dataclass(frozen=True, slots=True)
class Transmit:
    """A message for the remote, to be written after all earlier ones."""

    channel: int
    message_type: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RemoteOpened:
    """The remote offers a channel that nobody here has opened: `open` or `reject` it.

    `offer` is a number that is never used again, unlike the remote's for the channel.
    """

    offer: int
    protocol: str
    id: bytes | None
    handshake: bytes


@dataclass(frozen=True, slots=True)
class RemoteWithdrew:
    """The remote closed what it had offered."""

    offer: int


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """Both opens have been seen."""

    number: int
    handshake: bytes


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """The remote closed the channel, or would not open it. The number may be used again."""

    number: int
    was_rejected: bool


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """Consecutive messages of one channel."""

    number: int
    messages: list[Message]


Output = Transmit | RemoteOpened | RemoteWithdrew | ChannelOpened | ChannelClosed | MessagesReceived


@dataclass(slots=True)
class _Offer:
    """What the remote opened and nobody here has claimed; messages may follow it at once."""

    number: int
    remote: int
    key: ChannelKey
    handshake: bytes
    messages: list[Message] = field(default_factory=list)
    buffered_bytes: int = 0


@dataclass(slots=True)
class _Waiting:
    """Our numbers that were offered under one key and not answered yet, oldest first."""

    numbers: deque[int] = field(default_factory=deque)
    aliases: list[ChannelKey] = field(default_factory=list)


class Mux:
    """The channels of one connection.

    `open`, `close` and `reject` are ours, `receive` is the remote's. Channels are told apart
    by our own numbers. Raises: MalformedPacket, after which it refuses everything.
    """

    def __init__(self, accepted: Iterable[str] = ()) -> None:
        self.accepted = set(accepted)
        """Protocols whose opens are offered; others are rejected at once."""
        self._free_numbers: list[int] = []
        self._next_number = 1
        self._keys: dict[int, ChannelKey] = {}  # of our numbers that the remote has not answered
        self._closed_early: set[int] = set()  # those of them that we have closed meanwhile
        self._waiting: dict[ChannelKey, _Waiting] = {}
        self._aliases: dict[ChannelKey, ChannelKey] = {}
        self._remote_of: dict[int, int] = {}  # paired channels, our number to theirs
        self._local_of: dict[int, int] = {}  # and back
        self._offers: dict[int, _Offer] = {}
        self._remote_offers: dict[int, _Offer] = {}  # the same by the remote's number
        self._offered: dict[ChannelKey, deque[_Offer]] = {}
        self._offer_count = 0
        self._unclaimed_bytes = 0
        self._highest_remote = 0
        self._batch: Reader | None = None
        self._batch_channel = 0
        self._failed = False

    @property
    def is_congested(self) -> bool:
        """Whether offers must be claimed or rejected before anything more is received."""
        return self._unclaimed_bytes > MAX_UNCLAIMED_BYTES

    @property
    def has_more(self) -> bool:
        """Whether the last frame is not unpacked to its end: call `resume`."""
        return self._batch is not None

    def open(
        self,
        protocol: str,
        id: bytes | None,
        handshake: bytes = b"",
        aliases: Sequence[str] = (),
    ) -> tuple[int, list[Output]]:
        """Open a channel; returns its number and what follows: ChannelOpened if it was offered.

        `aliases` are other names by which the remote may open it.
        """
        number = self._free_numbers.pop() if self._free_numbers else self._take_number()
        key = (protocol, id or None)
        payload = b"".join(
            (encode_uint(number), encode_string(protocol), encode_optional_buffer(id), handshake)
        )
        outputs: list[Output] = [Transmit(CONTROL, Control.OPEN, payload)]
        for name in (protocol, *aliases):
            offered = self._offered.get((name, key[1]))
            if offered:
                self._claim(number, offered[0], outputs)
                return number, outputs
        self._keys[number] = key
        waiting = self._waiting.setdefault(key, _Waiting())
        waiting.numbers.append(number)
        for name in aliases:
            alias = (name, key[1])
            self._aliases[alias] = key
            waiting.aliases.append(alias)
        return number, outputs

    def close(self, number: int) -> list[Output]:
        """Close one of our channels, open or not; what was sent on it before still goes out."""
        remote = self._remote_of.pop(number, None)
        if remote is not None:
            del self._local_of[remote]
            self._free_numbers.append(number)
        elif number in self._keys and number not in self._closed_early:
            self._closed_early.add(number)
        else:
            return []  # the remote closed it first
        return [Transmit(CONTROL, Control.CLOSE, encode_uint(number))]

    def is_offered(self, offer: int) -> bool:
        """Whether this offer is neither claimed nor rejected nor withdrawn."""
        return offer in self._offers

    def reject(self, offer: int) -> list[Output]:
        """Turn an offer down; nothing happens when it was answered or withdrawn already."""
        found = self._offers.get(offer)
        if found is None:
            return []
        self._forget_offer(found)
        return [Transmit(CONTROL, Control.REJECT, encode_uint(found.remote))]

    def reject_all(self, protocol: str) -> list[Output]:
        """Turn down every offer of a protocol and all that come, until it is accepted again."""
        self.accepted.discard(protocol)
        offers = [number for number, offer in self._offers.items() if offer.key[0] == protocol]
        return [output for number in offers for output in self.reject(number)]

    def receive(self, frame: bytes) -> list[Output]:
        """One message of the stream below. Requires `has_more` to be false."""
        if self._failed:
            raise MalformedPacket("the multiplexer has failed before")
        outputs: list[Output] = []
        reader = Reader(frame)
        try:
            channel = reader.uint()
            message_type = reader.uint()
            if channel == CONTROL and message_type == Control.BATCH:
                self._batch_channel = reader.uint()
                self._batch = reader
                self._unpack(outputs)
            elif channel == CONTROL:
                self._receive_control(message_type, reader, outputs)
            else:
                self._deliver(channel, [(message_type, reader.rest())], outputs)
        except (DecodeError, MalformedPacket) as error:
            raise self._fail(error) from None
        return outputs

    def resume(self) -> list[Output]:
        """More of the last frame."""
        outputs: list[Output] = []
        try:
            self._unpack(outputs)
        except (DecodeError, MalformedPacket) as error:
            raise self._fail(error) from None
        return outputs

    def _fail(self, error: Exception) -> MalformedPacket:
        self._failed = True
        self._batch = None
        return MalformedPacket(f"multiplexer: {error}")

    def _unpack(self, outputs: list[Output]) -> None:
        """Deliver the next messages of a batch, runs of one channel at a time."""
        reader = self._batch
        if reader is None:
            return
        data, offset, stop = reader.data, reader.offset, reader.stop
        channel = self._batch_channel
        run: list[Message] = []
        left = _STEP_MESSAGES
        while offset < stop and left:
            size = data[offset]
            offset += 1
            if size == 0 or size > 0xFC:
                reader.offset = offset - 1
                size = reader.uint()
                if size == 0:
                    self._deliver(channel, run, outputs)
                    channel, run = reader.uint(), []
                    offset = reader.offset
                    left -= 1  # a frame may hold nothing else
                    continue
                offset = reader.offset
            end = offset + size
            if end > stop:
                raise DecodeError(f"{size} bytes wanted, {stop - offset} left", offset)
            left -= 1
            message_type = data[offset]
            if channel and message_type <= 0xFC:
                run.append((message_type, data[offset + 1 : end]))
            else:
                message = Reader(data, offset, end)
                message_type = message.uint()
                if channel:
                    run.append((message_type, message.rest()))
                else:
                    self._receive_control(message_type, message, outputs)
            offset = end
        self._deliver(channel, run, outputs)
        reader.offset = offset
        self._batch_channel = channel
        if offset == stop:
            self._batch = None

    def _deliver(self, remote: int, messages: list[Message], outputs: list[Output]) -> None:
        if not messages:
            return
        number = self._local_of.get(remote)
        if number is not None:
            outputs.append(MessagesReceived(number, messages))
            return
        offer = self._remote_offers.get(remote)
        if offer is not None:
            size = sum(_MESSAGE_OVERHEAD_BYTES + len(payload) for _, payload in messages)
            offer.messages += messages
            offer.buffered_bytes += size
            self._unclaimed_bytes += size
        # Else the channel is closed here and its last messages crossed ours: nobody's error.

    def _receive_control(self, message_type: int, reader: Reader, outputs: list[Output]) -> None:
        match message_type:
            case Control.BATCH:
                raise MalformedPacket("a batch within a batch")
            case Control.OPEN:
                self._receive_open(reader, outputs)
            case Control.REJECT:
                self._receive_reject(reader.uint(), outputs)
            case Control.CLOSE:
                self._receive_close(reader.uint(), outputs)
            case _:
                pass  # of a version to come: ignored, as in the original

    def _receive_open(self, reader: Reader, outputs: list[Output]) -> None:
        remote = reader.uint()
        protocol = reader.string()
        id = reader.optional_buffer()
        handshake = reader.rest()
        if remote == CONTROL:
            outputs.append(Transmit(CONTROL, Control.REJECT, encode_uint(CONTROL)))
            return
        if remote > self._highest_remote + 1:
            raise MalformedPacket(f"channel {remote} opened after {self._highest_remote}")
        if remote in self._local_of or remote in self._remote_offers:
            raise MalformedPacket(f"channel {remote} opened twice")
        self._highest_remote = max(self._highest_remote, remote)
        key = (protocol, id)
        key = self._aliases.get(key, key)
        waiting = self._waiting.get(key)
        if waiting is not None:
            number = waiting.numbers[0]
            if self._settle(number):
                self._pair(number, remote)
                outputs.append(ChannelOpened(number, handshake))
            else:
                self._free_numbers.append(number)  # the remote will hear that we closed it
        elif protocol in self.accepted:
            offer = self._add_offer(remote, key, handshake)
            outputs.append(RemoteOpened(offer.number, protocol, id, handshake))
        else:
            outputs.append(Transmit(CONTROL, Control.REJECT, encode_uint(remote)))

    def _receive_reject(self, number: int, outputs: list[Output]) -> None:
        if number not in self._keys:
            raise MalformedPacket(f"channel {number} rejected, which was not offered")
        was_open = self._settle(number)
        self._free_numbers.append(number)
        if was_open:
            outputs.append(ChannelClosed(number, was_rejected=True))

    def _receive_close(self, remote: int, outputs: list[Output]) -> None:
        number = self._local_of.pop(remote, None)
        if number is not None:
            del self._remote_of[number]
            self._free_numbers.append(number)
            outputs.append(ChannelClosed(number, was_rejected=False))
        elif remote in self._remote_offers:
            # Without an answer the remote could never use that number again.
            offer = self._remote_offers[remote]
            outputs.extend(self.reject(offer.number))
            outputs.append(RemoteWithdrew(offer.number))

    def _take_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def _settle(self, number: int) -> bool:
        """The remote answered this number; whether we still want the channel."""
        key = self._keys.pop(number)
        waiting = self._waiting[key]
        waiting.numbers.remove(number)
        if not waiting.numbers:
            del self._waiting[key]
            for alias in waiting.aliases:
                self._aliases.pop(alias, None)
        if number in self._closed_early:
            self._closed_early.remove(number)
            return False
        return True

    def _pair(self, number: int, remote: int) -> None:
        self._remote_of[number] = remote
        self._local_of[remote] = number

    def _add_offer(self, remote: int, key: ChannelKey, handshake: bytes) -> _Offer:
        self._offer_count += 1
        size = _MESSAGE_OVERHEAD_BYTES + len(handshake)
        offer = _Offer(self._offer_count, remote, key, handshake, buffered_bytes=size)
        self._offers[offer.number] = offer
        self._remote_offers[remote] = offer
        self._offered.setdefault(key, deque()).append(offer)
        self._unclaimed_bytes += size
        return offer

    def _forget_offer(self, offer: _Offer) -> None:
        del self._offers[offer.number]
        del self._remote_offers[offer.remote]
        self._unclaimed_bytes -= offer.buffered_bytes
        offered = self._offered[offer.key]
        offered.remove(offer)
        if not offered:
            del self._offered[offer.key]

    def _claim(self, number: int, offer: _Offer, outputs: list[Output]) -> None:
        self._forget_offer(offer)
        self._pair(number, offer.remote)
        outputs.append(ChannelOpened(number, offer.handshake))
        if offer.messages:
            outputs.append(MessagesReceived(number, offer.messages))


def encode_frames(messages: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    """Frames for (channel, type, payload) messages in this order, as few as possible.

    Each has at most MAX_BATCH_BYTES, or one message.
    """
    if len(messages) == 1:
        channel, message_type, payload = messages[0]
        return [encode_uint(channel) + encode_uint(message_type) + payload]
    frames: list[bytes] = []
    parts: list[bytes] = []
    current = -1
    size = 0
    for channel, message_type, payload in messages:
        length = len(payload)
        if size + length > MAX_BATCH_BYTES and parts:
            frames.append(b"".join(parts))
            parts = []
            current = -1
            size = 0
        if channel != current:
            parts.append(b"\0" if parts else b"\0\0")
            parts.append(encode_uint(channel))
            current = channel
        encoded_type = encode_uint(message_type)
        parts.append(encode_uint(length + len(encoded_type)))
        parts.append(encoded_type)
        parts.append(payload)
        size += length
    if parts:
        frames.append(b"".join(parts))
    return frames
