"""Bringing over what members were found to hold: from the best, else from the next.

What a value depends on (its group, the accounts of its authors) comes from the same member
first, so that the value can be verified when it is handed in. It comes even if it is denied:
without it nothing is kept of the value, and the member that announced it would seem not to have it.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import structlog
import trio

from node.covalue.content import Content
from node.covalue.dependencies import content_dependencies
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.mesh.acknowledgements import held_of, holds
from node.mesh.announcements import Announcements, Fetch, held_sessions
from node.mesh.content_door import ContentDoor, Receipt, stored_state
from node.mesh.fetch_report import FetchReport
from node.mesh.member import Member
from node.mesh.member_data import Cause, MemberDataError, Reading, Source
from node.mesh.messages import Sessions
from node.mesh.provenance import Provenance
from node.mesh.read_slots import ReadSlots
from node.mesh.replicas import ReplicaPolicy
from node.mesh.stalls import unless_stalled
from node.mesh.suspects import Suspects
from node.mesh.under_way import UnderWay
from node.mesh.unreadable import UnreadableValues

T = TypeVar("T")

MAX_DEPTH = 16
"""Levels of dependencies followed; what lies deeper the engine asks for by itself."""

MAX_DEPENDENCIES = 1024
"""Dependencies followed from one fetch, for the same reason."""

MAX_REFUSED_READINGS = 64
"""Readings of one value, 1 MiB each, that one fetch passes over: they may be a stranger's."""

SLOW_SECONDS = 10.0
"""A member that takes longer for 1 MiB, or less, gives way to others that have the value; twice as
long the next time, since that may be all that our line can do. What came of it is kept."""

MAX_REPORTS = 4096

MAX_BROUGHT = 256
"""Values of one call read at once: each has a task, and what it brings waits for the others."""

_log = structlog.get_logger(__name__)


class Screen(Protocol):
    """What fetching needs from `Screening`."""

    async def screen(
        self,
        member: Source,
        version: int,
        offered: Mapping[RawCoId, KnownState],
        /,
        *,
        is_asked: bool,
        failed: Callable[[RawCoId, float, MemberDataError], None],
    ) -> dict[RawCoId, KnownState]: ...
    def declines(self, co_id: RawCoId, /) -> bool: ...
    def note(self, co_id: RawCoId, member_id: bytes, reason: str, /) -> None: ...


class Origins(Protocol):
    """Notes from whom content comes, for those that have to tell others."""

    def note(self, member_id: bytes, contents: Iterable[Content], /) -> None: ...


