"""Whether a core is in use: once it has not been for a while, peers hear that it wants nothing."""

from __future__ import annotations

from math import inf


class Activity:
    """Active; or no longer active, but for too short a time to tell peers; or quiet."""

    def __init__(self) -> None:
        self.is_active = True
        self.is_quiet = False
        """Nothing is wanted; peers may end the channel."""

        self.deadline = inf
        """When to call `advance`."""

    def set(self, is_active: bool, quiet_at: float) -> None:
        """Note whether the core is in use; if it is not, it is quiet from `quiet_at` on."""
        if is_active:
            self.is_active, self.is_quiet, self.deadline = True, False, inf
        elif self.is_active:
            self.is_active, self.deadline = False, quiet_at

    def advance(self, now: float) -> bool:
        """Whether the core has become quiet just now."""
        if now < self.deadline:
            return False
        self.is_quiet, self.deadline = True, inf
        return True
