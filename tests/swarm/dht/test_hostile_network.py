"""Lookups and announcements in networks where not everybody means well."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from hypercore.crypto import KeyPair
from swarm.announcement import Address
from swarm.dht.hosts import party_of
from swarm.dht.messages import Internal, node_id
from swarm.dht.operations import plan_announce, plan_lookup, read_lookup
from swarm.dht.payloads import PeerRecord
from swarm.dht.query import QueryPlan
from swarm.dht.routing_table import distance
from tests.support.dht_attackers import Attacker, Malice, sybil_addresses
from tests.support.dht_network import Network, SimulatedNode, build_network, public_host
from tests.swarm.dht.lookup_campaign import build_hostile_network, look_up

TOPIC = b"\x77" * 32
PAIR = KeyPair.from_seed(b"\x78" * 32)


@pytest.fixture
def seed() -> int:
    """New every time, and told when the test fails."""
    chosen = random.SystemRandom().randrange(10**6)
    print(f"seed {chosen}")  # noqa: T201
    return chosen


def announce_and_find(
    announcer: SimulatedNode, seeker: SimulatedNode
) -> tuple[list[Address], bool]:
    """Who is closest according to the announcer, and whether the seeker finds the record."""
    stored = announcer.query(plan_announce(TOPIC, PAIR))
    assert stored.result is not None
    closest = [reply.source for reply in stored.result.closest]
    answers = [read_lookup(reply) for reply in seeker.query(plan_lookup(TOPIC)).replies]
    wanted = PeerRecord(PAIR.public_key)
    return closest, any(answer is not None and wanted in answer.records for answer in answers)


def test_lookups_in_a_network_with_a_fifth_bad_nodes(seed: int) -> None:
    network, honest = build_hostile_network(seed, 60, 0.2)
    outcome = look_up(network, honest, 20)
    assert outcome.found >= 19


@pytest.mark.slow
def test_lookups_in_a_large_network_with_a_fifth_bad_nodes(seed: int) -> None:
    network, honest = build_hostile_network(seed, 500, 0.2)
    outcome = look_up(network, honest, 100)
    assert outcome.found >= 95


def add_sybils(
    network: Network, honest: Sequence[SimulatedNode], hosts: Sequence[str], per_host: int
) -> list[Address]:
    """Put nodes as close to the topic as these hosts can, and make them known."""
    addresses = sybil_addresses(TOPIC, hosts, per_host)
    for address in addresses:
        known_by = network.random.sample(list(honest), 10)
        Attacker(network, address, Malice.ECLIPSE, addresses).join(known_by)
        network.run_for(0.2)
    return addresses


def test_sybils_of_few_networks_do_not_hide_a_topic(seed: int) -> None:
    network, honest = build_network(seed, 40)
    hosts = [f"203.0.{112 + i // 4}.{10 + i % 4}" for i in range(24)]  # 4 in each of 6 networks
    sybils = add_sybils(network, honest, hosts, 4)
    nearest = sorted(
        [*sybils, *(node.server for node in honest)],
        key=lambda address: distance(node_id(address), TOPIC),
    )
    assert set(nearest[:20]) <= set(sybils), "they stand closest, all of them"
    closest, is_found = announce_and_find(honest[3], honest[30])
    assert is_found
    assert len(closest) == 20
    assert sum(party_of(address[0]) is not None for address in closest if address in sybils) <= 12


def test_one_network_gets_only_a_share_of_a_table(seed: int) -> None:
    network, honest = build_network(seed, 40)
    flood = [("203.0.113.9", port) for port in range(2000, 2080)]
    for address in flood:
        Attacker(network, address, Malice.ECLIPSE, flood).join(honest[:10])
        network.run_for(0.1)
    for node in honest[:10]:
        taken = sum(entry.address in set(flood) for entry in node.engine.table)
        assert taken < len(node.engine.table) / 2, "4 of every row that has other nodes, too"
        found = node.query(QueryPlan(TOPIC, Internal.FIND_NODE, True)).result
        assert found is not None
        assert sum(reply.source in set(flood) for reply in found.closest) <= 2


def test_a_victim_named_by_everybody_gets_little(seed: int) -> None:
    """Bad nodes name ports of a host that never asked for anything."""
    network, honest = build_network(seed, 40)
    victim = "198.51.100.77"
    named = sybil_addresses(TOPIC, [victim], 20)
    for i in range(10):
        Attacker(network, (public_host(900 + i), 4000), Malice.ECLIPSE, named).join(honest)
        network.run_for(0.3)
    honest[5].query(plan_lookup(TOPIC))
    spent = sum(size for host, size in network.bytes_to.items() if host == victim)
    assert 0 < spent <= 8 * 6 * 43, "8 visits, each at most six times"


def test_loss_costs_time_but_not_success(seed: int) -> None:
    network, honest = build_network(seed, 40, loss=0.2)
    outcome = look_up(network, honest, 20)
    assert outcome.found >= 19
