"""How one core replicates: what an application may choose."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import inf

from hypercore.errors import UsageError
from hypercore.replication.inflight import FIRST_WINDOW, MAX_WINDOW, MIN_WINDOW


class PushMode(Enum):
    """Whether peers may send blocks that nobody here asked for."""

    OFF = "off"
    ALLOWED = "allowed"
    ONLY = "only"
    """Peers may, and are asked for nothing but blocks that are forced."""


@dataclass(frozen=True, slots=True)
class ReplicationSettings:
    """Windows are requests in flight to one peer: at first, and at most."""

    push: PushMode = PushMode.OFF
    follows_forks: bool = True
    """Whether a reader goes over to a history that its writer has put in place of the old one."""

    writer: bytes | None = None
    """The public key of the peer that writes the log. When it can no longer prove how the log goes
    on from our length, because it has pruned its tree, a reader gives up what it has and begins
    with the present head. No other peer is believed in that."""

    head_delay_seconds: float = 0.0
    """How long a longer head that a peer announces is left there while nobody here waits for it:
    what is appended meanwhile is proven together. The first one of a channel never waits."""

    announce_delay_seconds: float = 0.0
    """How long peers may go without hearing of what is appended here: several appends are announced
    together. `CoreReplication.announce` does so at once."""

    compare_seconds: float = inf
    """The least time between two questions to a peer whose log is as long as ours, whether it is
    the same log; `inf` is never, as in JavaScript. They go out when its sync tells that length."""

    linger_seconds: float = 30.0
    """How long a core that is not active any more keeps its idle channels open."""

    first_window: int = FIRST_WINDOW
    max_window: int = MAX_WINDOW

    def __post_init__(self) -> None:
        """Raises: UsageError."""
        if not MIN_WINDOW <= self.first_window <= self.max_window:
            raise UsageError(
                f"windows of {self.first_window} to {self.max_window} requests, "
                f"where {MIN_WINDOW} is the least"
            )
        delays = (self.head_delay_seconds, self.announce_delay_seconds, self.compare_seconds)
        for seconds in (*delays, self.linger_seconds):
            if seconds < 0:
                raise UsageError(f"{seconds} seconds are no time to wait")
