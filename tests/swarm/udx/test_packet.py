from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError
from swarm.udx.packet import (
    DATA,
    DESTROY,
    END,
    HEADER_BYTES,
    HEARTBEAT,
    MAX_DATAGRAM_BYTES,
    MAX_SACK_RANGES,
    MESSAGE,
    SACK,
    decode_packet,
    encode_packet,
    encode_sacks,
    extend_seq,
    is_packet,
)

VECTORS = Path(__file__).parent.parent.parent / "vectors" / "udx" / "packets.jsonl"
REMOTE_ID = 0x01020304
WINDOW = 4 * 2**20

EXPECTED = [
    ("data", DATA, 5, 0, [], b"hi"),
    ("message", MESSAGE, 6, 0, [], b"unordered"),
    ("acknowledgement", 0, 6, 1, [], b""),
    ("selective acknowledgement", SACK, 6, 1, [(3, 4)], b""),
    ("two ranges", SACK, 6, 1, [(3, 4), (6, 7)], b""),
    ("two ranges", SACK, 6, 1, [(3, 4), (6, 8)], b""),
    ("answer to a heartbeat", SACK, 6, 1, [(3, 4), (6, 8)], b""),
    ("heartbeat", HEARTBEAT, 6, 1, [], b""),
    ("data and end", DATA | END, 6, 1, [], b"waitbye"),
    ("destroy", DESTROY, 7, 1, [], b""),
]

u32 = st.integers(0, 2**32 - 1)


def test_the_worked_example() -> None:
    datagram = encode_packet(DATA, 7, 65536, 1, 3, b"hi")
    assert datagram == bytes.fromhex("ff010100070000000000010001000000030000006869")


def test_packets_of_the_original_are_read_and_written() -> None:
    vectors = [json.loads(line) for line in VECTORS.read_text().splitlines()]
    assert [vector["what"] for vector in vectors] == [expected[0] for expected in EXPECTED]
    for vector, (_, flags, seq, ack, ranges, payload) in zip(vectors, EXPECTED, strict=True):
        datagram = bytes.fromhex(vector["datagram"])
        packet = decode_packet(datagram)
        assert packet[:5] == (flags, REMOTE_ID, WINDOW, seq, ack)
        assert list(packet.sacks) == ranges
        body = encode_sacks(ranges) if ranges else payload
        assert packet.payload == body
        assert encode_packet(flags, REMOTE_ID, WINDOW, seq, ack, body) == datagram


@given(st.integers(0, 63), u32, u32, u32, u32, st.binary(max_size=1400), st.integers(0, 255))
def test_round_trip(
    flags: int, stream_id: int, window: int, seq: int, ack: int, payload: bytes, padding: int
) -> None:
    flags &= ~SACK
    datagram = encode_packet(flags, stream_id, window, seq, ack, payload, padding)
    assert is_packet(datagram)
    assert decode_packet(datagram) == (flags, stream_id, window, seq, ack, (), payload)


@given(st.lists(st.tuples(u32, u32), max_size=2 * MAX_SACK_RANGES), st.binary(min_size=1))
def test_ranges_before_data(ranges: list[tuple[int, int]], payload: bytes) -> None:
    body = encode_sacks(ranges)
    packet = decode_packet(encode_packet(SACK, 1, 2, 3, 4, body))
    assert list(packet.sacks) == ranges
    if 0 < len(body) <= 255:
        datagram = bytearray(encode_packet(SACK | DATA, 1, 2, 3, 4, body + payload))
        datagram[3] = len(body)
        packet = decode_packet(bytes(datagram))
        assert (list(packet.sacks), packet.payload) == (ranges, payload)


def test_of_too_many_ranges_the_lowest_and_the_highest_are_sent() -> None:
    ranges = [(2 * i, 2 * i + 1) for i in range(1000)]
    packet = decode_packet(encode_packet(SACK, 1, 2, 3, 4, encode_sacks(ranges)))
    assert list(packet.sacks) == ranges[:MAX_SACK_RANGES] + ranges[-MAX_SACK_RANGES:]


def test_numbers_wrap_around() -> None:
    packet = decode_packet(encode_packet(DATA, 1, 2**40, 2**32 + 5, -1))
    assert (packet.window, packet.seq, packet.ack) == (2**32 - 1, 5, 2**32 - 1)


@given(st.integers(0, 2**40), st.integers(-(2**31), 2**31 - 1))
def test_unbounded_numbers_are_the_closest_ones(near: int, distance: int) -> None:
    seq = near + distance
    assert extend_seq(seq % 2**32, near) == seq


@given(st.binary(max_size=MAX_DATAGRAM_BYTES + 10))
def test_any_bytes_are_a_packet_or_an_error(data: bytes) -> None:
    for datagram in (data, b"\xff\x01" + data):
        try:
            packet = decode_packet(datagram)
        except DecodeError as error:
            assert 0 <= error.offset <= len(datagram)  # noqa: PT017 (not every input raises)
        else:
            assert is_packet(datagram)
            assert len(packet.payload) <= len(datagram) - HEADER_BYTES


@given(st.data())
def test_every_prefix_and_every_flipped_byte_of_a_packet(data: st.DataObject) -> None:
    datagram = bytearray(encode_packet(SACK, 1, 2, 3, 4, encode_sacks([(5, 6), (8, 9)])))
    for size in range(HEADER_BYTES):
        with pytest.raises(DecodeError):
            decode_packet(bytes(datagram[:size]))
    for size in range(HEADER_BYTES, len(datagram) + 1):
        assert len(decode_packet(bytes(datagram[:size])).sacks) == (size - HEADER_BYTES) // 8
    index = data.draw(st.integers(0, len(datagram) - 1))
    datagram[index] ^= data.draw(st.integers(1, 255))
    if index < 2:
        with pytest.raises(DecodeError):
            decode_packet(bytes(datagram))


def test_a_data_offset_past_the_end() -> None:
    datagram = bytearray(encode_packet(DATA, 1, 2, 3, 4, b"abc"))
    datagram[3] = 3
    assert decode_packet(bytes(datagram)).payload == b""
    datagram[3] = 4
    with pytest.raises(DecodeError) as caught:
        decode_packet(bytes(datagram))
    assert caught.value.offset == 3


def test_more_than_the_original_reads() -> None:
    body = bytes(MAX_DATAGRAM_BYTES - HEADER_BYTES)
    assert decode_packet(encode_packet(DATA, 1, 2, 3, 4, body)).payload == body
    with pytest.raises(DecodeError):
        decode_packet(encode_packet(DATA, 1, 2, 3, 4, body + b"."))
