from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.outgoing import OutgoingBytes


@given(st.lists(st.binary(max_size=40)), st.lists(st.integers(1, 30)))
def test_cuts_give_the_bytes_in_order(chunks: list[bytes], sizes: list[int]) -> None:
    outgoing = OutgoingBytes()
    for chunk in chunks:
        outgoing.add(chunk)
    expected = b"".join(chunks)
    taken = b""
    for size in sizes:
        piece = bytes(outgoing.cut(size))
        assert len(piece) == min(size, len(expected) - len(taken))
        taken += piece
        assert outgoing.size == len(expected) - len(taken)
    assert expected.startswith(taken)


def test_a_payload_within_one_chunk_is_not_copied() -> None:
    outgoing = OutgoingBytes()
    outgoing.add(bytes(3000))
    assert isinstance(outgoing.cut(1400), memoryview)
    assert isinstance(outgoing.cut(1400), memoryview)
    outgoing.add(bytes(3000))
    assert isinstance(outgoing.cut(1400), bytes)


def test_cleared_it_is_empty() -> None:
    outgoing = OutgoingBytes()
    outgoing.add(b"abc")
    outgoing.clear()
    assert (outgoing.size, outgoing.cut(10)) == (0, b"")
