"""What an operator decides about the sync engine of a node."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_BYTES = 64 * 1024 * 1024
"""Default budget for what is kept of values: 5,000 values of ten edits fit into it."""

MEMORY_SECONDS = 600.0
"""Values are forgotten when nobody used them for so long, or for up to half as long again."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """What an operator decides."""

    memory_bytes: int = MEMORY_BYTES
    """For what is kept of values in use: verified state, and content, which takes less."""
    memory_seconds: float = MEMORY_SECONDS
    """Values are forgotten when nobody used them for so long, or for up to half as long again."""
    enforces_writes: bool = False
    """Refuse what its author had no right to write, as the owning group says."""
    min_copies: int = 1
    """On how many nodes, this one included, something is durable when clients are told so."""
    erases: bool = True
    """Remove deleted values from the disk; else their content stays there, unserved."""
    checks_aside: bool = False
    """Have signatures of uploads checked by another process: it pays with a core to spare."""
