"""Who may do what, judged when content comes in: deletions always, writing if the node wants that.

A right is a function of the transactions of a group and its parents. They are read when a right
is judged for the first time and kept up with every commit of the group after that. What is
refused for want of a right is an *appeal* (`appeals.py`): roles may come to light later.

A session's part is one decision, because it ends at one signature: it is taken when one of its
transactions may be written. So a stranger gets nothing in, and one who was made a writer late can
go on with the session in which he wrote too early; readers ignore what was written without a right.

A group that comes whole brings the roles by which its own parts are judged: what lacks a right by
what is here is judged once more by all that came. Where that names groups which were not read yet,
it is an appeal, and refused only when nothing that was taken beside it tells of roles.

What takes long to judge is judged aside, in a part of the time, while the values that need it wait:
one change that is older than all others of a large group has all of it judged again, and a client
could send a thousand of them a second. What changes of its parents meanwhile has it judged once
more, and from then on waits, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from node.cojson.claims import Claims
from node.cojson.deletion import NotDeletable, deletion_time
from node.cojson.engine_state import EngineState
from node.cojson.judgment import FreshPart, Verified
from node.cojson.outputs import JudgeGroup, Output, ReadGroup
from node.cojson.value_table import Phase, ValueEntry
from node.cojson.waiting_room import Delivery
from node.covalue.group_view import GroupView, tells_of_roles
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId, is_delete_session, session_owner
from node.covalue.role_judgment import Judgment
from node.covalue.roles import JudgingTakesLong, RoleBook, ruling_group
from node.covalue.store import SessionAppend, ValueAppend


class Rights:
    """The judge of the engine, and the groups that it has read."""

    def __init__(
        self, state: EngineState, claims: Claims, *, enforces_writes: bool = False
    ) -> None:
        self._state = state
        self._claims = claims
        self._enforces_writes = enforces_writes
        self._roles = RoleBook(max_slices=1)
        self._askers: dict[ReadGroup | JudgeGroup, dict[RawCoId, None]] = {}
        """The values that wait for each group that is being read, or judged."""
        self._postponed: dict[RawCoId, ReadGroup] = {}
        """Groups to be read when their commits are durable."""
        self._growing: set[RawCoId] = set()
        """Groups of which commits are out: what they say of roles may still be lost."""

    # Before the judgment.

    def questions(
        self, entry: ValueEntry, header: CoValueHeader, fresh: Mapping[CoSessionId, FreshPart]
    ) -> Sequence[ReadGroup | JudgeGroup]:
        """What has to be answered before these parts can be judged."""
        if header.is_group and (blocker := self._roles.blocker(entry.co_id)) is not None:
            return (JudgeGroup(blocker),)
        if not self._enforces_writes and not any(map(is_delete_session, fresh)):
            return []
        group_id = entry.co_id if header.is_group else ruling_group(header)
        if group_id is None:
            return []
        if header.is_group and entry.header is None:
            self._roles.add_view(GroupView(entry.co_id, header))
        try:
            return [ReadGroup(co_id) for co_id in self._roles.missing(group_id)]
        except JudgingTakesLong:
            return (JudgeGroup(group_id),)

    def ask(
        self, entry: ValueEntry, questions: Iterable[ReadGroup | JudgeGroup], out: list[Output]
    ) -> None:
        """Have these answered; the value is busy until they are."""
        for question in questions:
            entry.judging.add(question.co_id)
            askers = self._askers.get(question)
            if askers is None:
                askers = self._askers[question] = {}
                if isinstance(question, ReadGroup):
                    self._read_when_durable(question, out)
                else:
                    out.append(question)
            askers[entry.co_id] = None

    def _read_when_durable(self, question: ReadGroup, out: list[Output]) -> None:
        """What was accepted counts for rights, and must be in the store before it is read there."""
        group = self._state.values.peek(question.co_id)
        if group is not None and group.tickets:
            self._postponed[question.co_id] = question
        else:
            out.append(question)

    def stored(self, entry: ValueEntry, out: list[Output]) -> None:
        """Commits of this value became durable."""
        if entry.tickets:
            return
        self._growing.discard(entry.co_id)
        if (question := self._postponed.pop(entry.co_id, None)) is not None:
            out.append(question)

    def not_stored(self, entry: ValueEntry, out: list[Output]) -> None:
        """What this value was to get does not count: what was refused by it may be right."""
        self._roles.discard(entry.co_id)
        self._state.appealed.extend(self._state.appeals.release(entry.co_id))
        self.stored(entry, out)

    def group_read(
        self, group_id: RawCoId, group: GroupView | None, out: list[Output]
    ) -> list[ValueEntry]:
        """Take in what was read; returns the values that waited for it and may go on now."""
        entry = self._state.values.peek(group_id)
        logs = entry.logs if entry is not None and entry.phase is Phase.HELD else {}
        if group is not None and any(log.count > group.count(key) for key, log in logs.items()):
            self._read_when_durable(ReadGroup(group_id, group), out)  # it grew meanwhile
            return []
        if group is not None:
            self._roles.add_view(group)
        elif group_id not in self._roles:  # else it came while it was looked for
            self._roles.add_absent(group_id)
        question = ReadGroup(group_id)
        return self._resumed(question, self._askers.pop(question, ()))

    def judging(self, group_id: RawCoId) -> Iterator[ReadGroup | None]:
        """Judge a group that takes long: None after each slice of work, or what must be read."""
        for missing in self._roles.judge_aside(group_id):
            if missing:
                yield from map(ReadGroup, missing)
            else:
                yield None

    def group_judged(self, group_id: RawCoId) -> Iterator[ValueEntry]:
        """The values that waited for that, to go on one after the other.

        Once one of them has the group judged again, the others go on waiting, now before it.
        """
        question = JudgeGroup(group_id)
        left = self._askers.pop(question, {})
        while left:
            again = self._askers.get(question)
            if again is not None:
                self._askers[question] = left | again
                return
            co_id = next(iter(left))
            del left[co_id]
            yield from self._resumed(question, (co_id,))

    def _resumed(
        self, question: ReadGroup | JudgeGroup, co_ids: Iterable[RawCoId]
    ) -> list[ValueEntry]:
        resumed: list[ValueEntry] = []
        for co_id in co_ids:
            waiting = self._state.values.peek(co_id)
            if waiting is not None:
                waiting.judging.discard(question.co_id)
                resumed.append(waiting)
        return resumed

    # The judgment.

    def judge(
        self,
        entry: ValueEntry,
        header: CoValueHeader,
        verified: Verified,
        delivery: Delivery,
        out: list[Output],
    ) -> bool:
        """Take out of `verified` what its author had no right to write, and say why.

        Returns whether there was any.
        """
        may_matter = self._enforces_writes or entry.is_deleted
        if not may_matter and not any(map(is_delete_session, verified.appends)):
            return False
        denied, judgment = self._deny(entry, header, verified)
        for session_id in denied:
            verified.drop(session_id)
        is_appeal = False
        if denied or self._growing:
            group_id = entry.co_id if header.is_group else ruling_group(header)
            if group_id is not None:
                consulted = self._consulted(group_id) if judgment is None else judgment.reach
                verified.rests_on = consulted & self._growing
                if denied:
                    checked = {key: verified.extensions[key] for key in denied}
                    is_appeal = self._state.appeals.add(delivery, consulted, checked)
                    if delivery.sender is not None:
                        self._claims.ask_at_once(delivery.sender, consulted, out)
        if not (is_appeal and self._decides_appeals(entry, header, verified.appends)):
            verified.refusals.extend(denied.values())
        if verified.is_deletion or entry.is_deleted:
            for session_id in list(verified.appends):
                if not is_delete_session(session_id):
                    verified.drop(session_id)
        return bool(denied)

    def _consulted(self, group_id: RawCoId) -> frozenset[RawCoId]:
        try:
            return self._roles.reach(group_id)
        except JudgingTakesLong:  # nothing was judged by it
            return frozenset((group_id,))

    @staticmethod
    def _decides_appeals(
        entry: ValueEntry, header: CoValueHeader, taken: Mapping[CoSessionId, SessionAppend]
    ) -> bool:
        """Whether the commit of what is taken has the rest judged again at once (`committed`)."""
        if not header.is_group or not taken:
            return False
        return entry.header is None or any(
            tells_of_roles(header, append.transactions) for append in taken.values()
        )

    def _deny(
        self, entry: ValueEntry, header: CoValueHeader, verified: Verified
    ) -> tuple[dict[CoSessionId, str], Judgment | None]:
        """What lacks a right, and why; refuse what deletes nothing.

        Also what was judged by, if that is more than what is here.
        """
        denied = self._deny_by_what_is_here(entry, header, verified)
        taken = {key: part for key, part in verified.appends.items() if key not in denied}
        if not denied or not self._decides_appeals(entry, header, taken):
            return denied, None
        judgment = self._roles.suppose(entry.co_id, verified.appends)
        if judgment is None or judgment.missing:
            return denied, None
        supposed: set[CoSessionId] = set()
        for session_id in list(denied):
            if any(
                judgment.is_valid(entry.co_id, session_id, index, transaction)
                for index, transaction in verified.appends[session_id].numbered
            ):
                del denied[session_id]
                supposed.add(session_id)
        verified.supposed, verified.consulted = frozenset(supposed), judgment.reach
        return denied, judgment

    def _deny_by_what_is_here(
        self, entry: ValueEntry, header: CoValueHeader, verified: Verified
    ) -> dict[CoSessionId, str]:
        denied: dict[CoSessionId, str] = {}
        for session_id, append in list(verified.appends.items()):
            try:
                made_at = None
                if is_delete_session(session_id):
                    made_at = deletion_time(entry.co_id, header, append.after, append.transactions)
            except NotDeletable as fault:
                verified.refuse(session_id, str(fault))
                continue
            if made_at is not None:
                if self._roles.may_delete(header, session_owner(session_id), made_at):
                    verified.is_deletion = True
                    continue
                reason = f"its author was not an admin of {header.owner_group} at {made_at}"
            elif self._enforces_writes and not self._may_write(entry, header, session_id, append):
                reason = "its author had no right to write"
            else:
                continue
            denied[session_id] = f"{session_id}: {reason}"
        return denied

    def _may_write(
        self,
        entry: ValueEntry,
        header: CoValueHeader,
        session_id: CoSessionId,
        append: SessionAppend,
    ) -> bool:
        return any(
            self._roles.may_write(entry.co_id, header, session_id, index, transaction)
            for index, transaction in append.numbered
        )

    # After the judgment.

    def committed(self, append: ValueAppend, header: CoValueHeader) -> list[Delivery]:
        """A commit was accepted: what it says of roles counts. Returns appeals it may decide."""
        if append.header is not None and append.co_id in self._roles:
            self._roles.add_view(GroupView(append.co_id, header))  # it was absent till now
        if not header.is_group:
            return []
        self._growing.add(append.co_id)
        may_matter = append.header is not None
        for session_id, part in append.sessions.items():
            extended = self._roles.extend(append.co_id, session_id, part.after, part.transactions)
            may_matter = extended or may_matter
        return self._state.appeals.release(append.co_id) if may_matter else []
