"""The walk towards a target: ask the closest nodes known for closer ones, until there are none.

A candidate is visited while fewer than 20 replies are held, or if it is closer than the 20th of
them. Ten visits run at a time, those that take unusually long not counted. Afterwards a commit may
store something at the nodes that replied.

Against an attacker that takes many addresses near a target, a party (see `hosts`) may fill at most
MAX_CLOSEST_PER_PARTY of the 20 places as long as others are there to fill them, and is visited at
most MAX_VISITS_PER_PARTY times; the originals have no such limits. Where nodes are few the walk
only goes on for longer.

Source: dht-rpc 6.27.0 lib/query.js. Unlike there, a list of closer nodes is read to its end,
since it is sorted by rows only, and the closest candidate is visited first.
"""

from __future__ import annotations

import enum
import heapq
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from swarm.announcement import Address
from swarm.dht.hosts import is_usable, may_refer, party_of
from swarm.dht.messages import NodeId, Response, node_id
from swarm.dht.requests import Call
from swarm.dht.routing_table import ROW_SIZE, distance

CONCURRENCY = 10
CAUTIOUS_CONCURRENCY = 3
"""Until ten visits are over, in a query that starts from nodes remembered of an earlier one."""

VISIT_RETRIES = 5
MAX_VISITS = 256
MAX_CANDIDATES = 2048
"""Of one query, visited or not: 20 from each reply, most of them the same ones."""

MAX_CLOSEST_PER_PARTY = 2
MAX_VISITS_PER_PARTY = 8
_MAX_REFERRERS = 3
_EVERYWHERE = 2**256


@dataclass(frozen=True, slots=True)
class Reply:
    """What one node answered; `id` is None when it keeps no records."""

    source: Address
    id: NodeId | None
    response: Response
    seconds: float


@dataclass(frozen=True, slots=True)
class QueryResult:
    """How a query went.

    `closest` are the replies of at most 20 nodes that keep records, closest first. `stored` nodes
    accepted what the last commit sent, the others' error codes are `refusals`.
    """

    closest: tuple[Reply, ...] = ()
    replies: int = 0
    timeouts: int = 0
    stored: int = 0
    refusals: tuple[int, ...] = ()


