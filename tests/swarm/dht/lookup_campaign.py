"""How many lookups succeed in a network with bad nodes.

    python -m tests.swarm.dht.lookup_campaign --nodes 500 --bad 0.2 --lookups 400 --seed 7

Every lookup is of a topic that one honest node, drawn at random, has just announced, by another
one. It succeeds if the record is among those found.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass

from hypercore.crypto import KeyPair
from swarm.dht.operations import plan_announce, plan_lookup, read_lookup
from swarm.dht.payloads import PeerRecord
from tests.support.dht_attackers import Attacker, Malice
from tests.support.dht_network import Network, SimulatedNode, build_network, public_host

VICTIMS = 30
"""Honest nodes that each bad one makes itself known to."""


@dataclass(frozen=True, slots=True)
class Outcome:
    lookups: int
    found: int
    visits: float
    seconds: float


def build_hostile_network(
    seed: int, size: int, bad_share: float
) -> tuple[Network, list[SimulatedNode]]:
    """A network in which that share of all members is bad, of every kind."""
    bad = round(size * bad_share)
    network, honest = build_network(seed, size - bad)
    gang = [(public_host(size + i), 4000) for i in range(bad)]
    kinds = list(Malice)
    attackers = [
        Attacker(network, address, kinds[i % len(kinds)], gang) for i, address in enumerate(gang)
    ]
    for attacker in attackers:
        attacker.join(network.random.sample(honest, min(VICTIMS, len(honest))))
        network.run_for(0.5)  # nobody is introduced to too many at once
    return network, honest


def look_up(network: Network, honest: Sequence[SimulatedNode], count: int) -> Outcome:
    """Announce and look up as many topics."""
    found = visits = 0
    seconds = 0.0
    for _ in range(count):
        announcer, seeker = network.random.sample(list(honest), 2)
        topic = network.random.randbytes(32)
        key_pair = KeyPair.from_seed(network.random.randbytes(32))
        announcer.query(plan_announce(topic, key_pair))
        started = network.now
        record = seeker.query(plan_lookup(topic))
        seconds += network.now - started
        visits += len(record.replies)
        answers = [read_lookup(reply) for reply in record.replies]
        wanted = PeerRecord(key_pair.public_key)
        found += any(answer is not None and wanted in answer.records for answer in answers)
    return Outcome(count, found, visits / count, seconds / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--bad", type=float, default=0.2)
    parser.add_argument("--lookups", type=int, default=400)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.nodes} nodes, {arguments.bad:.0%} bad")  # noqa: T201
    network, honest = build_hostile_network(arguments.seed, arguments.nodes, arguments.bad)
    outcome = look_up(network, honest, arguments.lookups)
    print(  # noqa: T201
        f"{outcome.found} of {outcome.lookups} lookups succeeded, {outcome.visits:.1f} replies and "
        f"{outcome.seconds:.2f} s each; {network.datagrams} datagrams in all"
    )


if __name__ == "__main__":
    main()
