"""Packets that nobody sensible sends, aimed at a stream."""

from __future__ import annotations

from random import Random

from swarm.udx.packet import (
    HEADER_BYTES,
    MAX_DATAGRAM_BYTES,
    encode_packet,
    encode_sacks,
)

_NEAR = (-3, -1, 0, 1, 2, 5, 40, 2**14, 2**31)


def hostile_datagram(rng: Random, stream_id: int, seq: int, ack: int) -> bytes:
    """Bytes near what the remote would send: `seq` is its next number, `ack` what it has."""
    if rng.random() < 0.1:
        return rng.randbytes(rng.randrange(64))
    flags = rng.randrange(256) if rng.random() < 0.3 else 1 << rng.randrange(6)
    if rng.random() < 0.3:
        body = encode_sacks([_range(rng, ack) for _ in range(rng.randrange(1, 20))])
        flags |= 4
    else:
        size = rng.choice((0, 1, 20, 1400, MAX_DATAGRAM_BYTES - HEADER_BYTES))
        body = bytes(size)
    window = rng.choice((0, 1, 2**16, 2**22, 2**32 - 1))
    seq += rng.choice(_NEAR) if rng.random() < 0.8 else rng.randrange(2**32)
    ack += rng.choice(_NEAR) if rng.random() < 0.8 else rng.randrange(2**32)
    datagram = bytearray(encode_packet(flags, stream_id, window, seq, ack, body))
    if rng.random() < 0.3:
        datagram[3] = rng.randrange(256)
    if rng.random() < 0.1:
        datagram[rng.randrange(len(datagram))] ^= 1 << rng.randrange(8)
    return bytes(datagram[: rng.randrange(len(datagram))] if rng.random() < 0.05 else datagram)


def _range(rng: Random, ack: int) -> tuple[int, int]:
    start = ack + rng.choice(_NEAR)
    return start, start + rng.choice((-1, 0, 1, 2, 30, 2**20))
