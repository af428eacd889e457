"""Telling a node that was restarted from two nodes that run with one key.

Every run of a node names itself by a random number. A run that another one has followed is over,
so if it speaks again both are alive: the younger is the second, and the elder is asked to sign
that. A run that comes while the one before is still connected may be a second one: it had better
not write until that is known.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from node.mesh.run_messages import Alive, Doubt

MAX_NODES = 1024
MAX_RUNS = 8
"""Runs of one node that are remembered."""

OVERLAP_SECONDS = 10.0
"""A connection that was replaced longer ago is no sign of a second run."""


@dataclass(slots=True)
class _Node:
    runs: list[bytes] = field(default_factory=list)
    """The oldest first."""
    second: set[bytes] = field(default_factory=set)
    proofs: dict[bytes, Alive] = field(default_factory=dict)
    """What an elder run signed of one that is second."""
    replaced_at: float | None = None
    """When a living connection of the node was replaced by another one."""


class Runs:
    """The runs of the nodes that were met. Sync and pure; times are monotonic seconds."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()

    def note(self, node_id: bytes, instance: bytes, now: float) -> Doubt:
        """A run of this node speaks; returns what to tell it."""
        node = self._nodes.setdefault(node_id, _Node())
        self._nodes.move_to_end(node_id)
        if len(self._nodes) > MAX_NODES:
            self._nodes.popitem(last=False)
        runs = node.runs
        if instance in runs:
            followers = runs[runs.index(instance) + 1 :]
            node.second.update(followers)
        else:
            runs.append(instance)
            for forgotten in runs[:-MAX_RUNS]:
                node.second.discard(forgotten)
                node.proofs.pop(forgotten, None)
            del runs[:-MAX_RUNS]
            is_alive = node.replaced_at is not None and now - node.replaced_at < OVERLAP_SECONDS
            if is_alive and len(runs) > 1:
                return Doubt.OVERLAP
        return Doubt.SECOND if instance in node.second else Doubt.NONE

    def prove(self, node_id: bytes, alive: Alive) -> None:
        """A run of this node signed that it is alive, and is not the one named."""
        node = self._nodes.get(node_id)
        if node is not None and alive.instance in node.second:
            node.proofs[alive.instance] = alive

    def tell(self, node_id: bytes, instance: bytes) -> list[Alive]:
        """What to tell this run: the proof that it is second; and to ask it: whether others are."""
        node = self._nodes[node_id]
        proof = node.proofs.get(instance)
        asked = node.second - node.proofs.keys() - {instance}
        return [*filter(None, [proof]), *map(Alive, sorted(asked))]

    def replaced(self, node_id: bytes, now: float) -> None:
        """A living connection of this node made room for another one."""
        if node_id in self._nodes:
            self._nodes[node_id].replaced_at = now
