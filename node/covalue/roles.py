"""Who may do what at a time: roles through all parents of a group, for a node that enforces them.

An answer depends on the transactions that are known and on nothing else: not on the order in which
they came, not on what was asked before. Transactions that arrive late change answers about the
past.

The groups that one answer needs are found by following links: `missing` names those that are not in
memory, until there are none. A link counts when its author had the right to make it, so that what
strangers write into a group makes nobody load anything.

* Links in a circle (the original never finishes loading such groups): every group is judged by
  following its links first to last, and one that is met again on the way gives no role there.
* Groups that reach too far, or too large for memory, have no members: see `role_judgment.MAX_WORK`.
* At time 0 the original looks at grandparents as they are now; here they are as they were.

Source: cojson 0.20.19 permissions.ts, coValues/group.ts roleOfInternal, coValues/account.ts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from node.covalue.content import Transaction
from node.covalue.group_changes import Role, parse_json
from node.covalue.group_view import GroupView, javascript_time
from node.covalue.header import CoValueHeader, parse_header
from node.covalue.ids import CoSessionId, RawCoId, is_co_id, session_owner
from node.covalue.role_judgment import Judged, Judgment
from node.covalue.store import SessionAppend

DEFAULT_VIEW_BYTES = 32 * 1024 * 1024
"""About 110,000 role changes, or 4,000 groups with ten members."""

SUPPOSED_PER_SLICE = 50
"""Transactions that came together, for which one more slice of work is spent: each has cost as much
before, since its signature was checked."""

_MAX_ID_CHARACTERS = 30

_NO_GROUP = parse_header(
    {
        "type": "comap",
        "ruleset": {"type": "group", "initialAdmin": ""},
        "meta": None,
        "uniqueness": None,
    }
)
"""Stands for a group that is not here. It may be a parent: links to it count from when it comes."""


class GroupsMissing(LookupError):
    """Views that must be added before this can be answered."""

    def __init__(self, group_ids: Sequence[RawCoId]) -> None:
        super().__init__(f"{len(group_ids)} groups are not in memory: {', '.join(group_ids[:5])}")
        self.group_ids = group_ids


class JudgingTakesLong(RuntimeError):
    """The roles in a group are not known at once: it has to be judged aside."""

    def __init__(self, group_id: RawCoId) -> None:
        super().__init__(f"the roles in {group_id} are not judged yet")


class RoleBook:
    """Views of groups, the least recently used dropped beyond `max_bytes`, and the roles in them.

    Measured on two busy cores: a role change costs 3 us to judge (100,000 of them 0.3 s), and 5 us
    more for each parent by way of which its author acts; a lookup 10 us, and as much for each
    group above. What was judged is kept: later changes are judged alone, unless they count and are
    older than what was there.

    So a change that is older than a hundred thousand others, and costs its author nothing, has all
    of these judged again. With `max_slices` no question does more at once, but raises
    `JudgingTakesLong`: then go through `judge_aside`, in whatever time there is, and ask again.
    """

    def __init__(self, *, max_bytes: int | None = None, max_slices: int | None = None) -> None:
        self._max_bytes = DEFAULT_VIEW_BYTES if max_bytes is None else max_bytes
        self._max_slices = max_slices
        self._views: OrderedDict[RawCoId, GroupView] = OrderedDict()
        self._sizes: dict[RawCoId, int] = {}
        self._size_bytes = 0
        self._judged: dict[RawCoId, Judged] = {}
        self._wanted: set[RawCoId] = set()
        self._latest: tuple[RawCoId, Judgment] | None = None
        """The last judgment, of this group, while no view has changed since."""
        self._takes_long: set[RawCoId] = set()
        """Groups that are to be judged aside: even to find that out again would take long."""
        self._in_vain: set[RawCoId] = set()
        """Groups that were judged aside while one of their views changed."""
        self._aside: Judgment | None = None
        """What it has reached, or named as missing, stays in memory."""
        self._blocker: RawCoId | None = None
        """The group judged aside, if that was in vain before."""

    @property
    def size_bytes(self) -> int:
        """At most `max_bytes` and the groups that the last answer needed."""
        return self._size_bytes

    def __contains__(self, co_id: object) -> bool:
        return co_id in self._views

    # ---- views

    def missing(self, group_id: RawCoId) -> list[RawCoId]:
        """Which views must be added before roles in this group can be told; [] when they can.

        Parents are known when their children are: ask again after adding. Assemble one group at a
        time; views that this names or finds are kept until the next is asked about.

        Raises: JudgingTakesLong, as all questions about roles do; none does right after this.
        """
        return list(self._judge(group_id).missing)

    def add_view(self, view: GroupView) -> None:
        """Take over a view that holds everything known of its value; it replaces an older one."""
        self.discard(view.co_id)
        self._latest = None
        self._views[view.co_id] = view
        self._measure(view)
        self._evict(view.co_id)

    def add_absent(self, group_id: RawCoId) -> None:
        """A group is named, and not stored here: until it is added, nobody has a role in it."""
        self.add_view(GroupView(group_id, _NO_GROUP))

    def extend(
        self,
        co_id: RawCoId,
        session_id: CoSessionId,
        after: int,
        transactions: Sequence[Transaction],
    ) -> bool:
        """Tell of transactions that were stored; returns whether they may matter to a role.

        Without a view nothing is kept, and they may.

        Raises: ValueError when some before them are missing.
        """
        view = self._views.get(co_id)
        if view is None:
            return True
        may_matter = view.add(session_id, after, transactions)
        if may_matter:
            self._latest = None
        self._measure(view)
        self._evict(co_id)
        return may_matter

    def discard(self, co_id: RawCoId) -> None:
        """Forget a view; it may be added again."""
        if self._views.pop(co_id, None) is not None:
            self._size_bytes -= self._sizes.pop(co_id)
            self._judged.pop(co_id, None)
            self._takes_long.discard(co_id)
            self._in_vain.discard(co_id)
            self._latest = None

    def _measure(self, view: GroupView) -> None:
        size = view.size_bytes
        self._size_bytes += size - self._sizes.get(view.co_id, 0)
        self._sizes[view.co_id] = size

    def _evict(self, kept: RawCoId) -> None:
        # What is being assembled stays, or two large groups would drop each other for ever.
        wanted = self._wanted
        if self._aside is not None:
            wanted = wanted | self._aside.reached.keys() | self._aside.missing.keys()
        while self._size_bytes > self._max_bytes:
            oldest = next((i for i in self._views if i != kept and i not in wanted), None)
            if oldest is None:
                return
            self.discard(oldest)

    def judge_aside(self, group_id: RawCoId) -> Iterator[Sequence[RawCoId]]:
        """Judge a group, with an empty step after each slice of work; views may change meanwhile.

        It may have been dropped while it waited for that: views that are missing are named, each
        once, to be added before the next step, and stay in memory until it is judged.

        What came of it is known at once afterwards, unless one of its views has changed.
        """
        self._blocker = group_id if group_id in self._in_vain else None
        named: set[RawCoId] = set()
        try:
            while True:
                judgment = self._aside = self._judgment_of(group_id)
                for _ in judgment.steps():
                    yield ()
                missing = [key for key in judgment.missing if key not in named]
                if not missing:
                    break
                named.update(missing)
                yield missing
        finally:
            self._aside = self._blocker = None
        self._takes_long.discard(group_id)
        if judgment.holds:
            self._in_vain.discard(group_id)
            self._keep(group_id, judgment)
        elif group_id in self._views:
            self._in_vain.add(group_id)

    def blocker(self, group_id: RawCoId) -> RawCoId | None:
        """The group that is being judged aside once more, and for which this one must not change.

        Else whoever writes into a parent, be it to leave it, would have that begun anew for ever.
        """
        if self._blocker is None or self._aside is None or group_id not in self._aside.reached:
            return None
        return self._blocker

    def reach(self, group_id: RawCoId) -> frozenset[RawCoId]:
        """The groups that have a say in the roles of this one, itself included."""
        return self._judge(group_id).reach

    def suppose(
        self, group_id: RawCoId, parts: Mapping[CoSessionId, SessionAppend]
    ) -> Judgment | None:
        """The roles in a group if these had been stored.

        What of them does not count changes no role, so all that came together can be asked about.
        Costs as much as judging the group from scratch: None where that is too much for so few
        transactions, or the group has no view.
        """
        view = self._views.get(group_id)
        if view is None:
            return None
        known = self._judged.pop(group_id, None)
        self._views[group_id] = view.with_parts(parts)
        max_slices = self._max_slices
        if max_slices is not None:
            max_slices += (
                sum(len(part.transactions) for part in parts.values()) // SUPPOSED_PER_SLICE
            )
        try:
            judgment = self._judgment_of(group_id)
            return judgment if _is_done(judgment, max_slices) else None
        finally:
            self._views[group_id] = view
            self._judged.pop(group_id, None)
            if known is not None:
                self._judged[group_id] = known

    # ---- answers

    def role_of(self, group_id: RawCoId, member: str, made_at: int) -> Role | None:
        """The role of an account, agent or `everyone` in a group at a time; never REVOKED.

        An account is admin of itself, at any time.

        Raises: GroupsMissing.
        """
        judgment = self._judge_complete(group_id)
        return judgment.role_at(group_id, member, javascript_time(made_at))

    def may_delete(self, header: CoValueHeader, author: str, made_at: int) -> bool:
        """Whether a value is one that can be deleted, by this author at this time.

        Raises: GroupsMissing.
        """
        group_id = ruling_group(header)
        if group_id is None:
            return False
        role = self.role_of(group_id, author, made_at)
        return role is not None and role.can_delete

    def may_write(
        self,
        co_id: RawCoId,
        header: CoValueHeader,
        session_id: CoSessionId,
        index: int,
        transaction: Transaction,
    ) -> bool:
        """Whether a transaction of a value counts: it is valid where it stands.

        | ruleset        | valid is                                                            |
        |----------------|---------------------------------------------------------------------|
        | unsafeAllowAll | everything                                                          |
        | ownedByGroup   | what admins, managers, writers, writeOnly of the group wrote then;  |
        |                | of readers what points to a branch and says so in the clear         |
        | group, account | what `node.covalue.membership` says                                 |

        A group's transactions may rest on one another: what came together is judged by `suppose`.

        Raises: GroupsMissing.
        """
        if header.is_group:
            return self._judge_complete(co_id).is_valid(co_id, session_id, index, transaction)
        if header.owner_group is None:
            return True
        group_id = ruling_group(header)
        if group_id is None:
            return False
        role = self._writing_role(group_id, session_owner(session_id), transaction.made_at)
        if role is Role.READER:
            return _points_to_branch(transaction)
        return role is not None and role.can_write

    def _writing_role(self, group_id: RawCoId, author: str, made_at: int) -> Role | None:
        view = self._views.get(group_id)
        if view is not None and view.header.is_account and author == group_id:
            # Unlike for deleting, an account writes by the role that its agent has in it.
            author = view.header.initial_admin or author
        return self.role_of(group_id, author, made_at)

    def _judge_complete(self, group_id: RawCoId) -> Judgment:
        judgment = self._judge(group_id)
        if judgment.missing:
            raise GroupsMissing(list(judgment.missing))
        return judgment

    def _judge(self, group_id: RawCoId) -> Judgment:
        if self._latest is not None and self._latest[0] == group_id:
            return self._latest[1]
        judgment = self._judgment_of(group_id)
        if group_id in self._takes_long or not _is_done(judgment, self._max_slices):
            self._takes_long.add(group_id)
            raise JudgingTakesLong(group_id)
        self._keep(group_id, judgment)
        return judgment

    def _judgment_of(self, group_id: RawCoId) -> Judgment:
        return Judgment(group_id, self._views.get, self._judged, self._max_bytes)

    def _keep(self, group_id: RawCoId, judgment: Judgment) -> None:
        for co_id in judgment.reached:
            self._views.move_to_end(co_id)
        self._wanted = {*judgment.reached, *judgment.missing}
        self._latest = group_id, judgment


def _is_done(judgment: Judgment, max_slices: int | None) -> bool:
    """Judge; False if so many slices of work were not enough."""
    return not any(slices == max_slices for slices, _ in enumerate(judgment.steps(), 1))


def ruling_group(header: CoValueHeader) -> RawCoId | None:
    """The group or account that owns a value; None when no such group can exist."""
    owner = header.owner_group
    if owner is None or len(owner) > _MAX_ID_CHARACTERS or not is_co_id(owner):
        return None
    return RawCoId(owner)


def _points_to_branch(transaction: Transaction) -> bool:
    """Whether the meta of a trusting transaction names a branch and its owner."""
    meta = transaction.meta
    if transaction.is_private or meta is None:
        return False
    parsed = parse_json(meta)
    return isinstance(parsed, dict) and all(
        _is_truthy(parsed.get(name)) for name in ("branch", "ownerId")
    )


def _is_truthy(value: object) -> bool:
    """As JavaScript sees it: empty lists and objects are true."""
    return isinstance(value, list | dict) or bool(value)