class Fetcher:
    """Carries out fetches. `members` and `absent` are the mesh's own tables, by id."""

    def __init__(
        self,
        host: ContentDoor,
        members: Mapping[bytes, Member],
        policy: ReplicaPolicy,
        absent: Mapping[bytes, Source] | None = None,
    ) -> None:
        self._host = host
        self._members = members
        self._absent = {} if absent is None else absent
        self.policy = policy
        """May be replaced at any time."""
        self.pause_reason = ""
        """Why nothing is fetched; empty while values are."""
        self.screening: Screen | None = None
        """Decides about what the policy allows as far as ids tell."""
        self.provenance: Provenance | None = None
        self.origins: Origins | None = None
        self.under_way = UnderWay()
        self._slots = ReadSlots()
        self._unread: set[tuple[bytes, RawCoId]] = set()
        """Values that were not read from a member because reading failed."""
        self.unreadable = UnreadableValues()
        self._reports: OrderedDict[RawCoId, FetchReport] = OrderedDict()
        self.suspects = Suspects(self.read, host.receive_content, lambda: host.takes_content)

    def is_paused(self) -> bool:
        return bool(self.pause_reason)

    def report(self, co_id: RawCoId) -> FetchReport | None:
        """The last time this value was brought over, if that is not long ago."""
        return self._reports.get(co_id)

    async def fetch_all(self, found: Announcements, *, is_asked: bool = False) -> None:
        """Bring over everything announced there, as far as it verifies and comes.

        `is_asked` says that somebody waits for it. Members that announced what is durable here by
        then are told so.

        Cancel: what was stored stays.
        """
        while (fetch := await self.under_way.next_of(found)) is not None:
            self.under_way.begin(fetch)
            await self.fetch(found, fetch, is_asked=is_asked)

    async def fetch(self, found: Announcements, fetch: Fetch, *, is_asked: bool = False) -> None:
        """Carry out a fetch taken from `found`, as far as anything is lacking, and settle it.

        It is `under_way`, and over then. Cancel: what was stored stays.
        """
        try:
            await self._fetch(found, fetch, is_asked=is_asked)
        finally:
            self.under_way.end(fetch)

    async def _fetch(self, found: Announcements, fetch: Fetch, *, is_asked: bool) -> None:
        known = {co_id: await stored_state(self._host, co_id) for co_id in fetch.ids}
        lacking = found.narrow(fetch, {co_id: held_sessions(known[co_id]) for co_id in fetch.ids})
        self._acknowledge(found, known)
        if lacking is None:
            return
        delivery: _Delivery | None = None
        member: Source | None = self._members.get(fetch.member_id)
        member = member or self._absent.get(fetch.member_id)
        if member is not None and member.may_write:
            wanted = {
                co_id: known[co_id]
                for co_id in lacking.ids
                if self.policy.allows(co_id) and not self.unreadable.has(member.id, co_id)
            }
            if self.pause_reason:
                wanted = {}
                for co_id in lacking.ids:
                    self._note_not_taken(co_id, member, self.pause_reason)
            if wanted and self.screening is not None:
                failed = partial(self._read_failed, member)
                wanted = await self.screening.screen(
                    member, fetch.version, wanted, is_asked=is_asked, failed=failed
                )
            if wanted:
                delivery = _Delivery(self, member, fetch.version)
                delivery.whole = partial(self._settle, found, lacking, delivery)
                delivery.times_slow = partial(found.times_slow, member.id)
                await delivery.bring(wanted)
        left = {*lacking.ids}
        if delivery is not None:
            left -= delivery.settled | delivery.slow
            if delivery.slow:
                self.under_way.was_slow(fetch.member_id)
            found.postpone(lacking, delivery.slow)
        await self._settle(found, lacking, delivery, left)

    async def _settle(
        self, found: Announcements, fetch: Fetch, delivery: _Delivery | None, ids: Set[RawCoId]
    ) -> None:
        """These of the fetch are over, for better or worse."""
        part = replace(fetch, ids=tuple(co_id for co_id in fetch.ids if co_id in ids))
        known = {co_id: await stored_state(self._host, co_id) for co_id in ids}
        found.settle(part, {co_id: held_sessions(known[co_id]) for co_id in ids})
        self._acknowledge(found, known, delivery)
        self.under_way.end(part)

    def _acknowledge(
        self,
        found: Announcements,
        known: Mapping[RawCoId, KnownState],
        delivery: _Delivery | None = None,
    ) -> None:
        """Tell members what became of what they announced; what they did not show is counted."""
        for settled in found.take_settled():
            member = self._members.get(settled.member_id)
            if member is None:
                continue
            held = held_sessions(known.get(settled.co_id, NOTHING))
            if not self.policy.allows(settled.co_id):
                member.owe(settled.co_id, None)
            elif held is not None and holds(held, settled.sessions):
                member.owe(settled.co_id, held_of(held, settled.sessions))
                if settled.was_tried:
                    member.conduct.note_delivered(1)
                else:
                    member.conduct.note_true(1, trio.current_time())
            elif self._is_declined(member, settled.co_id):
                member.owe(settled.co_id, None)
            elif not self._takes_content:
                member.compare_again()
            elif (
                settled.was_tried
                and delivery is not None
                and delivery.has_shown(settled.co_id, settled.sessions)
            ):
                member.owe(settled.co_id, None)  # refused for reasons of our own
                member.conduct.note_delivered(1)
            elif settled.was_tried and (member.id, settled.co_id) not in self._unread:
                member.conduct.note_undelivered(trio.current_time())
                member.judge()
            self._unread.discard((member.id, settled.co_id))

    def _is_declined(self, member: Source, co_id: RawCoId) -> bool:
        """Whether a value is not taken from there, by a decision or because it cannot be read."""
        declines = self.screening is not None and self.screening.declines(co_id)
        return declines or self.unreadable.has(member.id, co_id)

    @property
    def _takes_content(self) -> bool:
        """Whether there is room here: then what does not come is missing for another reason."""
        return not self.pause_reason and self._host.takes_content

    async def bring(
        self, source: Source, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState]
    ) -> None:
        """Bring over what a source holds of these beyond what is known, without asking it.

        Cancel: what was stored stays.
        """
        for start in range(0, len(ids), MAX_BROUGHT):
            wanted: dict[RawCoId, KnownState] = {}
            for co_id in ids[start:][:MAX_BROUGHT]:
                if self.policy.allows(co_id) and not self.unreadable.has(source.id, co_id):
                    wanted[co_id] = known.get(co_id) or await stored_state(self._host, co_id)
            if wanted and self.screening is not None:
                failed = partial(self._read_failed, source)
                wanted = await self.screening.screen(
                    source, 0, wanted, is_asked=True, failed=failed
                )
            if wanted and source.may_write and not self.pause_reason:
                await _Delivery(self, source, 0).bring(wanted)

    async def receive(self, member: Source, contents: Sequence[Content]) -> Receipt:
        """Hand in what a member's bee held."""
        if self.origins is not None:
            self.origins.note(member.id, contents)
        start = 0 if self.provenance is None else self.provenance.length
        receipt = await self._host.receive_content(f"member {member.id.hex()}", contents)
        member.refused += len(receipt.refused)
        for co_id, reason in receipt.refused.items():
            self._note_not_taken(co_id, member, f"refused: {reason}")
        if self.provenance is not None:
            taken = {content.co_id for content in contents} - receipt.refused.keys()
            self.provenance.note(member.id, taken, start)
        return receipt

    async def are_forked(self, co_id: RawCoId, sessions: Collection[CoSessionId]) -> bool:
        return await self._host.forks.are_forked(co_id, sessions)

    async def is_held(self, co_id: RawCoId) -> bool:
        return (await stored_state(self._host, co_id)).header

    async def read(
        self,
        member: Source,
        co_id: RawCoId,
        known: KnownState,
        version: int,
        patience_seconds: float = math.inf,
    ) -> tuple[Reading, float] | None:
        """Read one value from a member, and how many seconds it took; None when that failed.

        Raises: trio.TooSlowError when it takes longer than `patience_seconds`.
        """
        started = trio.current_time()
        data = member.data
        if data is None or self.unreadable.has(member.id, co_id):
            return None
        async with self._slots.of(member.id):
            try:
                with trio.fail_after(patience_seconds):
                    reading = await unless_stalled(data, lambda: data.read(co_id, known, version))
            except MemberDataError as error:
                self._read_failed(member, co_id, started, error)
                return None
        return reading, trio.current_time() - started

    def _read_failed(
        self, source: Source, co_id: RawCoId, started: float, error: MemberDataError
    ) -> None:
        """A member did not deliver, which need not be its fault: it is read again.

        What this node cannot read is not read again, and no fault, unless there is no end of it.
        """
        cause = error.cause
        if cause is Cause.VALUE:
            if self.unreadable.has(source.id, co_id):
                return
            if self.unreadable.add(source.id, co_id):
                _log.warning("cannot read a value", member=source.id.hex(), error=str(error))
                self._note_not_taken(co_id, source, f"it cannot be read: {error}")
                return
            cause = Cause.CONTENT
        source.failures += 1
        live = self._members.get(source.id)
        if live is source and live.close_reason is None:
            self._unread.add((source.id, co_id))
            live.read_failed(started, cause)

    def _note_not_taken(self, co_id: RawCoId, source: Source, reason: str) -> None:
        if self.screening is not None:
            self.screening.note(co_id, source.id, reason)

    def note(self, co_id: RawCoId, report: FetchReport) -> None:
        """Remember a report, unless another read of the same value brought the blocks before."""
        if not report.blocks and co_id in self._reports:
            return
        self._reports.pop(co_id, None)
        self._reports[co_id] = report
        if len(self._reports) > MAX_REPORTS:
            self._reports.popitem(last=False)


