"""How the nodes of a run are set up beyond what is usual: roles, keys, policies, copies.

Drawn apart from everything else, so that a seed whose nodes are usual stays what it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from node.mesh.follow_rules import OwnerKind, OwnerRule
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Role
from tests.simulation.determinism import derive
from tests.simulation.plans import NodePlan
from tests.simulation.rules import draw_rules
from tests.support.authors import Author, group_header

ENCRYPTED_SHARE = 0.15
ROLE_SHARE = 0.3
FOLLOW_SHARE = 0.25
COPIES_SHARE = 0.1
DENY_SHARE = 0.1
HYBRID_SHARE = 0.3
RULE_SHARE = 0.12
"""Of all runs: whose mesh is encrypted, in which one node is a reader, a second admin or blind,
in which nodes follow something, in which one waits for a second copy, in which one denies
something, or follows nothing that is large, and in which about half of the nodes keep coValues in
SQLite, too, and some have rules about others."""

_DENIED_LETTERS = 12
_LARGE_BYTES = 400
_GRANT_SECONDS = 86_400

_LETTERS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def set_up(seed: int, plans: Sequence[NodePlan]) -> tuple[tuple[NodePlan, ...], bool]:
    """The plans of a run's nodes, and whether its mesh is encrypted."""
    chance = derive(seed, "circumstances")
    changed = list(plans)
    is_encrypted = chance.random() < ENCRYPTED_SHARE
    if chance.random() < ROLE_SHARE:
        number = chance.randrange(1, len(changed))
        roles = [Role.READER, Role.ADMIN, *([Role.BLIND] * 2 if is_encrypted else [])]
        changed[number] = replace(changed[number], role=chance.choice(roles))
    if chance.random() < FOLLOW_SHARE:
        changed = [replace(plan, policy=draw_policy(chance, plan.policy)) for plan in changed]
    number = chance.randrange(len(changed))
    others = [plan for plan in changed if plan is not changed[number]]
    if chance.random() < COPIES_SHARE and any(map(_holds_all, others)):
        changed[number] = replace(changed[number], min_copies=2)
    chance = derive(seed, "denials")
    if chance.random() < DENY_SHARE:
        number = chance.randrange(len(changed))
        plan = changed[number]
        changed[number] = replace(plan, policy=draw_denial(chance, plan.policy))
    chance = derive(seed, "stores")
    if chance.random() < HYBRID_SHARE:
        changed = [
            replace(plan, is_hybrid=chance.random() < 0.5 and plan.role is not Role.BLIND)
            for plan in changed
        ]
    chance = derive(seed, "rules")
    if chance.random() < RULE_SHARE:
        changed = [_with_rules(chance, plan, changed) for plan in changed]
    return tuple(changed), is_encrypted


def _with_rules(chance: random.Random, plan: NodePlan, plans: Sequence[NodePlan]) -> NodePlan:
    """Some with rules about others; nobody then waits for copies, which may go nowhere."""
    rules = draw_rules(chance, plans.index(plan), len(plans))
    return replace(plan, policy=replace(plan.policy, peers=rules), min_copies=1)


def let_grants_end(seed: int, plans: Sequence[NodePlan]) -> tuple[NodePlan, ...]:
    """In half of these runs some are members for a time only, which is far away."""
    chance = derive(seed, "expiries")
    if chance.random() < 0.5:
        return tuple(plans)
    ends = (None, _GRANT_SECONDS, 30 * _GRANT_SECONDS)
    return tuple(
        plan if plan.role is Role.ADMIN else replace(plan, grant_seconds=chance.choice(ends))
        for plan in plans
    )


def draw_policy(chance: random.Random, before: ReplicaPolicy) -> ReplicaPolicy:
    """Another one, or the same."""
    group = group_header(Author("client 0").account_id).id
    letters = chance.sample(_LETTERS, len(_LETTERS) // 2)
    drawn = chance.choice(
        (
            before,
            ReplicaPolicy(everything=not before.everything),
            ReplicaPolicy(pinned=frozenset((group,))),
            ReplicaPolicy(prefixes=tuple(f"co_z{letter}" for letter in sorted(letters))),
            ReplicaPolicy(owners=frozenset((OwnerRule(OwnerKind.GROUP, group),))),
        )
    )
    return replace(drawn, peers=before.peers)


def draw_denial(chance: random.Random, policy: ReplicaPolicy) -> ReplicaPolicy:
    """The policy, without some values, all of a group, what all depend on, or what is large."""
    group = group_header(Author("client 0").account_id).id
    letters = sorted(chance.sample(_LETTERS, _DENIED_LETTERS))
    return chance.choice(
        (
            replace(policy, denied_prefixes=tuple(f"co_z{letter}" for letter in letters)),
            replace(policy, denied=frozenset((group,))),
            replace(policy, denied_owners=frozenset((OwnerRule(OwnerKind.OWNER, group),))),
            replace(policy, denied=frozenset((Author("client 1").account_id,))),
            replace(policy, everything=True, max_value_bytes=_LARGE_BYTES),
        )
    )


def _holds_all(plan: NodePlan) -> bool:
    return plan.policy.everything and plan.role is not Role.BLIND
