"""How much of our time a peer may take and give nothing for it.

A peer that sends what costs us time (cancels, requests for what is not here, extension messages
that nobody handles, bitfields of nothing) breaks no rule by any single one of them. So time that
is spent on a peer is a debt, which blocks that go either way pay off, and time does, slowly. A
peer that owes too much is read from later, with its whole connection: TCP makes it wait.
"""

from __future__ import annotations

FREE_SHARE = 0.05
"""The share of our time that a peer may take while no block comes from it or goes to it."""

FREE_SECONDS = 0.02
"""What it may take at once; about 1,000 small messages."""

BYTE_SECONDS = 3e-9
"""What it takes to read and decrypt a byte that is in no block; that time is not measured here."""

BLOCK_SECONDS = 0.001
"""What a block pays for, some ten times what it costs."""

MAX_PAUSE_SECONDS = 2.0
"""The connection is to live: a keep-alive must be seen in time."""


class Effort:
    """The debt of one peer. A machine; seconds are of any clock that goes forward."""

    __slots__ = ("_blocks", "_debt", "_updated_at")

    def __init__(self, now: float, blocks: int = 0) -> None:
        """`blocks` have gone already, and pay for nothing."""
        self._debt = 0.0
        self._blocks = blocks
        self._updated_at = now

    def spent(self, seconds: float, blocks: int, now: float, idle_bytes: int = 0) -> None:
        """Note the time spent, and how many blocks have gone either way since the beginning.

        `idle_bytes` have come that are in no block.
        """
        seconds += idle_bytes * BYTE_SECONDS
        debt = self._debt - (now - self._updated_at) * FREE_SHARE + seconds
        debt -= (blocks - self._blocks) * BLOCK_SECONDS
        self._blocks = blocks
        self._updated_at = now
        self._debt = max(0.0, debt)

    @property
    def pause_seconds(self) -> float:
        """How long not to read from the peer; 0 for one that is of use."""
        owed = self._debt - FREE_SECONDS
        return min(owed / FREE_SHARE, MAX_PAUSE_SECONDS) if owed > 0 else 0.0
