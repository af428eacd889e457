from __future__ import annotations

from swarm.dht.routing_table import DhtNode, RoutingTable
from swarm.dht.upkeep import (
    OLD_SECONDS,
    RECENT_SECONDS,
    REFRESH_SECONDS,
    TICK_SECONDS,
    Chores,
    Upkeep,
)


def create_table(count: int) -> RoutingTable:
    table = RoutingTable(bytes(32))
    for index in range(count):
        table.add(DhtNode.create((f"10.0.{index}.1", 4000), 0.0))
    return table


def run(upkeep: Upkeep, table: RoutingTable, ticks: int, in_flight: int = 0) -> list[Chores]:
    return [upkeep.tick(table, in_flight, upkeep.next_tick) for _ in range(ticks)]


def test_every_eighth_tick_the_silent_are_checked() -> None:
    upkeep, table = Upkeep(0.0), create_table(30)
    chores = run(upkeep, table, 16)
    assert [len(each.check) for each in chores] == [0] * 7 + [2] + [0] * 7 + [5], "2 while recent"
    busy = run(upkeep, table, 8, in_flight=9)
    assert len(busy[-1].check) == 3


def test_who_was_just_asked_is_not_checked() -> None:
    upkeep, table = Upkeep(0.0), create_table(30)
    for node in table:
        node.checked_at = 16 * TICK_SECONDS
    assert len(run(upkeep, table, 16)[-1].check) == 0


def test_an_idle_table_is_refreshed() -> None:
    upkeep, table = Upkeep(0.0), create_table(30)
    due = [index for index, each in enumerate(run(upkeep, table, 70), 1) if each.is_refresh_due]
    assert due[0] == REFRESH_SECONDS / TICK_SECONDS
    upkeep.used(upkeep.next_tick)
    assert not any(each.is_refresh_due for each in run(upkeep, table, 50))


def test_a_small_table_is_refreshed_more_often_and_an_empty_one_most() -> None:
    upkeep, table = Upkeep(0.0), create_table(5)
    upkeep.used(10_000.0)
    due = [index for index, each in enumerate(run(upkeep, table, 130), 1) if each.is_refresh_due]
    assert due == [64, 128]
    upkeep, table = Upkeep(0.0), create_table(0)
    due = [index for index, each in enumerate(run(upkeep, table, 24), 1) if each.is_refresh_due]
    assert due == [8, 16, 24]


def test_after_sleep_everybody_is_old() -> None:
    upkeep, table = Upkeep(0.0), create_table(30)
    run(upkeep, table, 3)
    woken_at = 100_000.0
    assert upkeep.tick(table, 0, woken_at) == Chores(has_slept=True)
    assert all(woken_at - node.heard_at > OLD_SECONDS for node in table)
    later = run(upkeep, table, 2)
    assert later[0].is_refresh_due
    assert len(later[1].check) == 5


def test_a_late_tick_is_no_sleep() -> None:
    upkeep, table = Upkeep(0.0), create_table(1)
    assert not upkeep.tick(table, 0, 14.9).has_slept
    assert upkeep.next_tick == 14.9 + TICK_SECONDS


def test_the_one_not_heard_of_for_longest_is_to_be_replaced() -> None:
    upkeep = Upkeep(0.0)
    nodes = [DhtNode.create(("10.0.0.1", port), 0.0) for port in range(1, 4)]
    for node, checked_at in zip(nodes, (50.0, 20.0, 70.0), strict=True):
        node.checked_at = checked_at
    assert upkeep.node_to_replace(nodes, 100.0) is nodes[1]
    assert upkeep.node_to_replace(nodes, 24.0) is None, "all were just asked"
    assert upkeep.node_to_replace((), 100.0) is None


def test_a_proven_node_is_not_bothered() -> None:
    upkeep = Upkeep(0.0)
    node = DhtNode.create(("10.0.0.1", 1), 0.0)
    now = OLD_SECONDS + 100.0
    node.checked_at = now - RECENT_SECONDS / 2
    assert upkeep.node_to_replace([node], now) is None
    node.checked_at = now - RECENT_SECONDS - 1
    assert upkeep.node_to_replace([node], now) is node
