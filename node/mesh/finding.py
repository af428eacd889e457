"""[trio] Asking all members at once who holds what, and bringing it over from the best."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import trio

from node.covalue.content import Content
from node.covalue.ids import RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.announcements import held_sessions
from node.mesh.content_door import ContentDoor, stored_state
from node.mesh.copy_questions import FIRST_SECONDS, CopyQuestions
from node.mesh.fetch import Fetcher
from node.mesh.inquiry import Inquiry
from node.mesh.member import Member
from node.mesh.mesh_host import MeshHost
from node.mesh.messages import MAX_QUERY_IDS, Sessions
from node.mesh.recall import Recall
from node.mesh.safekeeping import Safekeeping
from node.mesh.session import ANSWER_SECONDS

MAX_INQUIRIES = 16
"""Questions that are out at the same time, each of at most 2,000 ids; what is asked meanwhile
waits and goes out together. So a member has at most 48 queries of ours to answer (of 64)."""


class Finder:
    """`members` is the mesh's own table, by id; `changed` is woken when somebody comes or goes."""

    def __init__(
        self,
        host: ContentDoor,
        members: Mapping[bytes, Member],
        fetcher: Fetcher,
        safekeeping: Safekeeping,
        nursery: trio.Nursery,
        changed: trio.lowlevel.ParkingLot,
    ) -> None:
        self._host = host
        self._members = members
        self._fetcher = fetcher
        self._safekeeping = safekeeping
        self._nursery = nursery
        self.changed = changed
        self._inquiries = trio.CapacityLimiter(MAX_INQUIRIES)
        self._next_inquiry: Inquiry | None = None
        self._joins = 0
        self._last_departure = -math.inf
        self.found = 0
        """Ids asked for by `find` that somebody claimed to hold."""
        self.absent = 0

    def joined(self, member: Member, earlier: Member | None) -> None:
        """A member is in the table now, in the place of an earlier connection if there was one.

        What the earlier one was asked, and has not answered, is asked again.
        """
        self._joins += 1
        repeats = earlier is not None and member.direction.takes
        for inquiry in earlier.open_inquiries if earlier is not None and repeats else ():
            inquiry.sent(member.ask(inquiry))

    def departed(self) -> None:
        """A member went; it may be about to come back."""
        self._last_departure = trio.current_time()

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Mapping[RawCoId, Sequence[Content]]:
        """Ask all members; what they have is handed to the host before this returns.

        So the contents in the result are empty: an id is in it when somebody claimed to hold it.
        Members have a second to answer; then this takes as long as blocks keep coming.

        Cancel: the question is withdrawn; what was stored stays.
        """
        result: dict[RawCoId, Sequence[Content]] = {}
        if self._fetcher.pause_reason:
            return result
        for start in range(0, len(ids), MAX_QUERY_IDS):
            part = [
                co_id for co_id in ids[start:][:MAX_QUERY_IDS] if self._fetcher.policy.allows(co_id)
            ]
            result.update((co_id, ()) for co_id in await self._find(part, known))
        self.found += len(result)
        self.absent += len(ids) - len(result)
        return result

    async def _find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> set[RawCoId]:
        """The ids that somebody claimed to hold.

        A member that goes while it is asked or read, or has just gone, may be about to come
        back: nodes that dial each other hang up on one of two connections. For a second its
        return is waited for, and it is asked again.
        """
        started = trio.current_time()
        claimed: set[RawCoId] = set()
        missing = list(ids)
        while missing:
            joins = self._joins
            if self._members:
                inquiry = await self._inquire(missing, known)
                found = await inquiry.wait_enough(missing)
                claimed.update(co_id for co_id in missing if co_id in found)
                await self._fetcher.fetch_all(found, is_asked=True)
                missing = [
                    co_id
                    for co_id in missing
                    if co_id not in claimed or not await self._fetcher.is_held(co_id)
                ]
            if missing and self._safekeeping.may_find:
                await self._safekeeping.find(missing, known, self._fetcher)
                found_here = [co_id for co_id in missing if await self._fetcher.is_held(co_id)]
                claimed.update(found_here)
                missing = [co_id for co_id in missing if co_id not in claimed]
            if self._last_departure < started - ANSWER_SECONDS:
                break
            with trio.move_on_at(started + ANSWER_SECONDS) as patience:
                while missing and self._joins == joins:
                    await self.changed.park()
            if patience.cancelled_caught:
                break
        return claimed

    async def ask_holders(self, co_id: RawCoId) -> Mapping[bytes, Sessions]:
        """Which connected members hold a value, and how much of it; at most a second.

        Cancel: the answers are not waited for.
        """
        inquiry = Inquiry()
        inquiry.wanted[co_id] = None
        members = [member for member in self._members.values() if member.direction.takes]
        inquiry.sent(sum(member.ask(inquiry) for member in members))
        with trio.move_on_after(ANSWER_SECONDS):
            await inquiry.wait_complete()
        return inquiry.holders(co_id)

    async def ask_copies(self, ids: Iterable[RawCoId]) -> None:
        """Ask all members how much of these they hold, and fetch what is not here.

        Members have a second to answer; then this takes as long as blocks keep coming.
        Cancel: the question is withdrawn; what was stored stays.
        """
        inquiry = Inquiry()
        for co_id in ids:
            inquiry.wanted[co_id] = held_sessions(await stored_state(self._host, co_id))
        members = list(self._members.values())
        inquiry.sent(sum(member.ask(inquiry, counts_copies=True) for member in members))
        await inquiry.wait_complete()
        await self._fetcher.fetch_all(await inquiry.wait_enough(inquiry.wanted))

    async def _inquire(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> Inquiry:
        """Join the question that goes out next."""
        while (inquiry := self._next_inquiry) is not None and not inquiry.has_room:
            await inquiry.wait_sent()
        if inquiry is None:
            inquiry = self._next_inquiry = Inquiry()
            self._nursery.start_soon(self._run_inquiry, inquiry)
        for co_id in ids:
            inquiry.wanted[co_id] = held_sessions(known.get(co_id, NOTHING))
        return inquiry

    async def _run_inquiry(self, inquiry: Inquiry) -> None:
        """Ask everybody; while many questions are out, further ids gather for the next."""
        async with self._inquiries:
            self._next_inquiry = None
            queries = 0
            asked = [
                member
                for member in self._members.values()
                if member.direction.takes and member.may_write
            ]
            best = min(asked, key=_distance, default=None)
            for member in asked:
                member.carry_out(member.session.add_interest(inquiry.wanted))
                queries += member.ask(inquiry, wants_push=member is best)
            inquiry.sent(queries)
            await inquiry.wait_complete()


async def count_copies(host: MeshHost, recall: Recall, finder: Finder) -> None:
    """While somebody waits for copies of values, ask who holds these; until cancelled.

    Members acknowledge what is announced to them by themselves: this is for what they were
    not told of, or heard of before we started.
    """
    await recall.wait_settled()
    questions = CopyQuestions()
    while True:
        wanted = await host.wait_copies_wanted()
        if asked := questions.take(wanted, trio.current_time()):
            await finder.ask_copies(asked)
        with trio.move_on_after(FIRST_SECONDS) as pause:
            await finder.changed.park()
        if not pause.cancelled_caught:
            questions.begin_anew(trio.current_time())


def _distance(member: Member) -> tuple[bool, float]:
    """The less, the better a source of blocks: it had what we asked for, and is near."""
    return not member.has_shown_values, member.session.last_round_trip_seconds or 0.0
