"""Whether members of a run are what admins made them, each in the eyes of all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.simulation.nodes import SimulatedNode
from tests.simulation.rules import flows


def misjudged(nodes: Sequence[SimulatedNode]) -> Iterator[str]:
    """Who takes whom for what it is not, itself included."""
    members = [node for node in nodes if not node.is_shut_out]
    for node in members:
        if node.mesh is None:
            continue
        if (own := node.mesh.trust.verdict.role) is not node.role:
            yield f"node {node.number} is {node.role}, and takes itself for {own}"
        for other in members:
            id = other.identity.public_key
            judged, member = node.mesh.trust.judge(id, None), node.mesh.members.get(id)
            treated = judged if member is None else member.role
            if other is not node and not (judged is treated is other.role):
                yield (
                    f"node {other.number} is {other.role}, and node {node.number} takes it for "
                    f"{judged}, and treats it as {treated}"
                )


def not_gone(nodes: Sequence[SimulatedNode]) -> Iterator[str]:
    """Who was shut out, and has a connection with somebody else all the same."""
    gone = {node.identity.public_key: node.number for node in nodes if node.is_shut_out}
    for node in nodes:
        if node.mesh is None or node.is_shut_out:
            continue
        for id in gone.keys() & node.mesh.members.keys():
            yield f"node {node.number} has a connection with node {gone[id]}, which is shut out"


def not_kept(nodes: Sequence[SimulatedNode]) -> Iterator[str]:
    """Of which writer a blind member does not keep all."""
    members = [node for node in nodes if not node.is_shut_out]
    for node in members:
        for writer in [] if node.reads else members:
            lacking = 0 if writer.data is None else node.lacks_of(writer.data)
            if lacking and writer.reads and writer.takes_clients and flows(writer, node):
                yield f"node {node.number} lacks {lacking} blocks of node {writer.number}"
