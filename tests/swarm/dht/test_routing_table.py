from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.announcement import Address
from swarm.dht.messages import node_id
from swarm.dht.routing_table import (
    MAX_PER_PARTY,
    ROW_SIZE,
    DhtNode,
    RoutingTable,
    distance,
    shared_bits,
)
from tests.support.dht_network import public_host
from tests.support.dht_vectors import VECTORS, parse_address

TABLE: dict[str, Any] = VECTORS["table"]
OWN_ID = bytes.fromhex(TABLE["own"])
ids = st.binary(min_size=32, max_size=32)


def create_node(address: Address, now: float = 0.0) -> DhtNode:
    return DhtNode.create(address, now)


def private(index: int) -> Address:
    return (f"10.{index >> 8}.{index & 255}.1", 4000)


def test_rows_are_those_of_the_original() -> None:
    table = RoutingTable(OWN_ID)
    refused = [text for text in TABLE["nodes"] if not table.add(create_node(parse_address(text)))]
    assert refused == TABLE["refused"]


@given(ids, ids)
def test_shared_bits_and_distance_agree(left: bytes, right: bytes) -> None:
    shared = shared_bits(left, right)
    assert distance(left, right) < 2 ** (256 - shared)
    if left != right:
        assert distance(left, right) >= 2 ** (255 - shared)
    assert distance(left, left) == 0


def test_a_row_has_so_many_places() -> None:
    table = RoutingTable(OWN_ID)
    added = [index for index in range(400) if table.add(create_node(private(index)))]
    assert len(table) == len(added)
    rows: dict[int, int] = {}
    for node in table:
        bits = shared_bits(node.id, OWN_ID)
        rows[bits] = rows.get(bits, 0) + 1
    assert max(rows.values()) == ROW_SIZE
    full = next(bits for bits, count in rows.items() if count == ROW_SIZE)
    outsider = next(
        private(index)
        for index in range(400)
        if index not in added and shared_bits(node_id(private(index)), OWN_ID) == full
    )
    assert not table.has_room(outsider)
    assert table.may_hold(outsider)
    table.remove(table.row(outsider)[3])
    assert table.has_room(outsider)
    assert table.add(create_node(outsider))


def test_a_party_gets_only_a_share_of_a_row() -> None:
    table = RoutingTable(OWN_ID)
    for port in range(1, 400):
        table.add(create_node(("192.0.2.7", port)))
    assert len(table.row(("192.0.2.7", 1))) <= MAX_PER_PARTY
    assert len(table) <= 10 * MAX_PER_PARTY
    assert sum(table.add(create_node((public_host(i), 1))) for i in range(20)) == 20


def test_we_are_not_our_own_neighbor() -> None:
    address = private(1)
    table = RoutingTable(node_id(address))
    assert not table.add(create_node(address))
    assert not table.has_room(address)
    assert table.add(create_node(private(2)))
    assert table.add(create_node(private(2))), "it is in already"
    assert len(table) == 1


def test_a_removed_node_is_gone_and_a_stranger_changes_nothing() -> None:
    table = RoutingTable(OWN_ID)
    node = create_node(private(1))
    table.add(node)
    table.remove(create_node(private(1)))
    assert table.get(private(1)) is node, "another record of the same node is not this one"
    table.remove(node)
    table.remove(node)
    assert (len(table), table.get(private(1)), table.closest(bytes(32))) == (0, None, [])


@given(ids, st.integers(1, 60), st.integers(0, 80))
def test_the_closest_are_the_closest(target: bytes, limit: int, count: int) -> None:
    table = RoutingTable(OWN_ID)
    for index in range(count):
        table.add(create_node(private(index)))
    wanted = sorted(table, key=lambda node: distance(node.id, target))
    assert table.closest(target, limit) == wanted[:limit]


def test_those_next_to_a_node_are_closest_to_it() -> None:
    table = RoutingTable(OWN_ID)
    for index in range(300):
        table.add(create_node(private(index)))
    for node in table:
        wanted = sorted(table, key=lambda other: distance(other.id, node.id))
        assert table.closest(node.id) == wanted[:ROW_SIZE]
        assert table.closest(node.id, 1) == [node]


def test_who_was_heard_of_when() -> None:
    table = RoutingTable(OWN_ID)
    for index, heard_at in enumerate((5.0, 1.0, 9.0, 3.0)):
        node = create_node(private(index))
        node.heard_at = heard_at
        table.add(node)
    assert [node.heard_at for node in table.least_recent(2)] == [1.0, 3.0]
    assert [node.heard_at for node in table.most_recent(3)] == [9.0, 5.0, 3.0]


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 100, 254])
def test_shared_bits_are_counted_from_the_front(bits: int) -> None:
    other = (int.from_bytes(OWN_ID, "big") ^ (1 << (255 - bits))).to_bytes(32, "big")
    assert shared_bits(OWN_ID, other) == bits