Commit = Callable[[Sequence[Reply], Sequence[Reply]], Sequence[Call]]
"""Plans what to send after the walk, given the closest replies and all of them."""


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """What to ask on the way, and what to do at the end."""

    target: bytes
    command: int
    is_internal: bool = False
    value: bytes | None = None
    concurrency: int = CONCURRENCY
    commits: tuple[Commit, ...] = ()
    """Carried out one after the other: each is answered before the next begins."""

    def call(self, to: Address) -> Call:
        return Call(
            to, self.command, self.is_internal, self.target, self.value, retries=VISIT_RETRIES
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this; tell the query what came of it."""

    call: Call
    is_commit: bool


@dataclass(frozen=True, slots=True)
class HintDown:
    """Tell a node that one it referred to does not answer."""

    to: Address
    about: Address


@dataclass(frozen=True, slots=True)
class Replied:
    """A node answered the query's command without an error."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Finished:
    """The walk and its commit are over."""

    result: QueryResult


QueryOutput = Ask | HintDown | Replied | Finished


class _State(enum.Enum):
    WALKING = "walking"
    COMMITTING = "committing"
    FINISHED = "finished"


class _Fate(enum.Enum):
    WAITING = "waiting"
    ASKED = "asked"
    ANSWERED = "answered"
    DOWN = "down"


@dataclass(slots=True)
class _Candidate:
    fate: _Fate = _Fate.WAITING
    referrers: list[Address] = field(default_factory=list)
    is_slow: bool = False


class Query:
    """One walk, from nodes that are known to those that are closest."""

    def __init__(
        self,
        plan: QueryPlan,
        own_id: NodeId,
        table_nodes: Sequence[Address],
        remembered: Sequence[Address] = (),
    ) -> None:
        """`remembered` are the closest nodes of an earlier query for the same target.

        Nodes of the table join in at once when fewer than 20 are remembered, and else if too few of
        those answer.
        """
        self.plan = plan
        self.concurrency = plan.concurrency
        """Visits at a time; may be changed on the way."""
        self._own_id = own_id
        self._state = _State.WALKING
        self._candidates: dict[Address, _Candidate] = {}
        self._waiting: list[tuple[int, Address]] = []  # heap by distance
        self._fallback: Sequence[Address] = table_nodes
        self._is_cautious = len(remembered) >= ROW_SIZE
        self._in_flight = 0
        self._slow = 0
        self._visits_by_party: Counter[str] = Counter()
        self._visits = 0
        self._ranked: list[tuple[int, Reply]] = []  # by distance
        self._spread: list[tuple[int, Reply]] = []  # of these, those that count
        self._others: list[Reply] = []
        self._timeouts = 0
        self._failures = 0
        self._commits = iter(plan.commits)
        self._committing = 0
        self._is_held = False
        self._stored = 0
        self._refusals: list[int] = []
        for address in filter(is_usable, remembered):
            self._consider(address, None, _EVERYWHERE)
        if not self._is_cautious:
            self._consider_table()

    def start(self) -> list[QueryOutput]:
        return self._walk_on()

    def hold(self) -> None:
        """Visit nobody else for now, nor come to an end: what was found may be enough."""
        self._is_held = True

    def go_on(self) -> list[QueryOutput]:
        """What was found was not enough."""
        self._is_held = False
        return self._walk_on()

    def answered(self, source: Address, response: Response, seconds: float) -> list[QueryOutput]:
        """A visited node answered."""
        candidate = self._settle(source, _Fate.ANSWERED)
        if candidate is None or self._state is not _State.WALKING:
            return []
        outputs: list[QueryOutput] = []
        claimed = response.id
        reply = Reply(source, claimed if claimed == node_id(source) else None, response, seconds)
        if response.error:
            self._failures += 1
        else:
            if reply.id is None:
                self._others.append(reply)
            else:
                self._rank(reply, distance(reply.id, self.plan.target))
            outputs.append(Replied(reply))
        reach = self._reach()
        for address in response.closer_nodes:
            if may_refer(source, address):
                outputs += self._consider(address, source, reach)
        return outputs + self._walk_on()

    def delayed(self, source: Address) -> list[QueryOutput]:
        """A visited node takes longer than usual: visit another one meanwhile."""
        candidate = self._candidates[source]
        if candidate.fate is not _Fate.ASKED or candidate.is_slow:
            return []
        candidate.is_slow = True
        self._slow += 1
        return self._walk_on()

    def timed_out(self, source: Address) -> list[QueryOutput]:
        """A visited node does not answer at all."""
        candidate = self._settle(source, _Fate.DOWN)
        if candidate is None:
            return []
        self._timeouts += 1
        hints: list[QueryOutput] = [HintDown(to, source) for to in candidate.referrers]
        return hints + self._walk_on()

    def commit_answered(self, error: int) -> list[QueryOutput]:
        """A node took what the commit sent (error 0), or refused it."""
        if error:
            self._refusals.append(error)
        else:
            self._stored += 1
        return self._commit_settled()

    def commit_timed_out(self) -> list[QueryOutput]:
        self._timeouts += 1
        return self._commit_settled()

    def _consider_table(self) -> None:
        nodes, self._fallback = self._fallback, ()
        self._is_cautious = False
        reach = self._reach()
        for address in filter(is_usable, nodes):
            self._consider(address, None, reach)

    def _consider(
        self, address: Address, referrer: Address | None, reach: int
    ) -> list[QueryOutput]:
        """Line a node up if it is worth a visit: if it is closer than `reach`."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            if referrer is None or candidate.fate is _Fate.ANSWERED:
                return []
            if candidate.fate is _Fate.DOWN:
                return [HintDown(referrer, address)]
            if len(candidate.referrers) < _MAX_REFERRERS:
                candidate.referrers.append(referrer)
            return []
        if len(self._candidates) >= MAX_CANDIDATES:
            return []
        wanted = node_id(address)
        away = distance(wanted, self.plan.target)
        if wanted == self._own_id or away >= reach:
            return []
        self._candidates[address] = _Candidate(referrers=[referrer] if referrer else [])
        heapq.heappush(self._waiting, (away, address))
        return []

    def _reach(self) -> int:
        """A visit must be closer than this to be of use."""
        return self._spread[-1][0] if len(self._spread) == ROW_SIZE else _EVERYWHERE

    def _rank(self, reply: Reply, away: int) -> None:
        insort(self._ranked, (away, reply), key=_distance_of)
        self._spread = self._choose_spread()

    def _choose_spread(self) -> list[tuple[int, Reply]]:
        """The closest replies, at most 20, and not too many of one party."""
        parties: Counter[str] = Counter()
        chosen: list[tuple[int, Reply]] = []
        for ranked in self._ranked:
            party = party_of(ranked[1].source[0])
            if party is not None:
                if parties[party] >= MAX_CLOSEST_PER_PARTY:
                    continue
                parties[party] += 1
            chosen.append(ranked)
            if len(chosen) == ROW_SIZE:
                break
        return chosen

    def _closest(self) -> tuple[Reply, ...]:
        """The spread replies, and if there are too few of them also others of the same parties."""
        chosen = self._spread
        if len(chosen) < ROW_SIZE:
            taken = {reply.source for _, reply in chosen}
            spare = [ranked for ranked in self._ranked if ranked[1].source not in taken]
            chosen = sorted(chosen + spare[: ROW_SIZE - len(chosen)], key=_distance_of)
        return tuple(reply for _, reply in chosen)

    def _walk_on(self) -> list[QueryOutput]:
        if self._state is not _State.WALKING or self._is_held:
            return []
        outputs = self._visit_more()
        if self._waiting and self._visits < MAX_VISITS:
            return outputs
        is_complete = len(self._spread) == ROW_SIZE
        if self._in_flight and not (is_complete and self._slow == self._in_flight):
            return outputs
        if self._fallback and len(self._ranked) < ROW_SIZE // 4:
            self._consider_table()
            return outputs + self._walk_on()
        return outputs + self._commit_next()

    def _visit_more(self) -> list[QueryOutput]:
        outputs: list[QueryOutput] = []
        reach = self._reach()
        limit = self._concurrency + self._slow
        while self._in_flight < limit and self._waiting and self._visits < MAX_VISITS:
            away, address = heapq.heappop(self._waiting)
            if away >= reach:
                self._waiting.clear()  # all others are farther away
                break
            party = party_of(address[0])
            if party is not None:
                if self._visits_by_party[party] >= MAX_VISITS_PER_PARTY:
                    continue
                self._visits_by_party[party] += 1
            self._candidates[address].fate = _Fate.ASKED
            self._in_flight += 1
            self._visits += 1
            outputs.append(Ask(self.plan.call(address), is_commit=False))
        return outputs

    @property
    def _concurrency(self) -> int:
        if self._is_cautious:
            heard = len(self._ranked) + len(self._others) + self._failures + self._timeouts
            if heard < CONCURRENCY:
                return CAUTIOUS_CONCURRENCY
        return self.concurrency

    def _settle(self, source: Address, fate: _Fate) -> _Candidate | None:
        """Note what became of a visit; None if none is under way."""
        candidate = self._candidates.get(source)
        if candidate is None or candidate.fate is not _Fate.ASKED:
            return None
        candidate.fate = fate
        self._in_flight -= 1
        self._slow -= candidate.is_slow
        return candidate

    def _commit_next(self) -> list[QueryOutput]:
        """Begin the next commit that has something to send, or finish if there is none."""
        self._state = _State.COMMITTING
        closest = self._closest()
        everybody = [reply for _, reply in self._ranked] + self._others
        for commit in self._commits:
            calls = commit(closest, everybody)
            self._stored = 0
            self._refusals = []
            self._committing = len(calls)
            if calls:
                return [Ask(call, is_commit=True) for call in calls]
        return self._finish()

    def _commit_settled(self) -> list[QueryOutput]:
        self._committing -= 1
        return [] if self._committing else self._commit_next()

    def _finish(self) -> list[QueryOutput]:
        self._state = _State.FINISHED
        result = QueryResult(
            self._closest(),
            len(self._ranked) + len(self._others),
            self._timeouts,
            self._stored,
            tuple(self._refusals),
        )
        return [Finished(result)]


def _distance_of(ranked: tuple[int, Reply]) -> int:
    return ranked[0]
