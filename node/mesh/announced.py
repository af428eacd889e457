"""[trio] Values that members announced, until they are here."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from node.covalue.ids import RawCoId
from node.mesh.announcements import Announcements, Fetch
from node.mesh.fetch import Fetcher
from node.mesh.messages import Sessions
from node.mesh.recall import Recall
from node.mesh.under_way import UNDER_WAY_SECONDS
from swarm.io.tasks import Wakeup

MAX_FETCHES = 8
"""Fetches of announced values at the same time; each has up to 32 values of one member. A member
has two full ones at most."""


class AnnouncedValues:
    """Fetches what is lacking of them here, from a member that has it, in the background."""

    def __init__(self, fetcher: Fetcher, recall: Recall, settled: trio.lowlevel.ParkingLot) -> None:
        """`settled` is woken after each fetch; none begins before our own data core is whole."""
        self._fetcher = fetcher
        self._recall = recall
        self._settled = settled
        self._open = Announcements()
        self._arrived = Wakeup()
        fetcher.under_way.ended = self._arrived.set

    def __len__(self) -> int:
        """Values that are not looked into, or not fetched, yet."""
        return len(self._open)

    def open_of(self, member_id: bytes) -> int:
        """As `Announcements.open_of`."""
        return self._open.open_of(member_id)

    def announce(
        self, member_id: bytes, version: int, claims: Iterable[tuple[RawCoId, Sessions]]
    ) -> bool:
        """As `Announcements.announce`; what is lacking is fetched soon."""
        has_room = self._open.announce(member_id, version, claims)
        self._arrived.set()
        return has_room

    def forget_member(self, member_id: bytes) -> None:
        """As `Announcements.forget_member`."""
        self._open.forget_member(member_id)

    async def run(self) -> None:
        """Fetch, `MAX_FETCHES` at a time, until cancelled."""
        await self._recall.wait_settled()
        room, under_way = trio.Semaphore(MAX_FETCHES), self._fetcher.under_way

        async def carry_out(fetch: Fetch) -> None:
            await self._fetcher.fetch(self._open, fetch)
            room.release()
            self._arrived.set()
            self._settled.unpark_all()

        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(UNDER_WAY_SECONDS):
                    await self._arrived.wait()
                await room.acquire()
                while (fetch := under_way.take(self._open)) is not None:
                    under_way.begin(fetch)
                    nursery.start_soon(carry_out, fetch)
                    await room.acquire()
                room.release()
                if self._open.is_giving_way:
                    self._arrived.set()
                    await trio.lowlevel.checkpoint()
