"""[trio] What is being fetched from whom, so that nothing is fetched twice at the same time.

A node that asks a member for a value is told by it, too, that this has moved lately. A file of 40
MB was read, and verified, once for each of the two.

A member that was slow is left alone for a while with what others have as well. Else each value that
it was the first to announce would wait for it anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import trio

from node.covalue.ids import RawCoId
from node.mesh.announcements import Announcements, Fetch

UNDER_WAY_SECONDS = 30.0
"""A fetch that brings nothing for longer holds up no other: the member may be slow on purpose."""

SLOW_MEMORY_SECONDS = 60.0
"""After that a member that was slow has its turn again: the line may be better."""


class UnderWay:
    """The fetches of one node that have begun."""

    def __init__(self) -> None:
        self.ended: Callable[[], None] = lambda: None
        """Called with each end."""
        self._since: dict[tuple[bytes, RawCoId], float] = {}
        self._slow_until: dict[bytes, float] = {}
        self._over = trio.lowlevel.ParkingLot()

    def has(self, member_id: bytes, co_id: RawCoId) -> bool:
        """Whether this value is being fetched from that member, and comes."""
        since = self._since.get((member_id, co_id))
        return since is not None and trio.current_time() < since + UNDER_WAY_SECONDS

    def was_slow(self, member_id: bytes) -> None:
        """The member gave way to others."""
        self._slow_until[member_id] = trio.current_time() + SLOW_MEMORY_SECONDS

    def take(self, found: Announcements) -> Fetch | None:
        """The next fetch that does not come already, and from no slow member, if others have it."""
        return found.take(self.has, self._slow_members())

    def _slow_members(self) -> frozenset[bytes]:
        now = trio.current_time()
        self._slow_until = {id: until for id, until in self._slow_until.items() if now < until}
        return frozenset(self._slow_until)

    def begin(self, fetch: Fetch) -> None:
        """From now on its values are under way, until `end`."""
        for co_id in fetch.ids:
            self._since.setdefault((fetch.member_id, co_id), trio.current_time())

    def came(self, member_id: bytes, ids: Iterable[RawCoId]) -> None:
        """Something was taken of these values, or of what they depend on."""
        now = trio.current_time()
        for co_id in ids:
            if (member_id, co_id) in self._since:
                self._since[member_id, co_id] = now

    def end(self, fetch: Fetch) -> None:
        for co_id in fetch.ids:
            self._since.pop((fetch.member_id, co_id), None)
        self._over.unpark_all()
        self.ended()

    async def next_of(self, found: Announcements) -> Fetch | None:
        """Take the next fetch from what only the caller takes from; None when nothing is left.

        What is under way already comes last, and is waited for: nothing else waits for that.

        Cancel: nothing is taken.
        """
        while len(found):
            if (fetch := self.take(found)) is not None:
                return fetch
            if found.is_giving_way:
                await trio.lowlevel.checkpoint()
                continue
            if not self._since:
                break
            with trio.move_on_at(self._next_late):
                await self._over.park()
        return found.take(slow=self._slow_members())

    @property
    def _next_late(self) -> float:
        """When the next of the values under way has not come for long."""
        late = [since + UNDER_WAY_SECONDS for since in self._since.values()]
        return min((time for time in late if time > trio.current_time()), default=math.inf)
