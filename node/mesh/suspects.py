"""[trio] Taking a second look at values of members that do not continue what is held here.

If an author signed two continuations of a session, that shows from where they part. So all that
the member has of the value is read, and handed in: what is known already costs the sync host
little, and where something differs it looks for a fork.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.member_data import Reading, Source

MAX_REMEMBERED = 4096
"""Values that are not looked into twice."""

MAX_READINGS = 64
"""Readings of one value, 1 MiB each, that may come before two continuations part."""

Read: TypeAlias = Callable[
    [Source, RawCoId, KnownState, int], Awaitable[tuple[Reading, float] | None]
]
HandIn: TypeAlias = Callable[[str, Sequence[Content]], Awaitable[object]]


class Suspects:
    """`read` is that of the fetcher, `hand_in` and `takes_content` are those of the sync host."""

    def __init__(self, read: Read, hand_in: HandIn, takes_content: Callable[[], bool]) -> None:
        self._read = read
        self._hand_in = hand_in
        self._takes_content = takes_content
        self._looked_into: OrderedDict[tuple[bytes, RawCoId], None] = OrderedDict()

    async def look_into(self, member: Source, co_id: RawCoId, version: int) -> None:
        """Have all that a member holds of a value looked at, once; it is refused as before.

        A value does not count as looked into if reading fails, or while there is no room.
        Cancel: it counts as looked into.
        """
        suspect = (member.id, co_id)
        if suspect in self._looked_into or not self._takes_content():
            return
        self._looked_into[suspect] = None
        if len(self._looked_into) > MAX_REMEMBERED:
            self._looked_into.popitem(last=False)
        known = NOTHING
        for _ in range(MAX_READINGS):
            found = await self._read(member, co_id, known, version)
            if found is None:
                self._looked_into.pop(suspect, None)
                return
            reading, _ = found
            await self._hand_in(f"member {member.id.hex()}", reading.contents)
            if not self._takes_content():
                self._looked_into.pop(suspect, None)  # refused unseen
                return
            reached = reading.reached(known)
            if reading.is_complete or reached == known:
                return
            known = reached
