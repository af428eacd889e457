"""Values in logs of members that this node cannot read: those of a later version, perhaps.

They are not read again until this node is started anew. `MAX_VALUES` of each member are remembered;
more are held against it, or it could have us read without end.
"""

from __future__ import annotations

from collections import OrderedDict

from node.covalue.ids import RawCoId

MAX_VALUES = 4096
"""Values of one member: about 600 KB."""

MAX_MEMBERS = 64
"""Those in whose logs such values were met last."""


class UnreadableValues:
    """By member: another may have written the same value in another way."""

    def __init__(self) -> None:
        self._of: OrderedDict[bytes, set[RawCoId]] = OrderedDict()

    def has(self, member_id: bytes, co_id: RawCoId) -> bool:
        return co_id in self._of.get(member_id, ())

    def has_any(self, member_id: bytes) -> bool:
        return member_id in self._of

    def add(self, member_id: bytes, co_id: RawCoId) -> bool:
        """Remember a value; False when there is no room for more of this member."""
        values = self._of.setdefault(member_id, set())
        self._of.move_to_end(member_id)
        if len(self._of) > MAX_MEMBERS:
            self._of.popitem(last=False)
        if len(values) < MAX_VALUES:
            values.add(co_id)
        return co_id in values
