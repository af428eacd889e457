from __future__ import annotations

from swarm.announcement import Address
from swarm.dht.messages import node_id
from swarm.dht.neighborhood import (
    MAX_CHECKS,
    MAX_INTRODUCTIONS,
    MAX_SWAPS,
    Check,
    Introduction,
    Neighborhood,
    Swap,
)
from swarm.dht.routing_table import ROW_SIZE, shared_bits

OWN_ID = bytes(32)


def private(index: int) -> Address:
    return (f"10.{index >> 8}.{index & 255}.1", 4000)


def far(count: int, start: int = 0) -> list[Address]:
    """Addresses of nodes that compete for the row farthest from us."""
    found: list[Address] = []
    index = start
    while len(found) < count:
        if shared_bits(node_id(private(index)), OWN_ID) == 0:
            found.append(private(index))
        index += 1
    return found


def create_full(now: float = 0.0) -> tuple[Neighborhood, list[Address], list[Address]]:
    """A neighborhood with a full row, who is in it, and who is not."""
    neighborhood = Neighborhood(OWN_ID, now)
    addresses = far(ROW_SIZE + 8)
    for address in addresses[:ROW_SIZE]:
        assert neighborhood.heard_from(address, now) == []
    return neighborhood, addresses[:ROW_SIZE], addresses[ROW_SIZE:]


def test_who_answers_is_in() -> None:
    neighborhood = Neighborhood(OWN_ID, 0.0)
    assert neighborhood.heard_from(private(1), 5.0) == []
    node = neighborhood.table.get(private(1))
    assert node is not None
    node.down_hints = 1
    neighborhood.heard_from(private(1), 9.0)
    assert (node.added_at, node.heard_at, node.checked_at, node.down_hints) == (5.0, 9.0, 9.0, 0)


def test_who_introduces_itself_is_pinged_once() -> None:
    neighborhood = Neighborhood(OWN_ID, 0.0)
    (ping,) = neighborhood.introduce(private(1))
    assert ping == Introduction(private(1))
    assert neighborhood.introduce(private(1)) == []
    assert neighborhood.ping_settled(ping, None) == []
    assert len(neighborhood.table) == 0
    assert neighborhood.introduce(private(1)) == [ping], "it may try again"
    neighborhood.heard_from(private(1), 1.0)
    neighborhood.ping_settled(ping, node_id(private(1)))
    assert neighborhood.introduce(private(1)) == [], "it is in"


def test_only_so_many_introductions_at_once() -> None:
    neighborhood = Neighborhood(OWN_ID, 0.0)
    pings = [neighborhood.introduce(private(index)) for index in range(100)]
    assert sum(map(len, pings)) == MAX_INTRODUCTIONS


def test_nobody_is_introduced_where_there_is_no_place() -> None:
    neighborhood, _, others = create_full()
    assert neighborhood.introduce(others[0]) == []
    assert neighborhood.introduce(("0.0.0.0", 1)) == []


def test_a_newcomer_takes_the_place_of_a_silent_node() -> None:
    neighborhood, inside, others = create_full()
    for address in inside[1:]:
        neighborhood.heard_from(address, 50.0)
    (swap,) = neighborhood.heard_from(others[0], 100.0)
    assert isinstance(swap, Swap)
    assert (swap.address, swap.newcomer) == (inside[0], others[0])
    assert neighborhood.ping_settled(swap, None) == [Introduction(others[0])]
    assert neighborhood.table.get(inside[0]) is None
    assert neighborhood.heard_from(others[0], 101.0) == []
    assert neighborhood.table.get(others[0]) is not None


def test_a_node_that_answers_keeps_its_place() -> None:
    neighborhood, inside, others = create_full()
    (swap,) = neighborhood.heard_from(others[0], 100.0)
    assert neighborhood.ping_settled(swap, node_id(swap.address)) == []
    assert neighborhood.table.get(swap.address) is not None
    assert len(neighborhood.table) == len(inside)


def test_only_so_many_swaps_at_once() -> None:
    neighborhood, _, others = create_full()
    swaps = [swap for other in others for swap in neighborhood.heard_from(other, 100.0)]
    assert len(swaps) == MAX_SWAPS
    assert len({swap.address for swap in swaps}) == MAX_SWAPS
    neighborhood.ping_settled(swaps[0], node_id(swaps[0].address))
    assert len(neighborhood.heard_from(others[0], 200.0)) == 1


def test_a_check_removes_who_is_silent_or_somebody_else() -> None:
    for answered_as, stays in ((None, False), (bytes(32), False), (node_id(private(1)), True)):
        neighborhood = Neighborhood(OWN_ID, 0.0)
        neighborhood.heard_from(private(1), 0.0)
        node = neighborhood.table.get(private(1))
        assert node is not None
        (check,) = neighborhood.check(node, 10.0)
        assert check == Check(node)
        assert node.checked_at == 10.0
        neighborhood.ping_settled(check, answered_as)
        assert (neighborhood.table.get(private(1)) is not None) == stays


def test_a_hint_is_followed_once_until_the_node_answers() -> None:
    neighborhood = Neighborhood(OWN_ID, 0.0)
    assert neighborhood.hinted_down(private(1), 1.0) == [], "nobody we know"
    neighborhood.heard_from(private(1), 0.0)
    (check,) = neighborhood.hinted_down(private(1), 1.0)
    assert neighborhood.hinted_down(private(1), 2.0) == []
    neighborhood.heard_from(private(1), 3.0)
    neighborhood.ping_settled(check, node_id(private(1)))
    assert len(neighborhood.hinted_down(private(1), 4.0)) == 1


def test_only_so_many_checks_at_once() -> None:
    neighborhood, inside, _ = create_full()
    checks = [check for address in inside for check in neighborhood.hinted_down(address, 1.0)]
    assert len(checks) == MAX_CHECKS
    neighborhood.ping_settled(checks[0], None)
    node = neighborhood.table.get(inside[-1])
    assert node is not None
    assert len(neighborhood.check(node, 2.0)) == 1


def test_who_does_not_answer_anything_is_out() -> None:
    neighborhood = Neighborhood(OWN_ID, 0.0)
    neighborhood.heard_from(private(1), 0.0)
    neighborhood.silent(private(1))
    neighborhood.silent(private(2))
    assert len(neighborhood.table) == 0


def test_moving_takes_the_neighbors_along() -> None:
    neighborhood, inside, _ = create_full()
    there = node_id(inside[3])
    neighborhood.move(there)
    assert neighborhood.table.own_id == there
    known = {node.address for node in neighborhood.table}
    assert known == set(inside) - {inside[3]}
