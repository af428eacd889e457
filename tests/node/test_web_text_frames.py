"""Frames read by `TextFrames` and `websockets` together are those that `websockets` reads alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol, State

from node.web.text_frames import TextFrames

MAX_BYTES = 70_000

Frames = list[tuple[Opcode, bytes, bool]]


def read(chunks: list[bytes], texts: TextFrames | None) -> tuple[Frames, int | None]:
    """What arrives, and the code with which it was ended."""
    protocol = Protocol(SERVER, state=State.OPEN, max_size=MAX_BYTES)
    frames: Frames = []
    for chunk in chunks:
        for segment in [chunk] if texts is None else texts.split(chunk):
            if isinstance(segment, bytes):
                protocol.receive_data(segment)
                events = [event for event in protocol.events_received() if isinstance(event, Frame)]
                frames += [(event.opcode, bytes(event.data), event.fin) for event in events]
            elif protocol.state is State.OPEN:
                frames += [(Opcode.TEXT, bytes(text), True) for text in segment]
    return frames, None if protocol.close_sent is None else protocol.close_sent.code


def cut(data: bytes, places: list[int]) -> list[bytes]:
    stops = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in pairwise(stops)]


payloads = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536, MAX_BYTES, MAX_BYTES + 1]).map(
        bytes
    ),
)
frames = st.builds(
    lambda opcode, data, fin, mask: Frame(
        opcode, data[:125] if opcode >= Opcode.CLOSE else data, fin or opcode >= Opcode.CLOSE
    ).serialize(mask=mask),
    st.sampled_from([*[Opcode.TEXT] * 6, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.CLOSE]),
    payloads,
    st.sampled_from([True, True, True, False]),
    st.sampled_from([*[True] * 9, False]),
)


@given(
    data=st.lists(st.one_of(*[frames] * 9, st.binary(max_size=8)), max_size=12).map(b"".join),
    places=st.lists(st.integers(0, 1 << 20), max_size=6),
)
def test_any_bytes_are_read_as_by_websockets(data: bytes, places: list[int]) -> None:
    assert read(cut(data, places), TextFrames(MAX_BYTES)) == read([data], None)


@pytest.mark.parametrize("header", [b"\x00~", b"\x81\x7f", b"\x83\xfe", b"\x8b\xff\x00"])
def test_what_is_refused_at_its_first_two_bytes_is_not_held_back(header: bytes) -> None:
    """Unmasked, or with an opcode that there is not: the client was not told until more came."""
    for data in (header, b"\x81\x82\x01\x02\x03\x04\x69\x6b" + header):
        whole = read([data], None)
        assert whole[1] == 1002
        assert read([data], TextFrames(MAX_BYTES)) == whole
        assert (
            read([data[:-1], data[-1:], b"\x81\x80\x01\x02\x03\x04"], TextFrames(MAX_BYTES))
            == whole
        )


def test_every_split_point() -> None:
    data = b"".join(
        Frame(opcode, payload, fin).serialize(mask=True)
        for opcode, payload, fin in [
            (Opcode.TEXT, b"one", True),
            (Opcode.TEXT, b"two" * 60, True),
            (Opcode.PING, b"are you there", True),
            (Opcode.TEXT, b"in ", False),
            (Opcode.CONT, b"pieces", True),
            (Opcode.TEXT, b"", True),
            (Opcode.CLOSE, b"", True),
        ]
    )
    alone = read([data], None)
    for place in range(len(data) + 1):
        assert read([data[:place], data[place:]], TextFrames(MAX_BYTES)) == alone
    assert read([data[i : i + 1] for i in range(len(data))], TextFrames(MAX_BYTES)) == alone


def test_texts_that_came_at_once_are_read_at_once() -> None:
    data = b"".join(Frame(Opcode.TEXT, b"%d" % n).serialize(mask=True) for n in range(50))
    assert TextFrames(MAX_BYTES).split(data) == [[b"%d" % n for n in range(50)]]
    assert TextFrames(MAX_BYTES).split(bytes.fromhex("8182010203046869")) == [[b"ik"]]


@pytest.mark.parametrize("first", [0xC1, 0x01, 0x82, 0x89])
def test_only_whole_texts_are_read_here(first: int) -> None:
    frame = bytes([first, 0x80, 0, 0, 0, 0])
    assert TextFrames(MAX_BYTES).split(frame) == [frame]
