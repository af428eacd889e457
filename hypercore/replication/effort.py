"""How much of our time a peer may take and give nothing for it.

A peer that sends what costs us time (cancels, requests for what is not here, extension messages
that nobody handles, bitfields of nothing) breaks no rule by any single one of them. So time that
is spent on a peer is a debt, which blocks that go either way pay off, and time does, slowly. A
peer that owes too much is read from later, with its whole connection: TCP makes it wait. It has a
share for each core, and less than the sum of them for all cores of one connection.
"""

from __future__ import annotations

FREE_SHARE = 0.05
"""The share of our time that a peer may take while no block comes from it or goes to it."""

FREE_SECONDS = 0.02
"""What it may take at once; about 1,000 small messages."""

CONNECTION_SHARE = 0.2
CONNECTION_SECONDS = 0.5
"""The same for all cores of one connection. Honest peers open hundreds that stay idle."""

BYTE_SECONDS = 3e-9
"""What it takes to read and decrypt a byte that is in no block; that time is not measured here."""

BLOCK_SECONDS = 0.001
"""What a block pays for, some ten times what it costs."""

MAX_PAUSE_SECONDS = 2.0
"""The connection is to live: a keep-alive must be seen in time."""


class Effort:
    """The debt of one peer. A machine; seconds are of any clock that goes forward."""

    __slots__ = ("_debt", "_seconds", "_share", "_updated_at", "is_exact")

    def __init__(
        self, now: float, share: float = FREE_SHARE, seconds: float = FREE_SECONDS
    ) -> None:
        self._share = share
        self._seconds = seconds
        self._updated_at = now
        self._debt = 0.0
        self.is_exact = False
        """Whether no time of others is in it."""

    @classmethod
    def of_connection(cls, now: float) -> Effort:
        """That of all cores of one connection."""
        return cls(now, CONNECTION_SHARE, CONNECTION_SECONDS)

    def spent(self, seconds: float, blocks: int, now: float, idle_bytes: int = 0) -> None:
        """Note the time spent, and how many blocks have gone either way meanwhile.

        `idle_bytes` have come that are in no block.
        """
        seconds += idle_bytes * BYTE_SECONDS
        debt = self._debt - (now - self._updated_at) * self._share + seconds
        self._updated_at = now
        self._debt = max(0.0, debt - blocks * BLOCK_SECONDS)

    def begin_exact(self) -> None:
        """Forget what was measured with others' time in it; from here on there is none."""
        if not self.is_exact:
            self.is_exact, self._debt = True, 0.0

    @property
    def pause_seconds(self) -> float:
        """How long not to read from the peer; 0 for one that is of use."""
        owed = self._debt - self._seconds
        return min(owed / self._share, MAX_PAUSE_SECONDS) if owed > 0 else 0.0
