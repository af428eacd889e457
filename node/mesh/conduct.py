"""How a member behaves: what it said and did not keep, and what it makes us do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Conduct:
    """Of one member on one connection."""

    undelivered: int = 0
    """Values that it announced, and did not have when it was asked for them."""
    heads: int = 0
    """Words about how long our log is."""
    evidence_received: int = 0
    """Pieces of evidence, known ones included."""
    evidence_unproven: int = 0
    """Pieces that could not be judged here."""
