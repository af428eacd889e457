"""Follows hypercore 11.37.1 test/remote-bitfield.js where it tests its data structure.

What one peer has is ours to ask as `RemotePeer.offers` and `offered`; its first gap as
`contiguous_length`. The tests with several cores are in `tests/interop/originals/
test_remote_bitfield.py`.
"""

from __future__ import annotations

from pyroaring import BitMap64

from hypercore.replication.messages import HaveBits, Range
from hypercore.replication.remote import RemotePeer
from hypercore.replication.statistics import Counters
from hypercore.replication.uploads import Uploads
from tests.support.replicated_logs import reader

LENGTH = 1 << 21


def remote() -> RemotePeer:
    counters = Counters()
    return RemotePeer(Uploads(reader(), counters), counters)


def first_offered(peer: RemotePeer, start: int) -> int | None:
    pool = BitMap64()
    pool.add_range(start, LENGTH)
    return next(peer.offered(pool), None)


def test_find_first() -> None:
    peer = remote()
    peer.receive_range(Range(1_000_000, 1), LENGTH)
    assert first_offered(peer, 0) == 1_000_000


def test_set_range_on_page_boundary() -> None:
    peer = remote()
    peer.receive_range(Range(2_032, 26), LENGTH)
    assert first_offered(peer, 2_048) == 2_048
    assert first_offered(peer, 2_058) is None


def test_set_range_to_false() -> None:
    peer = remote()
    peer.receive_range(Range(0, 5_000, drop=True), LENGTH)
    assert first_offered(peer, 0) is None
    assert peer.contiguous_length == 0


def test_set_last_bits_in_segment() -> None:
    peer = remote()
    for index in (32_766, 32_767):
        peer.receive_range(Range(index, 1), LENGTH)
        assert peer.has_range(32_766, index + 1)
        assert not peer.has_range(32_766, index + 2)


def test_a_bitfield_is_the_truth_for_what_it_covers() -> None:
    peer = remote()
    peer.receive_range(Range(0, 100), LENGTH)
    peer.receive_bits(HaveBits(32, b"\x01\x00\x00\x00"), LENGTH)
    assert peer.contiguous_length == 32
    assert peer.offers(32)
    assert not peer.offers(33)
    assert not peer.offers(63)
    assert peer.offers(64), "beyond the bitfield what was known stays known"
