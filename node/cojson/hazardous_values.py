"""Values that no cojson client takes, since it stops at their headers, and what names them.

A client waits for such a value for ever when it is sent what the value owns, or is the source of;
a group of which it is a member or a parent; any value with a session that it signed.

New parts that name one are refused, whether that is stored here or was refused before: else all
that is in a group would wait here, too. A stored one is known once it was read, which it is before
anything that names it is served. A client that asks for it is sent it: old ones take some of them.

Source: cojson 0.20.19 sync.ts handleNewContent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence

from node.covalue.content import Transaction
from node.covalue.dependencies import (
    header_dependencies,
    member_dependencies,
    session_dependencies,
)
from node.covalue.hazards import hazard, header_hazard
from node.covalue.header import CoValueHeader
from node.covalue.ids import CoSessionId, RawCoId

MAX_STORED = 65_536
"""Values; nobody can add any more of them."""

MAX_REFUSED = 4096
"""The last values refused; what names an older one waits for it, as for one that is lost."""


class HazardousValues:
    """Those that one node has met."""

    def __init__(self) -> None:
        self._stored: dict[RawCoId, str] = {}
        self._refused: OrderedDict[RawCoId, None] = OrderedDict()

    def __contains__(self, co_id: RawCoId) -> bool:
        return co_id in self._stored or co_id in self._refused

    @property
    def are_any(self) -> bool:
        return bool(self._stored or self._refused)

    @property
    def stored(self) -> Mapping[RawCoId, str]:
        """Those that are stored here, and why clients do not take them."""
        return self._stored

    def note_stored(self, co_id: RawCoId, header: CoValueHeader) -> None:
        """A value was read: look at it, and once more when all that it belongs to was read."""
        if co_id not in self._stored and len(self._stored) < MAX_STORED:
            reason = self._reason(header)
            if reason is not None:
                self._stored[co_id] = reason

    def refusal(self, co_id: RawCoId, header: CoValueHeader) -> str | None:
        """Why a value that begins so is not to be taken in; None when it may be."""
        reason = self._reason(header)
        if reason is not None:
            self._refused[co_id] = None
            if len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)
        return reason

    def are_among(self, co_ids: Collection[RawCoId]) -> bool:
        """Whether any of these is one."""
        return not (
            self._stored.keys().isdisjoint(co_ids) and self._refused.keys().isdisjoint(co_ids)
        )

    def signed(self, session_id: CoSessionId) -> bool:
        """Whether this session is that of such an account."""
        return self.are_among(session_dependencies((session_id,)))

    def hazard(
        self,
        co_id: RawCoId,
        session_id: CoSessionId,
        transactions: Sequence[Transaction],
        *,
        is_group: bool,
    ) -> str | None:
        """Why this part of a value must not be passed on to clients; None when it may be."""
        found = hazard(transactions, is_group=is_group)
        if found is not None or not self.are_any:
            return found
        if self.signed(session_id) and co_id not in session_dependencies((session_id,)):
            return "signed by an account that clients do not take"
        if is_group and self.are_among(member_dependencies(transactions)):
            return "a group's member or parent that clients do not take"
        return None

    def _reason(self, header: CoValueHeader) -> str | None:
        reason = header_hazard(header)
        if reason is None and self.are_any and self.are_among(header_dependencies(header)):
            return "it belongs to a value that clients do not take"
        return reason
