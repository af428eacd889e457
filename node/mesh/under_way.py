"""[trio] What is being fetched from whom, so that nothing is fetched twice at the same time.

A node that asks a member for a value is told by it, too, that this has moved lately. A file of 40
MB was read, and verified, once for each of the two.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from node.covalue.ids import RawCoId
from node.mesh.announcements import Announcements, Fetch

UNDER_WAY_SECONDS = 30.0
"""A fetch that takes longer holds up no other: the member may be slow on purpose."""


class UnderWay:
    """The fetches of one node that have begun."""

    def __init__(self) -> None:
        self.ended: Callable[[], None] = lambda: None
        """Called with each end."""
        self._since: dict[tuple[bytes, RawCoId], float] = {}
        self._over = trio.lowlevel.ParkingLot()

    def has(self, member_id: bytes, co_id: RawCoId) -> bool:
        """Whether this value is being fetched from that member, and has not been for long."""
        since = self._since.get((member_id, co_id))
        return since is not None and trio.current_time() < since + UNDER_WAY_SECONDS

    def begin(self, fetch: Fetch) -> None:
        """From now on its values are under way, until `end`."""
        for co_id in fetch.ids:
            self._since.setdefault((fetch.member_id, co_id), trio.current_time())

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
        with trio.move_on_after(UNDER_WAY_SECONDS):
            while len(found):
                if (fetch := found.take(self.has)) is not None:
                    return fetch
                await self._over.park()
        return found.take()
