"""One peer that may be dialed: how it was found, and what came of dialing it."""

from __future__ import annotations

import enum
import math
from collections.abc import Set
from dataclasses import dataclass

from swarm.announcement import Address, Announcement

BACK_OFF_SECONDS = (1.0, 5.0, 15.0)
MISSED_BACK_OFF_SECONDS = 1.0
"""Between two dials of a peer that is missed, at most."""

MAX_UNPROVEN_FAILURES = 3
"""After more, a peer that others told of, and that never answered, is forgotten until told of."""


class Source(enum.Enum):
    """How a peer was found."""

    STATIC = "static"
    LAN = "lan"
    INCOMING = "incoming"
    DHT = "dht"
    TOLD = "told"
    """By another peer."""


class Priority(enum.IntEnum):
    """Who is dialed first when there is not room for all."""

    STALE = 0
    """Failed several times, or never answered at all."""
    FAILING = 1
    NEW = 2
    LOST = 3
    """Was connected, and is dialed anew."""
    LOST_JUST_NOW = 4
    NAMED = 5
    """By its address or key, by the people that run this."""


class PeerState(enum.Enum):
    """What is being done about a peer."""

    WAITING = "waiting"
    DIALING = "dialing"
    CONNECTED = "connected"
    OURSELVES = "ourselves"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer that may be dialed; times are monotonic seconds."""

    name: str
    source: Source
    addresses: tuple[Address, ...]
    public_key: bytes | None
    topics: frozenset[bytes]
    state: PeerState
    failures: int
    next_attempt: float
    last_error: str
    priority: Priority


@dataclass(slots=True)
class KnownPeer:
    """What is known of one peer; the book changes it."""

    name: str
    source: Source
    addresses: tuple[Address, ...]
    url: str | None = None
    expected_key: bytes | None = None
    public_key: bytes | None = None
    announcement: Announcement | None = None
    found_topics: frozenset[bytes] = frozenset()
    is_explicit: bool = False
    topics: frozenset[bytes] = frozenset()
    state: PeerState = PeerState.WAITING
    failures: int = 0
    refusals: int = 0
    next_attempt: float = 0.0
    soonest: float = -math.inf
    """No dial before that, whoever says that it is there."""
    last_error: str = ""
    missed_until: float = -math.inf
    cuts: int = 0  # since a connection lasted

    @property
    def key(self) -> bytes | None:
        """The key it proved, or the one it has to prove; None when that is not known."""
        return self.public_key or self.expected_key

    @property
    def priority(self) -> Priority:
        if self.source is Source.STATIC or self.is_explicit:
            return Priority.NAMED
        if self.failures > 3 or (self.failures and self.public_key is None):
            return Priority.STALE
        levels = (Priority.NEW, Priority.LOST_JUST_NOW, Priority.LOST, Priority.FAILING)
        return levels[self.failures]

    @property
    def is_wanted(self) -> bool:
        is_named = self.source in (Source.STATIC, Source.TOLD) or self.is_explicit
        return is_named or bool(self.topics)

    @property
    def is_forgettable(self) -> bool:
        """Whether nothing but what strangers said speaks for it, and nothing came of that."""
        is_found = self.source is Source.DHT and not self.is_explicit
        is_hearsay = self.source is Source.TOLD and self.public_key is None
        return (is_found or is_hearsay) and self.failures > MAX_UNPROVEN_FAILURES

    @property
    def is_left(self) -> bool:
        """Whether it was found by topics, or named, and nobody is interested in those any more."""
        is_found = self.source is Source.DHT and self.state is not PeerState.DIALING
        return is_found and not self.is_wanted

    def info(self, *, is_connected: bool) -> PeerInfo:
        """What people are shown of it."""
        return PeerInfo(
            name=self.name,
            source=self.source,
            addresses=self.addresses,
            public_key=self.key,
            topics=self.topics,
            state=PeerState.CONNECTED if is_connected else self.state,
            failures=self.failures,
            next_attempt=self.next_attempt,
            last_error=self.last_error,
            priority=self.priority,
        )

    def match(self, topics: Set[bytes], now: float) -> None:
        """These are the topics that matter here; a peer wanted for one is dialed soon."""
        was_wanted = self.is_wanted
        if self.announcement is not None:
            earlier = self.found_topics if self.announcement.is_full else frozenset[bytes]()
            self.found_topics = earlier | self.announcement.common_topics(topics)
        elif self.source is not Source.DHT:
            return
        self.topics = self.found_topics & topics
        if self.is_wanted and not was_wanted:
            self.next_attempt = max(self.next_attempt, now)

    def dial_by(self, now: float) -> None:
        """Dial it no later than that."""
        self.next_attempt = min(self.next_attempt, now)

    def postpone(self, now: float, jitter: float) -> None:
        """Dial it again later, the more so the more dials have failed.

        `jitter`, at least 0, is the share by which the wait is longer than without it.
        """
        seconds = BACK_OFF_SECONDS[min(self.failures, len(BACK_OFF_SECONDS) - 1)]
        shortest = min(seconds, MISSED_BACK_OFF_SECONDS)
        if now < self.missed_until:
            seconds = shortest
        self.failures += 1
        self.soonest = now + shortest * (1 + jitter)
        self.next_attempt = now + seconds * (1 + jitter)
        self.state = PeerState.WAITING
