"""What one client knows of each value, as far as we can tell.

Two known states a value: the *real* one (what the client said or acknowledged) and the
*optimistic* one (real, and what was sent since). What to send is decided by the optimistic
one. A view's existence means that the client is subscribed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from node.cojson.gatekeeper import UNKNOWN_ORIGIN, Origin
from node.cojson.value_table import DependencyOrder
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState, SessionCounts

MAX_SUBSCRIPTIONS = 200_000
"""Values that one client may be subscribed to; JavaScript has no limit and breaks near it."""

MAX_COUNTERS = 500_000
"""Session counters that one client may claim in all its known states: about 75 MB."""

MAX_ASKED = 50_000
"""Dependencies that one client may owe us."""

MAX_CLIENT_BYTES = 1024 * 1024 * 1024
"""What is remembered of all clients together; beyond it the largest client is sent away."""

_VIEW_BYTES = 676
_COUNTER_BYTES = 160


@dataclass(slots=True)
class ClientBudget:
    """What is remembered of all clients."""

    max_bytes: int = MAX_CLIENT_BYTES
    used_bytes: int = 0

    @property
    def is_exceeded(self) -> bool:
        return self.used_bytes > self.max_bytes


MAX_SUSPECTED = 64
"""Sessions that one client is asked to send as a whole because they may have been forked."""


@dataclass(slots=True)
class ValueView:
    """What one client knows of one value."""

    real: KnownState = NOTHING
    statements: int = 0
    """How often it said what it holds, which replaces what was thought before."""
    sent: KnownState | None = None
    """What was sent and not acknowledged yet; None when nothing is out."""
    announced: SessionCounts | None = None
    """Where what is sent in pieces will end, until the client has said that it has all of it."""
    has_let_pass: bool = False
    """Whether it is next, after what it depends on."""
    is_told: bool = False
    """Whether anything was said about this value on this connection."""
    offered_version: int = 0
    """The version of the value that was last offered with all it depends on."""
    passed_of: DependencyOrder | None = None
    """The order of dependencies of which the first `passed` need not be looked at again."""
    passed: int = 0
    unsettled: int = 0
    """Contents of it that the client sent and that are on their way to the disk."""
    is_owed: bool = False
    """Whether it asked, and is answered when these are settled."""
    corrected: KnownState | None = None
    """What it was told with the last correction, in the round `corrected_at`."""
    corrected_at: int = 0
    may_be_asked: bool = True
    """Whether it may be asked for what it claims: once, and not where content was refused."""

    @property
    def optimistic(self) -> KnownState:
        return self.real if self.sent is None else self.real.merged(self.sent)

    def lacks(self, held: KnownState) -> bool:
        """Whether `held` has anything that the client does not, by the optimistic view."""
        if self.real.covers(held):
            return False
        return self.sent is None or not self.optimistic.covers(held)

    def replace(self, known: KnownState) -> None:
        """The client said what it holds; what was sent before no longer counts."""
        self.real = known
        self.statements += 1
        self.sent = None
        self.announced = None
        self.offered_version = 0
        self.corrected = None

    def confirm(self, known: KnownState) -> None:
        """The client has at least `known`."""
        self.real = self.real.merged(known)
        if self.sent is not None and self.real.covers(self.sent):
            self.sent = None
        if self.announced is not None and self.real.covers(KnownState(True, self.announced)):
            self.announced = None

    def add_sent(self, known: KnownState) -> None:
        if self.sent is None:
            self.sent = known
        else:
            self.sent = self.sent.merged(known)


@dataclass(slots=True)
class PutOff:
    """Something that the client is to be asked for again."""

    due: int = 0
    """The number of the round in which that is."""
    patience: int = 1
    """Rounds to let pass before that, when what it sends is refused once more."""
    is_lost: bool = False
    """Whether it was lost here, so that the client does not know that it is needed."""


@dataclass(slots=True)
class ReconcileBatch:
    """A batch of values that the client asked to compare."""

    unread: int
    """Values whose stored state has not been looked up yet."""
    awaited: dict[RawCoId, int] = field(default_factory=dict)
    """Values that the client has been asked for, and the counters in each question."""
    counters: int = 0
    """In all of these questions."""
    later: deque[tuple[RawCoId, KnownState]] = field(default_factory=deque)
    """Values that the client will be asked for, and what is held of them."""


class PeerView:
    """Everything the engine remembers of one client."""

    def __init__(
        self,
        peer_id: str,
        origin: Origin = UNKNOWN_ORIGIN,
        budget: ClientBudget | None = None,
    ) -> None:
        self.peer_id = peer_id
        self.origin = origin
        self.values: dict[RawCoId, ValueView] = {}
        self.asked: set[RawCoId] = set()
        """Dependencies that the client was asked for and has not answered.

        Also those that it will be asked for when the store has told that they are not here.
        """
        self.put_off: dict[RawCoId, PutOff] = {}
        """Values to ask it for later: refused, lost, or unreadable on our disk; see `Asking`."""
        self.claims: dict[RawCoId, int] = {}
        """Values of which it claims more than is here, and its `whiles` when it said so."""
        self.just_asked: dict[RawCoId, int] = {}
        """Those it was asked for in the last while, with the counters in the question."""
        self.whiles = 0
        """How often it was listened to for a while, as long as it had claims."""
        self.batches: dict[str, ReconcileBatch] = {}
        self.aside_bytes = 0
        """Content set aside until a dependency is here."""
        self.unsettled_bytes = 0
        """Content on its way to the disk; content and loads that wait for a read from it."""
        self.owed = 0
        """Contents that were dropped and will be asked for again."""
        self.is_gone = False
        self.is_doubted = False
        """Its last content was refused."""
        self._suspected: set[tuple[RawCoId, CoSessionId]] = set()
        self._budget = budget or ClientBudget()
        self._counters = 0

    @property
    def size(self) -> int:
        """About how many bytes its known states take here, measured with tracemalloc."""
        return _VIEW_BYTES * len(self.values) + _COUNTER_BYTES * self._counters

    def lets_pass(self, view: ValueView, dependencies: Iterable[RawCoId]) -> list[RawCoId]:
        """What goes before a group whose turn it is: told once, then the group itself is next.

        It may have waited for its turn since before it had these members and parents, or they
        have waited for theirs behind it.
        """
        late = [] if view.has_let_pass else [key for key in dependencies if self._is_unsent(key)]
        view.has_let_pass = bool(late)
        return late

    def _is_unsent(self, co_id: RawCoId) -> bool:
        """Until its header is sent: with that alone, what depends on it can be taken."""
        view = self.values.get(co_id)
        return view is None or not (
            view.real.header or (view.sent is not None and view.sent.header)
        )

    def owes_answer(self, co_id: RawCoId) -> bool:
        """Whether it was sent a `load` of this value, and what it says next may answer that."""
        return (
            co_id in self.asked
            or co_id in self.just_asked
            or any(co_id in batch.awaited for batch in self.batches.values())
        )

    def was_asked(self, co_id: RawCoId) -> bool:
        """Whether it was asked for this value, or will be later."""
        return co_id in self.asked or co_id in self.put_off

    def note_refused(self, co_id: RawCoId) -> None:
        """Content of this value was refused: it is not to send that again."""
        view = self.values.get(co_id)
        if view is not None:
            view.may_be_asked = False

    def suspect(self, co_id: RawCoId, session_id: CoSessionId) -> bool:
        """Whether to ask for this session as a whole: each once, and not too many."""
        session = (co_id, session_id)
        if session in self._suspected or len(self._suspected) >= MAX_SUSPECTED:
            return False
        self._suspected.add(session)
        return True

    def is_over_limit(self) -> bool:
        return (
            len(self.values) > MAX_SUBSCRIPTIONS
            or self._counters > MAX_COUNTERS
            or len(self.asked) > MAX_ASKED
        )

    def add(self, co_id: RawCoId) -> ValueView:
        """Begin a view of one more value."""
        view = self.values[co_id] = ValueView()
        self._budget.used_bytes += _VIEW_BYTES
        return view

    def replace(self, view: ValueView, known: KnownState) -> None:
        self._count(len(known.sessions) - len(view.real.sessions))
        view.replace(known)

    def confirm(self, view: ValueView, known: KnownState) -> None:
        before = len(view.real.sessions)
        view.confirm(known)
        added = len(view.real.sessions) - before
        if added:
            self._count(added)

    def leave(self) -> None:
        """The client has gone; its views no longer count."""
        self.is_gone = True
        self._budget.used_bytes -= self.size

    def _count(self, added: int) -> None:
        self._counters += added
        self._budget.used_bytes += _COUNTER_BYTES * added
