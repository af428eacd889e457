"""Which link of a full relay makes way for another."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.relay_links import RelayLinks

BUSY = "198.51.100.1"


@dataclass(eq=False)
class Link:
    is_closed: bool = False


def linked(*ends: tuple[str, str]) -> tuple[RelayLinks[Link], list[Link]]:
    table: RelayLinks[Link] = RelayLinks()
    links = [Link() for _ in ends]
    for link, (host, other) in zip(links, ends, strict=True):
        table.add(link, host, other)
    return table, links


def test_a_host_that_has_most_makes_way_for_those_that_have_none() -> None:
    table, links = linked(("a", "b"), ("c", "c"), ("c", "d"), ("c", "e"))
    assert table.making_way("x", "y") is links[1], "both its ends are of the host that has most"
    links[1].is_closed = True
    assert (len(table), table.count("c"), table.count("e")) == (3, 2, 1)
    assert table.making_way("x", "y") is links[3], "the youngest"
    links[3].is_closed = True
    assert table.making_way("x", "y") is None, "all have one"


def test_who_has_as_many_as_others_displaces_nobody() -> None:
    table, links = linked(("a", "b"), ("a", "b"), ("a", "c"), ("x", "y"))
    assert table.making_way("a", "z") is None
    assert table.making_way("x", "z") is links[1], "a has three, x two then"
    links[1].is_closed = True
    assert table.making_way("x", "z") is None


def test_a_busy_node_keeps_its_clients_where_two_hosts_take_as_many_links() -> None:
    clients = [(BUSY, f"client {number}") for number in range(4)]
    table, links = linked(*[("e", "f")] * 4, *clients)
    assert table.making_way("x", "y") is links[3]


def test_nothing_makes_way_where_nothing_is() -> None:
    assert RelayLinks[Link]().making_way("x", "y") is None
