"""One answer about a group: the group and all it inherits from, judged parents first.

Judging is demand-driven: a parent is judged when its child's first valid link to it is found, so
links that nobody had the right to make lead nowhere. No step calls another one deeper, however
long the chain: groups that wait for a parent wait on a list.

What was judged is kept for the next answer, with what it was judged by, and continued when changes
arrive; changes of a parent count if they alter the role of somebody whose role in it was asked for,
at a time at which it was. Groups in a circle are judged anew each time, since one of them seen
from another is not the same as seen for itself: that one is not judged yet when the other one asks,
and what rests on a group that is not kept is not kept either.

It is done in slices, between which others may run and views may grow: `holds` tells whether that
came to nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from node.covalue.content import Transaction
from node.covalue.group_changes import Role, parse_change
from node.covalue.group_view import GroupView, position_of
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.membership import Event, Membership, Parents, Verdict

MAX_WORK = 250_000
"""A group counts while (groups reached) x (role changes in all of them) is at most this.

It bounds a judgment from scratch to two seconds at worst, and a chain of parents to 353 groups;
the original takes nine seconds for a chain of 600. Beyond, nobody has a role.
"""

SLICE_WORK = 500
"""(Changes judged) x (groups reached), each of which a change may ask: 1 to 4 ms."""

MAX_PASSED_ON = 500
"""Alterations that a group passes on to its children, beyond two for each change of its own; what
has more is judged anew. So a large parent does not fill the memory by way of many small children.
"""

MAX_FOUND = 4096
"""Answers remembered by one judgment."""

MAX_MEMBERS = 64
"""Of so many it is remembered when their roles change."""

_OVER = RawCoId("")


class _Used(NamedTuple):
    """A version of a parent, and how many of its alterations were known."""

    version: object
    alterations: int


@dataclass(slots=True)
class Judged:
    """A group's membership, and what it was made from."""

    membership: Membership
    seen: int = 0
    """How many events of the view are in it."""
    version: object = field(default_factory=object)
    """Another one for each that is made from scratch."""
    used: dict[RawCoId, _Used | None] = field(default_factory=dict)
    """Its parents, and what is in it of each; None for one that is not kept."""


