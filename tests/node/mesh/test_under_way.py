"""What is being fetched from whom."""

from __future__ import annotations

from typing import cast

import trio
import trio.testing

from node.mesh.announced import AnnouncedValues
from node.mesh.announcements import LOOKS, Announcements, Fetch
from node.mesh.fetch import Fetcher
from node.mesh.recall import Recall
from node.mesh.under_way import UnderWay
from tests.node.mesh.samples import co_id, session_id

ALICE = b"alice"
CLAIMS = [(co_id(number), {session_id(1): 1}) for number in range(3 * LOOKS)]


async def test_much_that_only_a_slow_member_has_is_found_to_be_had_from_it() -> None:
    under_way, found = UnderWay(), Announcements()
    found.announce(ALICE, 10, CLAIMS)
    under_way.was_slow(ALICE)
    fetch = await under_way.next_of(found)
    assert fetch is not None
    assert fetch.member_id == ALICE


class Fetches:
    """In place of a fetcher: brings everything at once."""

    def __init__(self) -> None:
        self.under_way = UnderWay()
        self.ids = 0

    async def fetch(self, found: Announcements, fetch: Fetch) -> None:
        self.ids += len(fetch.ids)
        self.under_way.end(fetch)
        found.settle(fetch, {key: {session_id(1): 1} for key in fetch.ids})

    async def wait_settled(self) -> None: ...


async def test_what_members_announced_is_fetched_though_they_are_slow(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    fetches, settled = Fetches(), trio.lowlevel.ParkingLot()
    announced = AnnouncedValues(cast(Fetcher, fetches), cast(Recall, fetches), settled)
    fetches.under_way.was_slow(ALICE)
    announced.announce(ALICE, 10, CLAIMS)
    nursery.start_soon(announced.run)
    await trio.testing.wait_all_tasks_blocked()
    assert fetches.ids == len(CLAIMS)
    assert len(announced) == 0
    assert trio.current_time() == 0
