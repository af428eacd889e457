from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import MalformedPacket
from swarm.frames import FrameDecoder, encode_frame


def test_the_worked_example() -> None:
    assert encode_frame(b"hi") == bytes.fromhex("0200006869")


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_frames_come_out_however_the_stream_was_cut(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(encode_frame, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = FrameDecoder(300)
    received: list[bytes] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        decoder.add(stream[start:stop])
        received += decoder.take_all()
    assert received == frames
    assert decoder.buffered_bytes == 0


def test_every_split_point() -> None:
    frames = [b"", b"a", b"bc" * 200, b"d"]
    stream = b"".join(map(encode_frame, frames))
    for cut in range(len(stream) + 1):
        decoder = FrameDecoder(1000)
        decoder.add(stream[:cut])
        received = decoder.take_all()
        decoder.add(stream[cut:])
        assert received + decoder.take_all() == frames


def test_byte_by_byte() -> None:
    decoder = FrameDecoder(1000)
    received: list[bytes] = []
    for byte in encode_frame(b"x" * 700) + encode_frame(b"yz"):
        decoder.add(bytes((byte,)))
        received += decoder.take_all()
    assert received == [b"x" * 700, b"yz"]


@pytest.mark.parametrize("head", [1, 2, 3])
def test_an_oversized_frame_is_refused_as_soon_as_its_size_is_known(head: int) -> None:
    stream = (1001).to_bytes(3, "little")
    decoder = FrameDecoder(1000)
    decoder.add(stream[:head])
    if head < 3:
        assert decoder.take() is None
        decoder.add(stream[head:])
    with pytest.raises(MalformedPacket, match="1001"):
        decoder.take()


def test_the_limit_may_be_raised_between_two_frames_of_one_chunk() -> None:
    decoder = FrameDecoder(10)
    decoder.add(encode_frame(b"small") + encode_frame(b"l" * 500))
    assert decoder.take() == b"small"
    decoder.limit_bytes = 1000
    assert decoder.take_all() == [b"l" * 500]


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_give_frames_or_the_documented_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(50)
    try:
        for chunk in chunks:
            decoder.add(chunk)
            assert all(len(frame) <= 50 for frame in decoder.take_all())
            assert decoder.buffered_bytes < 53
    except MalformedPacket:
        pass
