"""Blocks that one peer is about to send without a request, since an extension asked it to.

Whoever asks by an extension (a bee, for all blocks that a read will look at) saves the round
trip in which it would learn which blocks to request. Meanwhile nobody else is asked for what the
peer said it would send, and when it does not come the blocks are requested as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

MAX_ALLOWED = 8192
"""Blocks that a peer may still send unasked, at most."""


class ExpectedPushes:
    """How many blocks a peer may send, and which of them it has announced."""

    __slots__ = ("_allowed", "_indices", "deadline", "missed")

    def __init__(self) -> None:
        self._allowed = 0
        self._indices: set[int] = set()
        self.deadline = math.inf
        """When what was announced is given up."""

        self.missed = 0
        """Blocks that were announced and did not come."""

    def allow(self, count: int) -> None:
        """So many more blocks may come."""
        self._allowed = min(self._allowed + count, MAX_ALLOWED)

    def admit(self) -> bool:
        """Whether a block that nobody requested may be looked at; counts it."""
        if self._allowed == 0:
            return False
        self._allowed -= 1
        return True

    def expect(self, indices: Iterable[int], deadline: float) -> None:
        """The peer has announced these, and sends something of them before the deadline."""
        self._indices.update(indices)
        if self._indices:
            self.deadline = deadline

    def arrived(self, index: int, deadline: float) -> None:
        """One came; the next one has until then."""
        if index in self._indices:
            self._indices.discard(index)
            self.deadline = deadline if self._indices else math.inf

    def give_up(self) -> set[int]:
        """What has not come; it is expected no longer."""
        given_up, self._indices = self._indices, set()
        self.missed += len(given_up)
        self.deadline = math.inf
        return given_up