class Judgment:
    """The roles in one group, while no view changes. Go through `steps` first, once."""

    def __init__(
        self,
        group_id: RawCoId,
        find_view: Callable[[RawCoId], GroupView | None],
        cache: dict[RawCoId, Judged],
        max_bytes: int,
    ) -> None:
        self.parents = Parents(self._may_be_parent, self.role_at)
        self.memberships: dict[RawCoId, Membership] = {}
        """Of all groups reached; empty when they are too many or too large."""
        self.missing: dict[RawCoId, None] = {}
        """Groups reached that have no view, in the order in which they were found."""
        self.reached: dict[RawCoId, GroupView] = {}
        self._group_id = group_id
        self._find_view = find_view
        self._cache = cache
        self._max_bytes = max_bytes
        self._events = 0
        self._bytes = 0
        self._work = 0
        self._stops: dict[RawCoId, int] = {}
        """How many events of the groups reached are judged."""
        self._waiting: dict[RawCoId, Iterator[RawCoId | None]] = {}
        self._is_done = False
        self._turns: dict[str, list[int]] = {}
        """Of members that were asked about: when their role may change."""
        self._found: dict[tuple[RawCoId, str, int], Role | None] = {}
        """Roles between two of these times."""

    def steps(self) -> Iterator[None]:
        """Judge, with a step after each slice of work. What is half done is given up by leaving."""
        while not (yield from self._judge_all()):
            pass  # each time one judgment that no longer held has been forgotten
        self._is_done = True

    @property
    def holds(self) -> bool:
        """Whether no view of the groups reached has changed between the steps."""
        return not any(map(self._find_view, self.missing)) and all(
            self._find_view(co_id) is view and len(view.events) == self._stops[co_id]
            for co_id, view in self.reached.items()
        )

    @property
    def reach(self) -> frozenset[RawCoId]:
        """The groups that have a say, the one in question included."""
        return frozenset((self._group_id, *self.reached, *self.missing))

    def role_at(self, group_id: RawCoId, member: str, time: int) -> Role | None:
        """A member's role in one of the groups; None as well where nothing is known of it."""
        membership = self.memberships.get(group_id)
        if membership is None:
            return None
        if not membership.has_links:
            return membership.role_at(member, time, lambda _: None)
        if not self._is_done:
            return self._climb(group_id, member, time)
        # A message of 10,000 transactions asked 300 parents for each of them: for five seconds.
        key = group_id, member, bisect_right(self._turns_of(member), time)
        if key not in self._found:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            self._found[key] = self._climb(group_id, member, time)
        return self._found[key]

    def _turns_of(self, member: str) -> list[int]:
        turns = self._turns.get(member)
        if turns is None:
            if len(self._turns) >= MAX_MEMBERS:
                self._turns.clear()
            times = {time for one in self.memberships.values() for time in one.turns_of(member)}
            turns = self._turns[member] = sorted(times)
        return turns

    def _climb(self, group_id: RawCoId, member: str, time: int) -> Role | None:
        """A member's role in a group that has parents: theirs come first."""
        roles: dict[RawCoId, Role | None] = {}
        path: set[RawCoId] = set()
        pending = [group_id]
        while pending:
            current = pending[-1]
            membership = self.memberships.get(current)
            if membership is None:
                roles[current] = None
            if current in roles or membership is None:
                pending.pop()
                continue
            if current not in path:
                path.add(current)
                linked = [parent for parent, _ in membership.links_at(time)]
                unknown = [p for p in linked if p not in roles and p not in path]
                if unknown:
                    pending.extend(reversed(unknown))
                    continue
            roles[current] = membership.role_at(member, time, roles.get)
            pending.pop()
        return roles[group_id]

    def is_valid(
        self, group_id: RawCoId, session_id: CoSessionId, index: int, transaction: Transaction
    ) -> bool:
        """Whether a transaction of one of the groups counts where it stands."""
        change = parse_change(transaction)
        membership = self.memberships.get(group_id)
        if change is None or membership is None:
            return False
        position = position_of(session_id, index, transaction)
        return membership.judge(position, change, self.parents) is Verdict.VALID

    # ---- judging

    def _judge_all(self) -> Generator[None, None, bool]:
        """False when it must be done again."""
        self.memberships.clear()
        self.missing.clear()
        self.reached.clear()
        self._waiting.clear()
        self._events = self._bytes = 0
        self._stops.clear()
        fits = self._reach(self._group_id)
        while fits and self._waiting:
            current, steps = next(reversed(self._waiting.items()))
            try:
                step = next(steps, _OVER)
            except _NoLongerHoldsError:
                return False
            if step is None:
                yield
            elif step == _OVER:
                del self._waiting[current]
            else:
                fits = self._reach(step)
        if not fits:
            self.memberships.clear()
            self.missing.clear()
        return True

    def _reach(self, group_id: RawCoId) -> bool:
        """Begin with a group unless it was begun. False when that is too much."""
        if group_id in self.reached or group_id in self.missing:
            return True
        view = self._find_view(group_id)
        if view is None:
            self.missing[group_id] = None
            return True
        self.reached[group_id] = view
        self._stops[group_id] = len(view.events)
        self._events += len(view.events)
        self._bytes += view.size_bytes
        self._waiting[group_id] = self._judge(view)
        return len(self.reached) * self._events <= MAX_WORK and self._bytes <= self._max_bytes

    def _judge(self, view: GroupView) -> Iterator[RawCoId | None]:
        """Judge one group, yielding each parent that must be judged before it goes on.

        Also None after each slice of work.
        """
        stop = self._stops[view.co_id]
        known = self._cache.get(view.co_id) or Judged(Membership(view.co_id, view.header))
        used = known.used
        now: dict[RawCoId, _Used | None] = {}
        later: dict[Event, None] = {}
        for parent in list(used):
            yield parent
            later.update(dict.fromkeys(self._later(view, known, parent)))
            now[parent] = self._used(parent)
        if known.used is used:  # nobody went on with it between the steps
            known.used = now
            known.membership.alterations += later
        if known.used and self._cache.get(view.co_id) is not known:
            self._refuse(view)  # it went on elsewhere between the steps
        if known.seen < stop:
            events = self._new_events(view, known, stop)
            # Half judged it would be worth nothing, should the judgment end before it does.
            self._cache.pop(view.co_id, None)
            done = 0
            while done < len(events):
                some = events[done : done + max(1, SLICE_WORK // len(self.reached))]
                for parent in known.membership.apply(some, self.parents):
                    yield parent
                    known.used[parent] = self._used(parent)
                done += len(some)
                self._work += len(some) * len(self.reached)
                if self._work >= SLICE_WORK:
                    self._work = 0
                    yield None
            known.seen = stop
            if self._find_view(view.co_id) is view and None not in known.used.values():
                self._cache[view.co_id] = known
        self.memberships[view.co_id] = known.membership

    def _later(self, view: GroupView, known: Judged, parent: RawCoId) -> list[Event]:
        """What has altered a role in a parent; start over if what was judged here rests on that.

        What it alters for later times, or for others, may matter to children of this group only.
        """
        used, now = known.used[parent], self._used(parent)
        if used is None or now is None or used.version is not now.version:
            self._refuse(view)
        later = self.memberships[parent].alterations[used.alterations :]
        passed_on = len(known.membership.alterations) + len(later)
        if passed_on > 2 * known.seen + MAX_PASSED_ON or any(map(known.membership.rests_on, later)):
            self._refuse(view)
        return later

    def _new_events(self, view: GroupView, known: Judged, stop: int) -> list[Event]:
        """What is to be applied, in order. Late events change nothing, or all is judged anew."""
        events = sorted(view.events[known.seen : stop])
        late = 0
        while late < len(events) and events[late][:3] < known.membership.last:
            event = events[late]
            verdict = known.membership.judge(event[:3], event.change, self.parents)
            if verdict is not Verdict.INVALID and not known.membership.insert(event):
                self._refuse(view)
            late += 1
        return events[late:]

    def _refuse(self, view: GroupView) -> NoReturn:
        """Start over: parents reached so far may not belong to this group any more."""
        self._cache.pop(view.co_id, None)
        raise _NoLongerHoldsError

    def _used(self, parent: RawCoId) -> _Used | None:
        now = self._cache.get(parent)
        if now is None or now.membership is not self.memberships.get(parent):
            return None  # it may have been judged anew since it was reached: that is not used here
        return _Used(now.version, len(now.membership.alterations))

    def _may_be_parent(self, group_id: RawCoId) -> bool:
        view = self._find_view(group_id)
        return view is None or view.may_be_parent


class _NoLongerHoldsError(Exception):
    """A change that counts arrived before others that were judged already."""
