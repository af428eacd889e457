"""Packets of UDX: a header of 20 bytes in front of whatever a stream sends.

| offset | bytes | field                                                                  |
|--------|-------|------------------------------------------------------------------------|
| 0      | 1     | magic ff                                                               |
| 1      | 1     | version 1                                                              |
| 2      | 1     | flags: 1 data, 2 end, 4 sack, 8 message, 16 destroy, 32 heartbeat      |
| 3      | 1     | data offset: bytes between header and payload                          |
| 4      | 4     | the *receiver's* stream id, little endian like all that follows        |
| 8      | 4     | window: bytes its sender has room for                                  |
| 12     | 4     | seq: number of this packet; without data, that of the next data        |
| 16     | 4     | ack: the next seq that is expected; everything before has arrived      |

Between header and payload is the padding of an MTU probe, or SACK ranges: pairs of u32
[start, stop) of what has arrived beyond ack. Without a data offset the ranges fill the packet.

Worked example: "hi" as packet 1 to stream 7, window 65536, all before seq 3 received:
`ff 01 01 00 07000000 00000100 01000000 03000000 6869`.

Source: libudx of udx-native 1.21.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from hypercore.encoding import DecodeError

DATA = 1
END = 2
SACK = 4
MESSAGE = 8
DESTROY = 16
HEARTBEAT = 32
"""Flags; plain integers, since testing an `IntFlag` takes 0.7 µs, and a whole packet about 10."""

HEADER_BYTES = 20
STREAM_ID_OFFSET = 4
STREAM_ID_BYTES = 4
MAX_DATAGRAM_BYTES = 2048
"""The original reads no more of a datagram than this."""

MAX_PADDING_BYTES = 255
MAX_SACK_RANGES = 50
"""The original writes this many; we write as many of the lowest, and of the highest."""

SEQ_MODULUS = 2**32

_HEADER = struct.Struct("<BBBBIIII")
_MAGIC, _VERSION = 0xFF, 1
_PREFIX = bytes((_MAGIC, _VERSION))
_HALF = SEQ_MODULUS // 2

SackRange = tuple[int, int]


class Packet(NamedTuple):
    """A packet as it was read; a tuple, made in a quarter of a frozen dataclass's time."""

    flags: int
    stream_id: int
    window: int
    seq: int
    ack: int
    sacks: Sequence[SackRange]
    payload: bytes


def is_packet(datagram: bytes) -> bool:
    """Whether a datagram claims to be UDX; other protocols may share the socket."""
    return datagram[:2] == _PREFIX and len(datagram) >= HEADER_BYTES


def decode_packet(datagram: bytes) -> Packet:
    """Read one datagram.

    Unknown flags are ignored, as in the original. The ranges of a SACK are as sent: whether
    they make sense only the stream can tell.

    Raises: DecodeError.
    """
    size = len(datagram)
    if size < HEADER_BYTES:
        raise DecodeError(f"packet of {size} bytes", size)
    if size > MAX_DATAGRAM_BYTES:
        raise DecodeError(f"packet of {size} bytes", MAX_DATAGRAM_BYTES)
    magic, version, flags, offset, stream_id, window, seq, ack = _HEADER.unpack_from(datagram)
    if magic != _MAGIC or version != _VERSION:
        raise DecodeError(f"magic {magic:#x}, version {version}", 0)
    start = HEADER_BYTES + offset
    if start > size:
        raise DecodeError(f"data offset {offset} points past {size} bytes", 3)
    sacks: Sequence[SackRange] = ()
    if flags & SACK:
        stop = start if 0 < offset < size - HEADER_BYTES else size
        sacks = decode_sacks(datagram, HEADER_BYTES, stop)
    return Packet(flags, stream_id, window, seq, ack, sacks, datagram[start:])


def decode_sacks(data: bytes, start: int, stop: int) -> list[SackRange]:
    """Ranges in data[start:stop]; bytes that do not fill a pair are skipped."""
    whole = (stop - start) // 8 * 8
    numbers = struct.unpack_from(f"<{whole // 4}I", data, start)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def encode_packet(
    flags: int,
    stream_id: int,
    window: int,
    seq: int,
    ack: int,
    payload: bytes | memoryview = b"",
    padding_bytes: int = 0,
) -> bytes:
    """A datagram. Sequence numbers may be unbounded, the window too.

    Requires `padding_bytes` <= MAX_PADDING_BYTES.
    """
    header = _HEADER.pack(
        _MAGIC,
        _VERSION,
        flags,
        padding_bytes,
        stream_id,
        min(window, SEQ_MODULUS - 1),
        seq % SEQ_MODULUS,
        ack % SEQ_MODULUS,
    )
    if padding_bytes:
        return b"".join((header, bytes(padding_bytes), payload))
    return b"".join((header, payload))


def encode_sacks(ranges: Sequence[SackRange]) -> bytes:
    """The body of a SACK packet; of too many ranges the lowest and the highest ones."""
    if len(ranges) > 2 * MAX_SACK_RANGES:
        ranges = [*ranges[:MAX_SACK_RANGES], *ranges[-MAX_SACK_RANGES:]]
    numbers = [seq % SEQ_MODULUS for pair in ranges for seq in pair]
    return struct.pack(f"<{len(numbers)}I", *numbers)


def extend_seq(seq: int, near: int) -> int:
    """The unbounded number that ends in these 32 bits and is closest to `near`."""
    return near + ((seq - near + _HALF) % SEQ_MODULUS - _HALF)
