"""What a node keeps of one group or account to tell roles: who set which role when.

Keys that members are given make up most of a group; they change no role and are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from node.covalue.content import Transaction
from node.covalue.group_changes import ChangeKind, GroupChange, parse_change
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import SessionCounts
from node.covalue.membership import Event, Position
from node.covalue.store import SessionAppend

_VIEW_BYTES = 2_048
_EVENT_BYTES = 288
_NAME_BYTES = 384
_KEPT = frozenset({ChangeKind.ROLE, ChangeKind.PARENT, ChangeKind.WRITE_KEY})
_MAX_EXACT_INTEGER = 2**53


class GroupView:
    """The role changes of one value, valid or not, in no order.

    Memory: about 0.3 KB for each change of a role, link or write key, and 0.4 KB for each session,
    member and parent, with what their evaluation adds; nothing for other transactions.

    A value that is not a group may have a view as well: it has no members, and nobody inherits from
    it. Accounts are groups here; they hand on no roles.
    """

    def __init__(self, co_id: RawCoId, header: CoValueHeader) -> None:
        self.co_id = co_id
        self.header = header
        self._events: list[Event] = []
        self._counts: dict[CoSessionId, int] = {}
        self._names: dict[str, str] = {}
        self._name_bytes = 0

    @property
    def has_members(self) -> bool:
        """Groups and accounts do; a value of another type is neither, whatever its ruleset says."""
        return self.header.is_group and self.header.fields["type"] == "comap"

    @property
    def may_be_parent(self) -> bool:
        return self.has_members and not self.header.is_account

    @property
    def events(self) -> Sequence[Event]:
        """In the order in which they came; only ever appended to."""
        return self._events

    @property
    def size_bytes(self) -> int:
        """About what this view and its evaluation hold in memory."""
        return _VIEW_BYTES + len(self._events) * _EVENT_BYTES + self._name_bytes

    @property
    def counts(self) -> SessionCounts:
        """How many transactions of each session have been added."""
        return self._counts.copy()

    def count(self, session_id: CoSessionId) -> int:
        """How many transactions of a session have been added."""
        return self._counts.get(session_id, 0)

    def add(self, session_id: CoSessionId, after: int, transactions: Sequence[Transaction]) -> bool:
        """Take verified transactions [after, after + len) of a session; what is known is skipped.

        Returns whether any of them may matter to a role.

        Raises: ValueError when some before them are missing.
        """
        count = self.count(session_id)
        if after > count:
            raise ValueError(f"transactions from {after} of a session known up to {count}")
        new = transactions[count - after :]
        if not new:
            return False
        session_id = CoSessionId(self._name(session_id))
        self._counts[session_id] = count + len(new)
        known = len(self._events)
        if self.has_members:
            for index, transaction in enumerate(new, count):
                self._keep(session_id, index, transaction)
        return len(self._events) > known

    def with_parts(self, parts: Mapping[CoSessionId, SessionAppend]) -> GroupView:
        """A copy to which these were added as well.

        Raises: ValueError as `add` does.
        """
        copy = GroupView(self.co_id, self.header)
        copy._events = self._events.copy()
        copy._counts = self._counts.copy()
        copy._names = self._names.copy()
        copy._name_bytes = self._name_bytes
        for session_id, part in parts.items():
            copy.add(session_id, part.after, part.transactions)
        return copy

    def _keep(self, session_id: CoSessionId, index: int, transaction: Transaction) -> None:
        change = parse_change(transaction)
        if change is None or change.kind not in _KEPT:
            return
        kind, subject, value = change
        subject = self._name(subject)
        if kind is ChangeKind.WRITE_KEY:
            value = self._name(value)
        made_at = javascript_time(transaction.made_at)
        self._events.append(Event(made_at, session_id, index, GroupChange(kind, subject, value)))

    def _name(self, text: str) -> str:
        """One object for each text, however often it comes."""
        known = self._names.get(text)
        if known is None:
            self._names[text] = known = text
            self._name_bytes += _NAME_BYTES + len(text)
        return known


def tells_of_roles(header: CoValueHeader, transactions: Sequence[Transaction]) -> bool:
    """Whether a view of this value would keep any of them: it may matter to a role."""
    if not GroupView(header.id, header).has_members:
        return False
    changes = map(parse_change, transactions)
    return any(change is not None and change.kind in _KEPT for change in changes)


def javascript_time(made_at: int) -> int:
    """A time as JavaScript compares it: above 2^53 neighbors are equal."""
    return made_at if made_at <= _MAX_EXACT_INTEGER else int(float(made_at))


def position_of(session_id: CoSessionId, index: int, transaction: Transaction) -> Position:
    """Where a transaction stands among the events of its group."""
    return javascript_time(transaction.made_at), session_id, index
