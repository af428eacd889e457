from __future__ import annotations

from node.mesh.fields import pack_fields
from node.mesh.provenance import Arrival

FIRST, LAST = b"\x01" * 32, b"\x02" * 32


def test_a_row_tells_which_blocks_members_brought() -> None:
    arrival = Arrival(FIRST, 100, LAST, 200, 5, 9)
    assert Arrival.decode(arrival.encode()) == arrival
    assert [arrival.was_first(4), arrival.was_first(5)] == [False, True]
    assert [arrival.was_last(8), arrival.was_last(9)] == [True, False]


def test_a_row_of_an_older_node_names_its_members_as_it_always_did() -> None:
    arrival = Arrival.decode(pack_fields(FIRST, 100, LAST, 200))
    assert arrival == Arrival(FIRST, 100, LAST, 200)
    assert arrival.was_first(0)
    assert arrival.was_last(2**40)
    assert Arrival.decode(arrival.encode()) == arrival
