"""The members of one group over time: each change judged by the role its author had then.

Changes count in the order of their times; equal times in the order of their session ids, then of
their index in the session. The original leaves equal times of two sessions in the order in which
they arrived; a node that is given the sessions in the order of their ids finds what we find.
Times are compared as JavaScript's numbers.

Who may make which change (`M` admin or manager, `I` any invite):

| change                  | by whom                                                                |
|-------------------------|------------------------------------------------------------------------|
| the first `admin`       | the initial admin, for itself, while it never had a role               |
| `revoked`               | anybody for itself; else as any role                                   |
| a role                  | admin: any, but of other admins only `admin`; manager: not of admins,  |
|                         | not `admin`, `adminInvite`, `managerInvite`; an invite: its own role   |
| link, administration    | M                                                                      |
| revelation              | M, I, and a member that reveals its own write key                      |
| write key               | M; `writeOnlyInvite` and the member itself while there is none         |
| private                 | an admin, in an account; nobody in a group                             |

An author's role is its direct one, or a higher one through the links that are live at the time of
the change, as the parent stands at that time (a parent's `everyone` counts, one's own does not).

Left out on purpose: the meta of transactions. The original lets `mi` and `t` move a change back in
time and `fww` undo it, differently before and after a reload; nobody writes them into groups. Nor
does a group that calls itself a branch take over what is in its source.

Source: cojson 0.20.19 permissions.ts determineValidTransactionsForGroup, coValues/group.ts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import chain
from typing import NamedTuple

from node.covalue.group_changes import EVERYONE, EXTEND, ChangeKind, GroupChange, Role
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, session_owner


class Event(NamedTuple):
    """A change that may matter to roles, at its place in the order."""

    made_at: int
    session_id: CoSessionId
    tx_index: int
    change: GroupChange


Position = tuple[int, CoSessionId, int]
"""Where a change stands: its time, its session, its index there. Sorts among events."""


class Verdict(Enum):
    """Whether a change counts. SHADOWED: it does not, but its key becomes the member's own."""

    INVALID = 0
    VALID = 1
    SHADOWED = 2


@dataclass(frozen=True, slots=True)
class Parents:
    """What a group must know of its parents, answered by whatever holds them."""

    is_group: Callable[[RawCoId], bool]
    """Whether this id may be a parent; also true while that is unknown."""
    role_at: Callable[[RawCoId, str, int], Role | None]
    """A member's role in a parent at a time."""


