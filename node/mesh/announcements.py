"""Which members claim more than we hold: what is still to be fetched, and from whom next.

Updates and answers of all members meet here, so that what several of them announce is
fetched once. Nothing is taken on trust: an id leaves when our own known state has reached
what was announced, or when everybody who announced it was tried.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import islice

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState
from node.mesh.messages import Sessions

MAX_ANNOUNCED_SESSIONS = 400_000
"""Counts remembered in all (about 100 MB); a member that exceeds them is asked again later."""

MAX_FETCH_VALUES = 32
"""Values of one fetch: enough to share waits and commits, few enough to hold all they bring."""

MAX_MEMBER_SESSIONS = 200_000
"""Counts of one member: others are to have room, too."""

MAX_MEMBER_VALUES = 2 * MAX_FETCH_VALUES
"""Values fetched from one member at a time: one that is slow, or lies, keeps nobody waiting."""

LOOKS = 512
"""Values that wait for a slow member and are looked at in a turn: a millisecond or two."""


def exceeds(announced: Sessions, held: Sessions | None) -> bool:
    """Whether anything is announced that is not held; a header alone counts, too."""
    if held is None:
        return True
    return any(count > held.get(session_id, 0) for session_id, count in announced.items())


def held_sessions(state: KnownState) -> Sessions | None:
    """A known state as messages have it: None when not even the header is held."""
    return state.sessions if state.header else None


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read these from that member, as of (at least) that version of its data core."""

    member_id: bytes
    version: int
    ids: tuple[RawCoId, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """A claim that is closed: a member said that it holds this much, and that was looked into."""

    member_id: bytes
    co_id: RawCoId
    sessions: Sessions
    was_tried: bool
    """Whether this member was asked for it, whatever came of that."""


@dataclass(slots=True)
class _Claim:
    version: int
    sessions: dict[CoSessionId, int]
    times_slow: int = 0
    """How often the member took too long with the value while others had it, too."""


class Announcements:
    """Claims by value and member. Sync and pure; `take` and `settle` bracket each fetch."""

    def __init__(self, max_sessions: int = MAX_ANNOUNCED_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._claims: dict[RawCoId, dict[bytes, _Claim]] = {}
        self._queues: OrderedDict[bytes, OrderedDict[RawCoId, None]] = OrderedDict()
        """What waits, by the member to fetch it from; the member whose turn it is comes first."""
        self._queue_of: dict[RawCoId, bytes] = {}
        self._fetching: dict[RawCoId, bytes] = {}
        self._busy: Counter[bytes] = Counter()
        self._slow: Set[bytes] = frozenset()
        """Members from which is fetched what nobody else has."""
        self._giving_way: dict[bytes, int] = {}
        """Those that have just become slow: how many of what waits for each, from the first on, are
        to be looked at for others that have them."""
        self._sessions_of: Counter[bytes] = Counter()
        self._sessions = 0
        self._settled: list[Settlement] = []
        self._open: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """Values not settled yet."""
        return len(self._claims)

    def __contains__(self, co_id: RawCoId) -> bool:
        return co_id in self._claims

    @property
    def is_giving_way(self) -> bool:
        """Whether `take` may have more when it is called again, once others had their turn."""
        return bool(self._giving_way)

    def open_of(self, member_id: bytes) -> int:
        """Values of which this member claims more than we hold, as far as was looked into."""
        return self._open[member_id]

    def announce(
        self, member_id: bytes, version: int, changes: Iterable[tuple[RawCoId, Sessions]]
    ) -> bool:
        """Remember what a member claims; False when there was no room for all of it."""
        for co_id, sessions in changes:
            room = self._max_sessions - self._sessions
            claims = self._claims.get(co_id)
            claim = None if claims is None else claims.get(member_id)
            new = len(sessions) if claim is None else len(sessions.keys() - claim.sessions.keys())
            if new + 1 > min(room, MAX_MEMBER_SESSIONS - self._sessions_of[member_id]):
                return False
            if claim is None:
                claim = _Claim(version, dict(sessions))
                self._claims.setdefault(co_id, {})[member_id] = claim
                self._open[member_id] += 1
                self._sessions += 1
                self._sessions_of[member_id] += 1
            else:
                claim.version = max(version, claim.version)
                for session_id, count in sessions.items():
                    claim.sessions[session_id] = max(count, claim.sessions.get(session_id, 0))
            self._sessions += new
            self._sessions_of[member_id] += new
            self._enqueue(co_id)
        return True

    def forget_member(self, member_id: bytes) -> None:
        """The member went away: what only it has cannot be fetched."""
        for co_id in [co_id for co_id, claims in self._claims.items() if member_id in claims]:
            self._drop(co_id, member_id)
            self._enqueue(co_id)
        del self._open[member_id]
        del self._sessions_of[member_id]

    def take(
        self,
        is_under_way: Callable[[bytes, RawCoId], bool] = lambda *_: False,
        slow: Set[bytes] = frozenset(),
    ) -> Fetch | None:
        """The next fetch, or None while nothing waits, or those who have it are busy.

        Members take turns; from `slow` ones is fetched what nobody else has. The ids of the fetch
        must be settled, each of them. What comes from that member already waits.

        A member that has become slow is left alone until all that waits for it was looked at, some
        with each call: see `is_giving_way`.
        """
        if slow != self._slow:
            self._note_slow(slow)
        self._give_way()
        for member_id, queue in self._queues.items():
            if member_id in self._giving_way:
                continue
            room = min(MAX_FETCH_VALUES, MAX_MEMBER_VALUES - self._busy[member_id])
            if room <= 0:
                continue
            waiting = (co_id for co_id in queue if not is_under_way(member_id, co_id))
            ids = tuple(islice(waiting, room))
            if not ids:
                continue
            self._queues.move_to_end(member_id)
            for co_id in ids:
                self._dequeue(co_id)
                self._fetching[co_id] = member_id
            self._busy[member_id] += len(ids)
            version = max(self._claims[co_id][member_id].version for co_id in ids)
            return Fetch(member_id, version, ids)
        return None

    def _note_slow(self, slow: Set[bytes]) -> None:
        new, self._slow = slow - self._slow, slow
        for member_id in self._giving_way.keys() - slow:
            del self._giving_way[member_id]
        for member_id in sorted(new & self._queues.keys()):
            self._giving_way[member_id] = len(self._queues[member_id])

    def _give_way(self) -> None:
        """Some of what waits for a slow member is to be fetched from others that have it."""
        if not self._giving_way:
            return
        member_id, count = next(iter(self._giving_way.items()))
        queue = self._queues.get(member_id, OrderedDict())
        looks = list(islice(queue, min(count, LOOKS)))
        for co_id in looks:
            queue.move_to_end(co_id)
            self._enqueue(co_id)
        if len(looks) < LOOKS or len(looks) == count:
            del self._giving_way[member_id]
        else:
            self._giving_way[member_id] = count - LOOKS

    def _enqueue(self, co_id: RawCoId) -> None:
        """Have it fetched from whoever claims most of it by now; nothing if it is being fetched."""
        claims = self._claims.get(co_id)
        if claims is None or co_id in self._fetching:
            return
        member_id = self._best(claims)
        if self._queue_of.get(co_id) != member_id:
            self._dequeue(co_id)
            self._queue_of[co_id] = member_id
            self._queues.setdefault(member_id, OrderedDict())[co_id] = None

    def _dequeue(self, co_id: RawCoId) -> None:
        member_id = self._queue_of.pop(co_id, None)
        if member_id is not None:
            queue = self._queues[member_id]
            del queue[co_id]
            if not queue:
                del self._queues[member_id]

    def narrow(self, fetch: Fetch, held: Mapping[RawCoId, Sessions | None]) -> Fetch | None:
        """Settle what is held already; returns the rest of the fetch, None for nothing."""
        lacking: list[RawCoId] = []
        for co_id in fetch.ids:
            claim = self._claims.get(co_id, {}).get(fetch.member_id)
            if claim is not None and exceeds(claim.sessions, held.get(co_id)):
                lacking.append(co_id)
        rest = tuple(co_id for co_id in fetch.ids if co_id not in lacking)
        self.settle(Fetch(fetch.member_id, fetch.version, rest), held)
        return Fetch(fetch.member_id, fetch.version, tuple(lacking)) if lacking else None

    def settle(self, fetch: Fetch, held: Mapping[RawCoId, Sessions | None]) -> None:
        """The fetch is over, for better or worse; `held` is what we hold now of its ids."""
        for co_id in fetch.ids:
            fetched_from = self._fetching.pop(co_id, None)
            if fetched_from is not None:
                self._busy[fetched_from] -= 1
            ours = held.get(co_id)
            for member_id, claim in list(self._claims.get(co_id, {}).items()):
                was_tried = member_id == fetch.member_id and claim.version <= fetch.version
                if was_tried or not exceeds(claim.sessions, ours):
                    self._drop(co_id, member_id)
                    self._settled.append(Settlement(member_id, co_id, claim.sessions, was_tried))
            self._enqueue(co_id)

    def postpone(self, fetch: Fetch, ids: Iterable[RawCoId]) -> None:
        """The member is slow with these: they are fetched from others first."""
        for co_id in ids:
            if self._fetching.pop(co_id, None) is not None:
                self._busy[fetch.member_id] -= 1
            claim = self._claims.get(co_id, {}).get(fetch.member_id)
            if claim is not None:
                claim.times_slow += 1
            self._enqueue(co_id)

    def times_slow(self, member_id: bytes, co_id: RawCoId) -> int | None:
        """How often this member was slow with a value; None when nobody else has it."""
        claims = self._claims.get(co_id, {})
        claim = claims.get(member_id)
        return None if claim is None or len(claims) == 1 else claim.times_slow

    def take_settled(self) -> list[Settlement]:
        """Claims that were settled since this was called last."""
        settled, self._settled = self._settled, []
        return settled

    def _best(self, claims: Mapping[bytes, _Claim]) -> bytes:
        """The least slow member, of those the one that claims most, or spoke first."""

        def merit(member_id: bytes) -> tuple[int, bool, int]:
            claim = claims[member_id]
            return -claim.times_slow, member_id not in self._slow, sum(claim.sessions.values())

        return max(claims, key=merit)

    def _drop(self, co_id: RawCoId, member_id: bytes) -> None:
        claims = self._claims[co_id]
        size = 1 + len(claims.pop(member_id).sessions)
        self._sessions -= size
        self._sessions_of[member_id] -= size
        self._open[member_id] -= 1
        if not claims:
            del self._claims[co_id]
            self._dequeue(co_id)
