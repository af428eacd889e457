"""What one client knows of each value, as far as we can tell.

Two known states a value: the *real* one (what the client said or acknowledged) and the
*optimistic* one (real, and what was sent since). What to send is decided by the optimistic
one. A view's existence means that the client is subscribed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Origin
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState

MAX_SUBSCRIPTIONS = 200_000
"""Values that one client may be subscribed to; JavaScript has no limit and breaks near it."""

MAX_COUNTERS = 500_000
"""Session counters that one client may claim in all its known states: about 75 MB."""


MAX_SUSPECTED = 64
"""Sessions that one client is asked to send as a whole because they may have been forked."""


@dataclass(slots=True)
class ValueView:
    """What one client knows of one value."""

    real: KnownState = NOTHING
    sent: KnownState | None = None
    """What was sent and not acknowledged yet; None when nothing is out."""
    is_told: bool = False
    """Whether anything was said about this value on this connection."""
    offered_version: int = 0
    """The version of the value that was last offered with all it depends on."""

    @property
    def optimistic(self) -> KnownState:
        return self.real if self.sent is None else self.real.merged(self.sent)

    def lacks(self, held: KnownState) -> bool:
        """Whether `held` has anything that the client does not, by the optimistic view."""
        if self.real.covers(held):
            return False
        return self.sent is None or not self.optimistic.covers(held)

    def replace(self, known: KnownState) -> None:
        """The client said what it holds; what was sent before counts no more."""
        self.real = known
        self.sent = None
        self.offered_version = 0

    def confirm(self, known: KnownState) -> None:
        """The client has at least `known`."""
        self.real = self.real.merged(known)
        if self.sent is not None and self.real.covers(self.sent):
            self.sent = None

    def add_sent(self, known: KnownState) -> None:
        if self.sent is None:
            self.sent = known
        else:
            self.sent = self.sent.merged(known)


@dataclass(slots=True)
class ReconcileBatch:
    """A batch of values that the client asked to compare."""

    unread: int
    """Values whose stored state has not been looked up yet."""
    awaited: set[RawCoId] = field(default_factory=set)
    """Values that the client has been asked for."""


class PeerView:
    """Everything the engine remembers of one client."""

    def __init__(self, peer_id: str, origin: Origin = UNKNOWN_ORIGIN) -> None:
        self.peer_id = peer_id
        self.origin = origin
        self.values: dict[RawCoId, ValueView] = {}
        self.asked: set[RawCoId] = set()
        """Dependencies that the client was asked for and has not answered."""
        self.batches: dict[str, ReconcileBatch] = {}
        self.aside_bytes = 0
        """Content set aside until a dependency is here."""
        self.unsettled_bytes = 0
        """Content on its way to the disk, or waiting for a read from it."""
        self.is_gone = False
        self._suspected: set[tuple[RawCoId, CoSessionId]] = set()
        self._counters = 0

    def suspect(self, co_id: RawCoId, session_id: CoSessionId) -> bool:
        """Whether to ask for this session as a whole: each once, and not too many."""
        session = (co_id, session_id)
        if session in self._suspected or len(self._suspected) >= MAX_SUSPECTED:
            return False
        self._suspected.add(session)
        return True

    def is_over_limit(self) -> bool:
        return len(self.values) > MAX_SUBSCRIPTIONS or self._counters > MAX_COUNTERS

    def replace(self, view: ValueView, known: KnownState) -> None:
        self._counters += len(known.sessions) - len(view.real.sessions)
        view.replace(known)

    def confirm(self, view: ValueView, known: KnownState) -> None:
        before = len(view.real.sessions)
        view.confirm(known)
        self._counters += len(view.real.sessions) - before
