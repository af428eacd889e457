"""How a node of a script is configured."""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.storage import Durability
from node.access.quotas import Quotas
from node.mesh.replicas import ReplicaPolicy
from node.mesh.ticket import Role


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Drawn before the run."""

    durability: Durability
    policy: ReplicaPolicy
    quotas: Quotas
    peers: tuple[int, ...]
    """Nodes whose addresses it was told."""
    role: Role = Role.WRITER
    """That of the first node is the founder's, whatever it says here."""
    min_copies: int = 1
    is_hybrid: bool = False
    """Its coValues are in SQLite, too."""
    is_hasty: bool = False
    """Its disk lies about what it has synced."""
    grant_seconds: int | None = None
    """How long what an admin granted it lasts, from the start of the run; None: for good."""
