"""What happens in one run, drawn from its seed: who is there, what clients do, what goes wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto

from hypercore.storage import Durability
from node.access.quotas import Quotas
from node.mesh.exchange import EXCHANGE_SECONDS
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Role
from node.mesh.trust import OUT_LOOK_SECONDS
from tests.simulation.circumstances import let_grants_end, set_up
from tests.simulation.determinism import derive
from tests.simulation.plans import NodePlan

CONVERGENCE_SECONDS = 5.0

QUOTA_BYTES = 40_000
"""For every account; one client of a run goes beyond it."""

FULL_SHARE = 0.3
COPY_SHARE = 0.15
BAN_SHARE = 0.15
FORK_SHARE = 0.15
COMPACT_SHARE = 0.3
EVICT_SHARE = 0.3
POLICY_SHARE = 0.15
ROLE_SHARE = 0.15
CLOCK_SHARE = 0.1
BLOB_SHARE = 0.06
"""Of all runs, in which a disk has no room for a while, in which a node is put back to an older
state of it, in which one is shut out, in which an author forks a session, in which a bee is
compacted, a cache emptied, a policy changed, a node made a reader, say, a clock set,
and something large deleted and put anew."""

MIN_CLIENTS = 2
MAX_CLIENTS = 4

_DURABILITIES = (Durability.COMMIT, Durability.COMMIT, Durability.group(5), Durability.OS)
_LATENCIES = (0.0005, 0.005, 0.02, 0.08)


class Fault(Enum):
    """What goes wrong; everything is put right again at the end of the script."""

    PARTITION = auto()
    """Two groups of nodes do not reach one another."""
    ISOLATE = auto()
    """One node reaches nobody, or nobody reaches it, or both."""
    CUT_ONE_WAY = auto()
    """One link carries nothing in one direction."""
    FLAP = auto()
    """One node is cut off and connected again, several times."""
    LOSE = auto()
    """All links lose up to a fifth."""
    SLOW = auto()
    """One node's links take up to half a second."""
    HEAL = auto()
    RESET = auto()
    """All connections of a node break."""
    KILL = auto()
    POWER = auto()
    STOP = auto()
    FULL = auto()
    """A disk has no room for a while: nothing is taken in, all that is there is served."""
    COPY = auto()
    """The directory of a node is copied; at the end of the script it is put back to that, or it is
    not known whether its log is whole."""
    BAN = auto()
    """An admin of the mesh shuts a node out, for good."""
    COMPACT = auto()
    """The bee of a node is compacted, and what others need of its log no more is cleared."""
    EVICT = auto()
    """A node gives up all blocks of others that it does not need at the moment."""
    POLICY = auto()
    """A node keeps other values from now on."""
    ROLE = auto()
    """An admin makes a node something else."""
    CLOCK = auto()
    """The clock of a node is set, by minutes or weeks."""
    RULE = auto()
    """A node has other rules about single peers from now on."""


class Deed(Enum):
    """What a client does."""

    CREATE = auto()
    EDIT = auto()
    LOAD = auto()
    DELETE = auto()
    MOVE = auto()
    RECONNECT = auto()
    GORGE = auto()
    """Writes more than its account may store."""
    BLOB = auto()
    """Puts something large in place of what it put there before, which is deleted."""
    FORK = auto()
    """Goes on with a session on two devices, one of them a copy of the other."""


@dataclass(frozen=True, slots=True)
class Step:
    """At that moment, this; `draw` is where its details come from."""

    at: float
    what: Fault | Deed
    actor: int
    draw: int


@dataclass(frozen=True, slots=True)
class Script:
    """One run."""

    seed: int
    nodes: tuple[NodePlan, ...]
    clients: int
    latency: float
    jitter: float
    steps: tuple[Step, ...]
    seconds: float
    is_encrypted: bool = False

    @property
    def patience_seconds(self) -> float:
        """Until all agree, after everything was put right.

        That a grant has not run out after all, as a clock had it that is right now, is noticed
        with the next look of who took itself for nobody. So is another day noticed, of which a
        budget has something left.
        """
        has_wrong_clock = any(step.what is Fault.CLOCK for step in self.steps)
        ends = any(plan.grant_seconds for plan in self.nodes)
        seconds = CONVERGENCE_SECONDS + (OUT_LOOK_SECONDS if has_wrong_clock and ends else 0.0)
        return seconds + (EXCHANGE_SECONDS if self.has_rules else 0.0)

    @property
    def has_rules(self) -> bool:
        return any(plan.policy.peers.named for plan in self.nodes)

    @property
    def is_founded(self) -> bool:
        """Whether the mesh has a founder, node 0, and a grant for each: else all may write."""
        is_judged = any(step.what in {Fault.BAN, Fault.ROLE} for step in self.steps)
        return is_judged or any(
            plan.role is not Role.WRITER or plan.grant_seconds for plan in self.nodes
        )


_FAULT_WEIGHTS = {
    Fault.PARTITION: 3,
    Fault.ISOLATE: 2,
    Fault.CUT_ONE_WAY: 3,
    Fault.FLAP: 1,
    Fault.LOSE: 1,
    Fault.SLOW: 1,
    Fault.HEAL: 3,
    Fault.RESET: 1,
    Fault.KILL: 2,
    Fault.POWER: 2,
    Fault.STOP: 1,
}

_UPKEEP_SHARES = {
    Fault.COMPACT: COMPACT_SHARE,
    Fault.EVICT: EVICT_SHARE,
    Fault.POLICY: POLICY_SHARE,
}