class Membership:
    """The timelines of one group: roles, links and write keys, valid changes only."""

    def __init__(self, co_id: RawCoId, header: CoValueHeader) -> None:
        self._co_id = co_id
        self._header = header
        self._roles: dict[str, list[Event]] = {}
        self._links: dict[RawCoId, list[Event]] = {}
        self._live_links: dict[RawCoId, str] = {}
        self._write_keys: dict[str, list[Event]] = {}
        self._taken: dict[str, Event] = {}
        self._last: Position = (-1, CoSessionId(""), 0)
        self._asked: set[str] = set()
        """Whose roles in parents the changes were judged by."""
        self.alterations: list[Event] = []
        """What may have altered a role here, or above, in the order in which it was judged."""

    @property
    def has_links(self) -> bool:
        """Whether there ever was a parent."""
        return bool(self._links)

    @property
    def last(self) -> Position:
        """The last change that was applied or passed over."""
        return self._last

    # ---- building

    def apply(self, events: Sequence[Event], parents: Parents) -> Iterator[RawCoId]:
        """Judge events that sort after all earlier ones, and keep what is valid.

        Yields each parent when it is first linked to, so that `parents` can answer for it from
        then on.
        """
        for event in events:
            verdict = self.judge(event[:3], event.change, parents)
            self._last = event[:3]
            if verdict is Verdict.INVALID:
                continue
            _, subject, value = event.change
            match event.change.kind:
                case ChangeKind.ROLE:
                    timeline = self._roles.setdefault(subject, [])
                    before = timeline[-1] if timeline else None
                    if _role_given(before) != _role_given(event):
                        self.alterations.append(event)
                    timeline.append(event)
                case ChangeKind.WRITE_KEY:
                    self._write_keys.setdefault(subject, []).append(event)
                    if verdict is Verdict.VALID:
                        self._taken.setdefault(subject, event)
                case ChangeKind.PARENT:
                    parent = RawCoId(subject)
                    if parent not in self._links:
                        yield parent
                    self.alterations.append(event)
                    self._links.setdefault(parent, []).append(event)
                    if value == Role.REVOKED:
                        self._live_links.pop(parent, None)
                    else:
                        self._live_links[parent] = value

    def insert(self, event: Event) -> bool:
        """Keep a late change that counts if it alters no role: False when it may do more.

        Anybody may leave a group at any time, also who never was in it.
        """
        kind, subject, _ = event.change
        if kind is not ChangeKind.ROLE or subject == self._header.initial_admin:
            return False  # who founds a group may make itself admin while it never had a role
        timeline = self._roles.get(subject, [])
        place = bisect_left(timeline, event[:3])
        if _role_given(timeline[place - 1] if place else None) != _role_given(event):
            return False
        timeline.insert(place, event)
        self._roles[subject] = timeline
        return True

    def rests_on(self, alteration: Event) -> bool:
        """Whether what was judged here might be judged otherwise for a late change of a parent."""
        kind, subject, _ = alteration.change
        is_of_all = kind is ChangeKind.PARENT or subject == EVERYONE
        return alteration.made_at <= self._last[0] and (is_of_all or subject in self._asked)

    # ---- judging

    def judge(self, position: Position, change: GroupChange, parents: Parents) -> Verdict:
        """Whether a change at this place counts, given all that sorts before it."""
        author = session_owner(position[1])
        kind, subject, _ = change
        if kind is ChangeKind.ROLE:
            return _verdict(self._may_set_role(position, author, change, parents))
        acting = self._acting_role(author, position, parents)
        administers = acting == Role.ADMIN or acting == Role.MANAGER
        match kind:
            case ChangeKind.PRIVATE:
                return _verdict(self._header.is_account and acting == Role.ADMIN)
            case ChangeKind.ADMINISTRATION:
                return _verdict(administers)
            case ChangeKind.PARENT:
                parent = RawCoId(subject)
                is_other = parent != self._co_id and parents.is_group(parent)
                return _verdict(administers and is_other)
            case ChangeKind.REVELATION:
                is_invite = isinstance(acting, Role) and acting.invites_to is not None
                return _verdict(
                    administers or is_invite or self._is_own_key(author, subject, position)
                )
            case ChangeKind.WRITE_KEY:
                if not (administers or acting == Role.WRITE_ONLY_INVITE or subject == author):
                    return Verdict.INVALID
                taken = self._taken.get(subject)
                if taken is not None and taken[:3] < position and not administers:
                    return Verdict.SHADOWED
                return Verdict.VALID

    def _may_set_role(
        self, position: Position, author: str, change: GroupChange, parents: Parents
    ) -> bool:
        member, given = change.subject, change.value
        if member == author and given == Role.REVOKED:
            return True
        acting = self._acting_role(author, position, parents)
        match acting:
            case None:
                return member == author == self._header.initial_admin and given == Role.ADMIN
            case Role.ADMIN:
                if given == Role.ADMIN or member == author:
                    return True
                return self._acting_role(member, position, parents) != Role.ADMIN
            case Role.MANAGER:
                if given in _NOT_FOR_MANAGERS:
                    return False
                return self._acting_role(member, position, parents) != Role.ADMIN
            case Role():
                return acting.invites_to == given
        return False

    def _acting_role(self, member: str, position: Position, parents: Parents) -> str | None:
        """The role that counts for changes of this group; "" when a link named no role at all."""
        event = _before(self._roles.get(member), position)
        role: str | None = None if event is None else event.change.value
        if role == Role.ADMIN:
            return role
        links = self._links_before(position)
        if links:
            self._asked.add(member)
        for parent, link in links.items():
            inherited = parents.role_at(parent, member, position[0])
            if inherited is None or not inherited.is_inheritable:
                continue
            offered = inherited if link == EXTEND else link
            if _acts_higher(offered, role):
                role = offered
        return role

    def _links_before(self, position: Position) -> dict[RawCoId, str]:
        """Live links in the order in which they became live."""
        if position > self._last:
            return self._live_links
        live: list[tuple[Position, RawCoId, str]] = []
        for parent, timeline in self._links.items():
            count = bisect_left(timeline, position)
            start = count
            while start > 0 and timeline[start - 1].change.value != Role.REVOKED:
                start -= 1
            if start < count:
                live.append((timeline[start][:3], parent, timeline[count - 1].change.value))
        return {parent: link for _, parent, link in sorted(live)}

    def _is_own_key(self, author: str, key: str, position: Position) -> bool:
        event = _before(self._write_keys.get(author), position)
        return key != "" and event is not None and event.change.value == key

    # ---- looking up

    def links_at(self, time: int) -> list[tuple[RawCoId, str]]:
        """(parent, link) of the links that hand on roles at this time."""
        found = []
        for parent, timeline in self._links.items():
            event = _at(timeline, time)
            if event is not None and event.change.value not in _DEAD_LINKS:
                found.append((parent, event.change.value))
        return found

    def turns_of(self, member: str) -> Iterator[int]:
        """The times at which the role of a member may change, in no order."""
        timelines = chain(
            (self._roles.get(member, ()), self._roles.get(EVERYONE, ())), self._links.values()
        )
        return (event.made_at for timeline in timelines for event in timeline)

    def role_at(
        self, member: str, time: int, inherited: Callable[[RawCoId], Role | None]
    ) -> Role | None:
        """The role for everything but changes of this group; `inherited` gives that in a parent."""
        if self._header.is_account and member == self._co_id:
            return Role.ADMIN
        role = self._direct_role(member, time)
        for parent, link in self.links_at(time):
            in_parent = inherited(parent)
            if in_parent is None or not in_parent.is_inheritable:
                continue
            offered = in_parent if link == EXTEND else Role(link)
            if _improves(offered, role):
                role = offered
        if role is None and member != EVERYONE:
            return self._direct_role(EVERYONE, time)
        return role

    def _direct_role(self, member: str, time: int) -> Role | None:
        return _role_given(_at(self._roles.get(member), time))


