"""Sets of block numbers are walked through without a trace."""

from __future__ import annotations

import ctypes

from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap64

from hypercore.block_sets import blocks_from, first_of
from hypercore.replication.demand import Demand, Priority
from tests.hypercore.replication.test_demand import Store, remote_peer

_blocks = st.integers(0, 2**40) | st.integers(0, 20)


@given(st.sets(_blocks), _blocks)
def test_blocks_come_in_order_from_any_number_on(blocks: set[int], start: int) -> None:
    expected = sorted(block for block in blocks if block >= start)
    assert list(blocks_from(BitMap64(blocks), start)) == expected
    assert first_of(BitMap64(blocks), start) == next(iter(expected), None)


class _Allocated(ctypes.Structure):
    """What `mallinfo2` of the C library returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated_bytes() -> int:
    """Outside of Python's own heap."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = _Allocated
    return int(library.mallinfo2().uordblks)


def test_a_look_that_finds_nothing_costs_no_memory() -> None:
    """Found with a node that served for an hour: 5 MB a minute were never given back."""
    demand, peer = Demand(Store(range(8))), remote_peer()
    blocks = BitMap64([1, 2])
    demand.want(range(8, 9))
    demand.want(BitMap64([9]), Priority.RANDOM)

    def look() -> None:
        assert demand.missing(peer, 8, 8, 8) == []
        assert demand.first_beyond(20, 30) is None
        assert demand.take(peer, (8, 8), 8) == []
        assert peer.next_offered(0) is None
        assert not list(peer.offered(BitMap64()))
        demand.want(blocks, Priority.LINEAR)
        demand.unwant(blocks, Priority.LINEAR)

    look()
    before = allocated_bytes()
    for _ in range(10_000):
        look()
    assert allocated_bytes() - before < 1_000_000