_DEED_WEIGHTS = {
    Deed.CREATE: 4,
    Deed.EDIT: 12,
    Deed.LOAD: 6,
    Deed.DELETE: 1,
    Deed.MOVE: 1,
    Deed.RECONNECT: 1,
    Deed.GORGE: 1,
}


_SIZE_WEIGHTS = (116, 44, 20, 8, 4, 2, 2, 2, 1, 1)
"""Of 3 to 12 nodes: what goes wrong among many mostly goes wrong among few, and sooner."""


def write_script(seed: int, *, nodes: int | None = None) -> Script:
    """The run of a seed; with `nodes` of so many, else of 3 to 12, small ones more often."""
    chance = derive(seed, "script")
    count = nodes or chance.choices(range(3, 13), _SIZE_WEIGHTS)[0]
    seconds = chance.choice((3.0, 6.0, 12.0))
    steps: list[Step] = []
    kinds = chance.sample(list(_FAULT_WEIGHTS), chance.randint(2, len(_FAULT_WEIGHTS)))
    for _ in range(chance.randint(1, 6)):
        fault = chance.choices(kinds, [_FAULT_WEIGHTS[kind] for kind in kinds])[0]
        steps.append(_step(chance, seconds, fault, count))
    steps += draw_adversities(seed, seconds, count)
    steps += draw_changes(seed, seconds, count)
    clients = chance.randint(MIN_CLIENTS, MAX_CLIENTS)
    for _ in range(chance.randint(6, 18)):
        deed = chance.choices(list(_DEED_WEIGHTS), list(_DEED_WEIGHTS.values()))[0]
        steps.append(_step(chance, seconds, deed, clients))
    plans, is_encrypted = set_up(seed, [_plan(chance, number, count) for number in range(count)])
    if any(plan.policy.peers.named for plan in plans):
        steps += draw_rule_changes(seed, seconds, count)
    if any(step.what is Fault.CLOCK for step in steps):
        plans = let_grants_end(seed, plans)
    if any(step.what is Fault.ROLE for step in steps):  # more of them among those with blind ones
        is_encrypted |= derive(seed, "encrypted roles").random() < 0.3
    return Script(
        seed=seed,
        nodes=plans,
        is_encrypted=is_encrypted,
        clients=clients,
        latency=chance.choice(_LATENCIES),
        jitter=chance.choice((0.0, 0.0, 0.01)),
        steps=tuple(sorted(steps, key=lambda step: step.at)),
        seconds=seconds,
    )


def draw_adversities(seed: int, seconds: float, count: int) -> Iterator[Step]:
    """What goes wrong in some runs besides; drawn apart, so that nothing else depends on it."""
    chance = derive(seed, "adversities")
    if chance.random() < FULL_SHARE:
        for _ in range(chance.randint(1, 2)):
            yield _step(chance, seconds, Fault.FULL, count)
    kind = chance.random()
    if kind < COPY_SHARE:
        yield _step(chance, seconds, Fault.COPY, count)
    elif kind < COPY_SHARE + BAN_SHARE:
        step = _step(chance, seconds, Fault.BAN, count - 1)
        yield replace(step, actor=step.actor + 1)
    if chance.random() < FORK_SHARE:
        yield _step(chance, seconds, Deed.FORK, MIN_CLIENTS)
    for fault, share in _UPKEEP_SHARES.items():
        if chance.random() < share:
            yield _step(chance, seconds, fault, count)


def draw_changes(seed: int, seconds: float, count: int) -> Iterator[Step]:
    """What is made something else in some runs; drawn apart as well."""
    chance = derive(seed, "roles")
    if chance.random() < ROLE_SHARE:
        for _ in range(chance.randint(1, 4)):
            step = _step(chance, seconds, Fault.ROLE, count - 1)
            yield replace(step, actor=step.actor + 1)
    chance = derive(seed, "blobs")
    if chance.random() < BLOB_SHARE:
        client = chance.randrange(MIN_CLIENTS)
        for _ in range(chance.randint(2, 4)):
            yield replace(_step(chance, seconds, Deed.BLOB, MIN_CLIENTS), actor=client)
    chance = derive(seed, "clocks")
    if chance.random() < CLOCK_SHARE:
        for _ in range(chance.randint(1, 3)):
            yield _step(chance, seconds, Fault.CLOCK, count)


def draw_rule_changes(seed: int, seconds: float, count: int) -> Iterator[Step]:
    """In runs whose nodes have rules about single peers."""
    chance = derive(seed, "rule changes")
    for _ in range(chance.choice((0, 0, 1, 2))):
        yield _step(chance, seconds, Fault.RULE, count)


def _step(chance: random.Random, seconds: float, what: Fault | Deed, actors: int) -> Step:
    return Step(chance.uniform(0, seconds), what, chance.randrange(actors), chance.getrandbits(32))


def _plan(chance: random.Random, number: int, count: int) -> NodePlan:
    """Every pair knows at least one way: who has the lower number was told of the higher."""
    others = [peer for peer in range(count) if peer != number]
    peers = [peer for peer in others if peer > number or chance.random() < 0.5]
    return NodePlan(
        durability=chance.choice(_DURABILITIES),
        policy=ReplicaPolicy(everything=chance.random() < 0.3),
        quotas=Quotas(account_bytes=QUOTA_BYTES),
        peers=tuple(peers),
    )
