"""Whether a core is in use: after a while of not being so, peers are told that it wants nothing."""

from __future__ import annotations

from math import inf


class Activity:
    """Active; or not any more, but for so short a time that nobody was told; or quiet."""

    def __init__(self) -> None:
        self.is_active = True
        self.is_quiet = False
        """Nothing is wanted; peers may end the channel."""

        self.deadline = inf
        """When to call `advance`."""

    def set(self, is_active: bool, quiet_at: float) -> None:
        """In use or not; if not, then quiet from a time on, if it stays so."""
        if is_active:
            self.is_active, self.is_quiet, self.deadline = True, False, inf
        elif self.is_active:
            self.is_active, self.deadline = False, quiet_at

    def advance(self, now: float) -> bool:
        """Whether it has become quiet at this moment."""
        if now < self.deadline:
            return False
        self.is_quiet, self.deadline = True, inf
        return True