_NOT_FOR_MANAGERS = frozenset({Role.ADMIN, Role.ADMIN_INVITE, Role.MANAGER_INVITE})
_DEAD_LINKS = frozenset({Role.REVOKED, ""})


def _role_given(event: Event | None) -> Role | None:
    """By a change of a member's role; None if there was none."""
    if event is None or event.change.value == Role.REVOKED:
        return None
    return Role(event.change.value)


def _verdict(is_valid: bool) -> Verdict:
    return Verdict.VALID if is_valid else Verdict.INVALID


def _before(timeline: list[Event] | None, position: Position) -> Event | None:
    if timeline is None:
        return None
    if timeline[-1][:3] < position:
        return timeline[-1]
    count = bisect_left(timeline, position)
    return timeline[count - 1] if count else None


def _at(timeline: list[Event] | None, time: int) -> Event | None:
    if timeline is None:
        return None
    if timeline[-1].made_at <= time:
        return timeline[-1]
    count = bisect_left(timeline, (time + 1,))
    return timeline[count - 1] if count else None


def _acts_higher(offered: str, role: str | None) -> bool:
    """As isHigherRole of the original: writer is not higher than writeOnly."""
    if offered == Role.REVOKED or role == Role.ADMIN:
        return False
    if role is None or role == Role.REVOKED or offered == Role.ADMIN:
        return True
    if role == Role.MANAGER:
        return False
    return offered == Role.MANAGER or (offered == Role.WRITER and role == Role.READER)


def _improves(offered: Role, role: Role | None) -> bool:
    """As isMorePermissiveAndShouldInherit of the original."""
    match offered:
        case Role.ADMIN:
            return role is not Role.ADMIN
        case Role.MANAGER:
            return role not in (Role.ADMIN, Role.MANAGER)
        case Role.WRITER:
            return role in (None, Role.READER, Role.WRITE_ONLY)
        case Role.READER:
            return role is None
    return False