class _Delivery:
    """One fetch on its way: what was followed already, and what it took."""

    def __init__(self, fetcher: Fetcher, member: Source, version: int) -> None:
        self._fetcher = fetcher
        self._member = member
        self._version = version
        self.whole: Callable[[Set[RawCoId]], Awaitable[None]] | None = None
        """Told of values that were taken, as long as others beside them are not whole yet."""
        self.settled: set[RawCoId] = set()
        self.times_slow: Callable[[RawCoId], int | None] = lambda _: None
        """How often the member was slow with a value that others have, too."""
        self.slow: set[RawCoId] = set()
        """Values that others have, and for which, or what they need, the member takes too long."""
        self._wanted: set[RawCoId] = set()
        self._coming: set[RawCoId] = set()
        """Of these what was read the last time; others failed, or are over."""
        self._seen: set[RawCoId] = set()
        self._shown: dict[RawCoId, KnownState] = {}
        """How far values go with what was read of them, where an honest member may hold that."""
        self._refused: Counter[RawCoId] = Counter()
        """How often nothing was taken of what was read."""
        self._left_unread: set[RawCoId] = set()
        """Values whose beginning was not taken here, so that no more was read."""

    def has_shown(self, co_id: RawCoId, sessions: Sessions) -> bool:
        """Whether the member has shown that it holds so much."""
        shown = held_sessions(self._shown.get(co_id, NOTHING))
        return co_id in self._left_unread or holds(shown, sessions)

    async def bring(self, wanted: Mapping[RawCoId, KnownState], depth: int = 0) -> FetchReport:
        """Read what lies beyond these known states and hand it in, dependencies before."""
        self._seen.update(wanted)
        if not depth:
            self._wanted = {*wanted}
        total = nothing = FetchReport(self._member.id, 0, 0, 0, 0.0)
        pending = dict(wanted)
        while pending:
            readings = await self._read_all(pending)
            contents = [content for reading, _ in readings.values() for content in reading.contents]
            if not contents:
                break
            if not depth:
                self._coming = {*readings}
            level = await self._bring_dependencies(contents, depth)
            wave = nothing
            for co_id, (reading, seconds) in readings.items():
                report = FetchReport(
                    self._member.id, reading.blocks, reading.bytes, reading.round_trips, seconds
                )
                wave = wave.beside(report)
                own = report.then(level) if len(wanted) == 1 else report
                self._note(co_id, own, is_first=pending[co_id] == wanted[co_id])
            total = total.then(wave).then(level)
            receipt = await self._fetcher.receive(self._member, contents)
            if readings.keys() - receipt.refused.keys():
                self._fetcher.under_way.came(self._member.id, self._coming - {*receipt.refused})
            passed_over: set[RawCoId] = set()
            waiting = [co_id for co_id in readings if co_id in receipt.waiting]
            # Values may wait for groups that came with them, and those for accounts.
            for co_id in [*(readings.keys() - waiting), *waiting, *waiting]:
                reading, _ = readings[co_id]
                if await self._may_be_held(co_id, reading, receipt):
                    self._shown[co_id] = reading.reached(self._shown.get(co_id, pending[co_id]))
                    if co_id in receipt.refused and not reading.is_complete:
                        may_pass = await self._passes_over(co_id)
                        (passed_over if may_pass else self._left_unread).add(co_id)
            pending = {
                co_id: reached
                for co_id, (reading, _) in readings.items()
                if not reading.is_complete
                and co_id not in self.slow
                and (co_id not in receipt.refused or co_id in passed_over)
                and (reached := reading.reached(pending[co_id])) != pending[co_id]
            }
            if self.whole is not None and not depth and pending:
                left_out = receipt.refused.keys() | receipt.doubtful.keys() | {*receipt.waiting}
                taken = readings.keys() - pending.keys() - left_out - self.settled
                self.settled |= taken
                await self.whole(taken)
        return total

    async def _passes_over(self, co_id: RawCoId) -> bool:
        """Whether more is read of a value though nothing was taken of what was read.

        A stranger without the right to write may have written that, and others what follows.
        """
        self._refused[co_id] += 1
        return self._refused[co_id] < MAX_REFUSED_READINGS and await self._fetcher.is_held(co_id)

    async def _may_be_held(self, co_id: RawCoId, reading: Reading, receipt: Receipt) -> bool:
        """Whether a member that means well may hold what it showed, though it is not taken here.

        It may have other rules than this node, and may have heard first of the other of two
        continuations. What its values depend on it must have, as far as it was asked for that.
        """
        if not reading.contents:
            return False
        if co_id in receipt.doubtful:
            sessions = receipt.doubtful[co_id]
            if await self._fetcher.are_forked(co_id, sessions):
                return True
            await self._fetcher.suspects.look_into(self._member, co_id, self._version)
            return await self._fetcher.are_forked(co_id, sessions)
        if co_id not in receipt.waiting:
            return True
        needed = content_dependencies(reading.contents)
        lacking = [other for other in needed if not await self._fetcher.is_held(other)]
        return all(
            other in self._shown
            or other not in self._seen
            or self._fetcher.unreadable.has(self._member.id, other)
            for other in lacking
        )

    def _note(self, co_id: RawCoId, report: FetchReport, *, is_first: bool) -> None:
        earlier = None if is_first else self._fetcher.report(co_id)
        self._fetcher.note(co_id, report if earlier is None else earlier.then(report))

    async def _read_all(
        self, wanted: Mapping[RawCoId, KnownState]
    ) -> dict[RawCoId, tuple[Reading, float]]:
        readings: dict[RawCoId, tuple[Reading, float]] = {}

        async def read(co_id: RawCoId, known: KnownState) -> None:
            held_up = [co_id] if co_id in self._wanted else self._wanted - self.settled
            times = [times for key in held_up if (times := self.times_slow(key)) is not None]
            patience_seconds = SLOW_SECONDS * 2 ** max(times) if times else math.inf
            try:
                reading = await self._fetcher.read(
                    self._member, co_id, known, self._version, patience_seconds
                )
            except trio.TooSlowError:
                self.slow.update(held_up)
                return
            if reading is not None:
                readings[co_id] = reading

        if len(wanted) == 1:
            for co_id, known in wanted.items():
                await read(co_id, known)
            return readings
        async with trio.open_nursery() as nursery:
            for co_id, known in wanted.items():
                nursery.start_soon(read, co_id, known)
        return readings

    async def _bring_dependencies(self, contents: Sequence[Content], depth: int) -> FetchReport:
        lacking: dict[RawCoId, KnownState] = {}
        if depth < MAX_DEPTH:
            for co_id in content_dependencies(contents):
                if len(self._seen) >= MAX_DEPENDENCIES:
                    break
                if co_id not in self._seen and not await self._fetcher.is_held(co_id):
                    self._seen.add(co_id)
                    lacking[co_id] = NOTHING
        if not lacking:
            return FetchReport(self._member.id, 0, 0, 0, 0.0)
        return await self.bring(lacking, depth + 1)
