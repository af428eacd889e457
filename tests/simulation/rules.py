"""Rules about single peers, with budgets: who gives what to whom, in the end."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from node.mesh.peer_rules import LAN, Direction, PeerRule, PeerRules
from tests.simulation.clocks import on_host
from tests.simulation.nodes import SimulatedNode
from tests.simulation.roles import identity_of

_BUDGETS = (2_000, 10_000, 40_000)


def draw_rules(chance: random.Random, number: int, count: int) -> PeerRules:
    """Of a node about others, by name, id, or all that are on its network; they may be none."""
    rules = PeerRules()
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        other = chance.choice([peer for peer in range(count) if peer != number])
        id = identity_of(other).public_key.hex()
        key = chance.choice((id, id[:12], f"node {other}", f"node {other}", LAN))
        budget = chance.choice((None, None, None, *_BUDGETS))
        is_one_way = budget is None or chance.random() < 0.3
        direction = chance.choice(list(Direction)) if is_one_way else Direction.BOTH
        rules = rules.with_rule(key, PeerRule(direction, day_bytes=budget))
    return rules


def without_budgets(rules: PeerRules) -> PeerRules:
    return PeerRules({key: PeerRule(rule.direction) for key, rule in rules.named.items()})


def has_budget(rules: PeerRules) -> bool:
    return any(rule.day_bytes is not None for rule in rules.named.values())


def flows(source: SimulatedNode, target: SimulatedNode) -> bool:
    """Whether what the one has is for the other, as both have it at this moment."""
    return source is target or (_due(source, target).gives and _due(target, source).takes)


def _due(node: SimulatedNode, other: SimulatedNode) -> Direction:
    if node.mesh is None:
        return Direction.BOTH
    with on_host(node.host):
        return node.mesh.exchange.due(other.identity.public_key, other.name)


def reached_from(source: SimulatedNode, nodes: Sequence[SimulatedNode]) -> set[int]:
    """Who may have what this one has, by others, too."""
    reached = {source.number}
    waiting = [source]
    while waiting:
        node = waiting.pop()
        more = _not_yet(nodes, node, reached)
        reached |= {other.number for other in more}
        waiting += more
    return reached


def _not_yet(
    nodes: Iterable[SimulatedNode], source: SimulatedNode, reached: set[int]
) -> list[SimulatedNode]:
    others = [node for node in nodes if node.number not in reached]
    return [node for node in others if flows(source, node)]
