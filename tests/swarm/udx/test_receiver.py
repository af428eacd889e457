from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.packet import DATA, END
from swarm.udx.receiver import CHUNK_OVERHEAD_BYTES, MAX_AHEAD_PACKETS, Receiver


def read_all(receiver: Receiver) -> bytes:
    chunks: list[bytes] = []
    while chunk := receiver.read(1000):
        chunks.append(chunk)
    return b"".join(chunks)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11)), st.integers(1, 50))
def test_any_order_and_repetition_gives_the_bytes_in_order(
    order: list[int], repeated: set[int], max_bytes: int
) -> None:
    payloads = [b"%d," % i * (i % 4) for i in range(12)]
    receiver = Receiver()
    received = b""
    arrived: set[int] = set()
    for seq in [*order, *repeated]:
        receiver.receive(seq, DATA | (END if seq == 11 else 0), payloads[seq])
        arrived.add(seq)
        expected = next(i for i in range(13) if i not in arrived)
        assert receiver.ack == expected
        beyond = {i for start, stop in receiver.sack_ranges for i in range(start, stop)}
        assert beyond == {i for i in arrived if i > expected}
        ranges = receiver.sack_ranges
        assert all(low[1] < high[0] for low, high in pairwise(ranges))
        received += receiver.read(max_bytes)
    assert received + read_all(receiver) == b"".join(payloads)
    assert receiver.has_ended
    assert receiver.buffered_bytes == 0


def test_the_window_is_what_is_not_buffered() -> None:
    receiver = Receiver(10_000)
    receiver.receive(0, DATA, bytes(1000))
    for seq in range(2, 11):
        receiver.receive(seq, DATA, bytes(1000))
    assert receiver.window == 10_000 - (1000 + CHUNK_OVERHEAD_BYTES)
    receiver.receive(11, DATA, bytes(1000))
    assert receiver.window == 20_000 - 11 * (1000 + CHUNK_OVERHEAD_BYTES)
    assert receiver.read(400) == bytes(400)
    assert receiver.window == 20_000 - 11 * (1000 + CHUNK_OVERHEAD_BYTES) + 400
    receiver.receive(1, DATA, b"")
    assert len(read_all(receiver)) == 10_600
    assert receiver.window == 10_000


def test_a_sender_that_ignores_the_window_is_not_kept() -> None:
    receiver = Receiver(10_000)
    for seq in range(100):
        receiver.receive(seq, DATA, bytes(1000))
    assert receiver.window == 0
    assert receiver.buffered_bytes <= 22_500
    assert receiver.dropped_packets == 100 - 21
    assert receiver.ack == 10


def test_tiny_packets_count_more_than_their_bytes() -> None:
    receiver = Receiver(10_000)
    for seq in range(1000):
        receiver.receive(seq, DATA, b".")
    assert receiver.ack < 1000
    assert receiver.buffered_bytes <= 22_500


def test_early_packets_do_not_lock_out_the_next_one() -> None:
    receiver = Receiver(10_000)
    for seq in range(1, 100):
        receiver.receive(seq, DATA, bytes(1000))
    assert receiver.window == 0
    assert receiver.buffered_bytes <= 22_500
    receiver.receive(0, DATA, bytes(1000))
    assert receiver.ack == 22
    assert len(read_all(receiver)) == 22_000


def test_numbers_far_ahead_are_dropped() -> None:
    receiver = Receiver()
    receiver.receive(MAX_AHEAD_PACKETS, DATA, b"far")
    assert (receiver.dropped_packets, receiver.sack_ranges) == (1, [])
    receiver.receive(MAX_AHEAD_PACKETS - 1, DATA, b"near")
    assert receiver.sack_ranges == [(MAX_AHEAD_PACKETS - 1, MAX_AHEAD_PACKETS)]


def test_nothing_comes_after_the_end() -> None:
    receiver = Receiver()
    receiver.receive(1, END, b"")
    receiver.receive(2, DATA, b"late")
    receiver.receive(5, END, b"")
    receiver.receive(0, DATA, b"all")
    assert (receiver.has_ended, receiver.end_seq, receiver.ack) == (True, 1, 2)
    assert read_all(receiver) == b"all"


def test_an_end_before_what_has_arrived_is_none() -> None:
    receiver = Receiver()
    receiver.receive(5, DATA, b"five")
    receiver.receive(3, DATA | END, b"three")
    assert receiver.end_seq is None
    assert receiver.sack_ranges == [(5, 6)]


def test_many_ranges() -> None:
    rng = random.Random(7)
    order = list(range(1, 2000))
    rng.shuffle(order)
    receiver = Receiver()
    for seq in order:
        receiver.receive(seq, DATA, bytes((seq % 256,)))
    assert receiver.sack_ranges == [(1, 2000)]
    receiver.receive(0, DATA, b"\x00")
    assert read_all(receiver) == bytes(seq % 256 for seq in range(2000))


def test_cleared_it_holds_nothing() -> None:
    receiver = Receiver()
    receiver.receive(0, DATA, b"unread")
    receiver.receive(2, DATA, b"early")
    receiver.clear()
    assert (receiver.buffered_bytes, receiver.is_readable, receiver.sack_ranges) == (0, False, [])
