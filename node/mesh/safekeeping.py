"""Data cores of members that are away: kept by blind members, read by all others.

A blind member of an encrypted mesh fetches the data cores of all writers, of which it can read
nothing, and serves them. Each writer *introduces* itself with a signature that ties its data core
to its id; a keeper of the core passes the introduction on. So a reader that never met the writer
knows whose core that is, judges that member by its grant, and reads the core as if it were here.

A blind member does not learn what is read, either: it is asked for blocks by their numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

import structlog
import trio

from hypercore.core import Core
from hypercore.crypto import KeyPair
from hypercore.downloading import LIVE
from hypercore.encoding import DecodeError
from hypercore.errors import CoreFrozen, StorageError, StorageFailed, UsageError
from node.covalue.ids import RawCoId
from node.covalue.known_state import KnownState
from node.mesh.fetch import Fetcher
from node.mesh.follow import CatchUp, CoreData
from node.mesh.member import MAX_INTRODUCTIONS, Member
from node.mesh.member_cores import DataCores, open_data_core
from node.mesh.member_data import MemberData
from node.mesh.messages import Sessions, Welcome
from node.mesh.ticket import Role
from node.mesh.trust import Trust
from node.mesh.trust_messages import Introduction, split_introductions
from node.mesh.turns import wait_turn
from swarm.io.tasks import open_background_nursery

FIND_SECONDS = 5.0
"""How long a value is looked for in the data of those who are away."""

HEAD_SECONDS = 1.0
"""How long the head of such a core may take to arrive, once somebody offers it."""

JUDGED_SECONDS = 0.5
"""How long after new grants introductions that failed are looked at again: many grants come at
a time."""

RETRY_SECONDS = 10.0
"""How long after our disk failed such a core is read again, unless there is room sooner."""

MAX_NAMED = MAX_INTRODUCTIONS - 256
"""Writers that a keeper names to each that comes: as many as are listened to, and room for those
that introduce themselves meanwhile."""

LOOKED_AT = 1024
"""Missing blocks that are looked at, to see whether anybody has them."""

_UNREADABLE = (CoreFrozen, StorageError, trio.ClosedResourceError)
"""What waiting for such a core ends with: its writer signed two histories, our disk failed, or the
core was purged here."""

_log = structlog.get_logger(__name__)


class AbsentMember:
    """A writer whose core is read from those who keep it."""

    may_write = True

    def __init__(self, introduction: Introduction, core: Core) -> None:
        self.id = introduction.member
        self.introduction = introduction
        self.core = core
        self.data: MemberData | None = CoreData(core, hints=False)
        self.refused = 0
        self.failures = 0

    def note_holdings(self, holdings: Sequence[tuple[RawCoId, Sessions | None]]) -> None:
        """Does nothing: the member is not here to be counted on."""

    def owe_merged(self, length: int) -> None:
        """Does nothing: the member is not here to be told."""


class Safekeeping:
    """What this node keeps for others, and reads of others who are away."""

    def __init__(
        self,
        trust: Trust,
        members: Mapping[bytes, Member],
        data_key: bytes,
        name: str,
        *,
        identity: KeyPair | None,
        wanted: Callable[[], Iterable[RawCoId]],
        keeps_all: Callable[[], bool],
        wait_settled: Callable[[], Awaitable[None]],
    ) -> None:
        """No core is read until `wait_settled` returns: our own log may not be whole before."""
        self.absent: dict[bytes, AbsentMember] = {}
        """By id; the core of a member that is connected is not read from its keepers."""
        self._stand_ins: dict[bytes, list[AbsentMember]] = {}  # one for each connected keeper
        self._kept: dict[Member, Core] = {}  # of writers that are connected, by a blind node
        self._trust = trust
        self._members = members
        self._data_key = data_key
        self._name = name
        self._identity = identity
        self._wanted = wanted
        self._keeps_all = keeps_all
        self._wait_settled = wait_settled
        self._heard = trio.lowlevel.ParkingLot()
        self._is_paused = False
        self._turned = trio.lowlevel.ParkingLot()

    @property
    def is_keeper(self) -> bool:
        """Whether this node is a blind one."""
        return self._trust.is_blind

    def kept(self) -> dict[bytes, tuple[int, int | None]]:
        """Blocks [start, stop) that are not to be given up, by the key of their core: all."""
        if not self.is_keeper:
            return {}
        keys = [met.key for met in self._trust.book if met.introduction]
        return {bytes.fromhex(key): (0, None) for key in keys}

    def pause(self) -> None:
        """Ask for no blocks until `resume`; what is here is served."""
        self._is_paused = True
        self._turned.unpark_all()

    def resume(self) -> None:
        self._is_paused = False
        self._turned.unpark_all()

    async def serve(
        self, member: Member, core: Core, cores: DataCores, fetcher: Fetcher, catch_up: CatchUp
    ) -> None:
        """Keep what a member has, and read what it keeps for others, until cancelled."""
        if not self._trust.membership.is_encrypted:
            return
        self._tell(member, [*self._own_introduction(), *self._kept_introductions()])
        seen: set[tuple[bytes, bytes]] = set()
        unknown: dict[tuple[bytes, bytes], Introduction] = {}
        again: deque[Introduction] = deque()
        async with trio.open_nursery() as nursery:
            if self.is_keeper:
                nursery.start_soon(self._keep_of_writer, member, core)
            if not self._trust.may_write:
                nursery.start_soon(self._introduce_later, member)
            nursery.start_soon(self._look_again, member, unknown, again)
            while True:
                await member.gossip.arrived.wait()
                while waiting := again or member.gossip.introductions:
                    introduction = waiting.popleft()
                    claim = (introduction.member, introduction.data_key)
                    if claim in seen or len(seen) >= MAX_INTRODUCTIONS:
                        continue
                    if introduction.member == member.id:
                        seen.add(claim)  # once: all others are told of it
                        self._note_own(member, introduction)
                        continue
                    started = member.stopwatch()
                    is_wanted, is_new = self._is_wanted(introduction), True
                    if is_wanted:
                        seen.add(claim)
                        about = (introduction, cores, fetcher, catch_up)
                        is_new = await nursery.start(self._stand_in, *about)
                    if is_new and waiting is not again:  # else records from others made us look
                        seconds = member.stopwatch() - started
                        member.conduct.effort.spend(seconds, trio.current_time())
                    if not is_wanted and len(unknown) < MAX_INTRODUCTIONS:
                        unknown[claim] = introduction
                    if is_new:
                        await wait_turn(member)
                member.gossip.is_heard = True
                self._heard.unpark_all()

    async def _look_again(
        self,
        member: Member,
        unknown: dict[tuple[bytes, bytes], Introduction],
        again: deque[Introduction],
    ) -> None:
        """Look again at what failed: what lets a member write may come after its introduction."""
        while True:
            await self._trust.wait_judged()
            await trio.sleep(JUDGED_SECONDS)
            again.extend(unknown.values())
            unknown.clear()
            member.gossip.arrived.set()

    async def find(
        self, ids: Sequence[RawCoId], known: Mapping[RawCoId, KnownState], fetcher: Fetcher
    ) -> None:
        """Bring over what members that are away hold of these values.

        Cancel: what was stored stays.
        """
        with trio.move_on_after(HEAD_SECONDS):
            while self._is_awaited:
                await self._heard.park()
        with trio.move_on_after(FIND_SECONDS):
            async with trio.open_nursery() as nursery:
                for absent in self._away():
                    nursery.start_soon(self._find_in, absent, ids, known, fetcher)

    @property
    def may_find(self) -> bool:
        """Whether there is any point in `find`."""
        return bool(self.absent) or self._is_awaited

    @property
    def _is_awaited(self) -> bool:
        """Whether a keeper has just come, and has not said whose cores it keeps."""
        return not self.is_keeper and any(
            member.role is Role.BLIND and not member.gossip.is_heard
            for member in self._members.values()
        )

    async def _find_in(
        self,
        absent: AbsentMember,
        ids: Sequence[RawCoId],
        known: Mapping[RawCoId, KnownState],
        fetcher: Fetcher,
    ) -> None:
        with suppress(*_UNREADABLE):
            with trio.move_on_after(HEAD_SECONDS):
                await absent.core.wait_length(1)
            await fetcher.bring(absent, ids, known)

    def _away(self) -> list[AbsentMember]:
        return [
            absent
            for absent in self.absent.values()
            if absent.id not in self._members and not absent.core.is_frozen
        ]

    def _own_introduction(self) -> list[Introduction]:
        """Ours, if anything that we write is taken."""
        membership = self._trust.membership
        if self._identity is None or not self._trust.may_write:
            return []
        about = (self._data_key, self._name, membership.grant)
        return [Introduction.issue(membership.key, self._identity, *about)]

    async def _introduce_later(self, member: Member) -> None:
        """Tell it who we are once an admin has made us a writer."""
        while not self._trust.may_write:
            await self._trust.wait_judged()
        self._tell(member, self._own_introduction())

    def _kept_introductions(self) -> list[Introduction]:
        """Introductions of members whose cores we keep, of those that were here last."""
        kept: list[Introduction] = []
        if self.is_keeper:
            for met in self._trust.book:
                with suppress(DecodeError, ValueError):
                    if met.introduction:
                        kept.append(Introduction.decode_bytes(bytes.fromhex(met.introduction)))
        return kept[-MAX_NAMED:]

    def _note_own(self, member: Member, introduction: Introduction) -> None:
        """A member introduces itself: whoever keeps its core tells the others."""
        welcome = member.welcome
        if (
            not self.is_keeper
            or welcome is None
            or introduction.data_key != welcome.data_key
            or not introduction.is_signed(self._trust.membership.key)
        ):
            return
        self._trust.keep_introduction(introduction)
        for other in self._members.values():
            if other is not member:
                self._tell(other, [introduction])

    def _is_wanted(self, introduction: Introduction) -> bool:
        return (
            introduction.data_key != self._data_key
            and self._is_writer(introduction)
            and introduction.is_signed(self._trust.membership.key)
        )

    def _is_writer(self, introduction: Introduction) -> bool:
        role = self._trust.judge(introduction.member, introduction.grant)
        return role is not None and role.may_write

    async def _stand_in(
        self,
        introduction: Introduction,
        cores: DataCores,
        fetcher: Fetcher,
        catch_up: CatchUp,
        *,
        task_status: trio.TaskStatus[bool] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Read, or keep, the core of somebody else while its keeper is connected.

        Started, it says whether this is the first word of that core.
        """
        data_key = self._trust.membership.data_key
        try:
            key = introduction.data_key
            met = self._trust.book.get(introduction.member.hex())
            is_proven = met is not None and met.key == key.hex()
            core = await open_data_core(cores, key, data_key, is_proven=is_proven)
        except (StorageError, UsageError) as error:
            _log.warning(
                "kept core not opened", id=introduction.member.hex()[:12], error=str(error)
            )
            task_status.started(True)
            return
        try:
            if self.is_keeper:
                self._trust.keep_introduction(introduction)
                task_status.started(not core.length)
                await self._keep(core)
                return
            absent = AbsentMember(introduction, core)
            self._enter(absent)
            task_status.started(not core.length)
            try:
                while True:
                    await self._read_while_writer(absent, fetcher, catch_up)
                    while not self._is_writer(introduction):
                        await self._trust.wait_judged()
                    self._enter(absent)
            except _UNREADABLE as error:
                _log.warning(
                    "kept core not read any more", id=absent.id.hex()[:12], error=str(error)
                )
        finally:
            core.release()

    def _enter(self, absent: AbsentMember) -> None:
        """From now on the member's core may be read from this keeper."""
        self._stand_ins.setdefault(absent.id, []).append(absent)
        self.absent[absent.id] = absent

    def kept_of(self, member: Member) -> tuple[int, int]:
        """How long a writer's core is, and how much of it is kept here, as far as it can be had.

        What its writer gave up can be had from nobody.
        """
        core, welcome = self._kept.get(member), member.welcome
        if welcome is None or not member.may_write:
            return 0, 0
        length = max(welcome.length, member.session.announced_length)
        if core is None:
            return length, 0
        missing = core.length - core.bitfield.count(0, core.length)
        peers = core.replication.statistics().peers
        is_busy = any(peer.requests_in_flight for peer in peers)
        if missing and not is_busy and all(map(core.replication.nobody_has, _first_missing(core))):
            missing = 0
        return max(length, core.length), core.length - missing

    def _leave(self, absent: AbsentMember) -> None:
        """Its keeper went, though another may be here; or nothing of it is taken any more."""
        others = self._stand_ins[absent.id]
        others.remove(absent)
        if others:
            self.absent[absent.id] = others[-1]
        else:
            del self._stand_ins[absent.id], self.absent[absent.id]

    async def _read_while_writer(
        self, absent: AbsentMember, fetcher: Fetcher, catch_up: CatchUp
    ) -> None:
        """As `_read_while_kept`, until an admin says otherwise or its grant runs out."""
        try:
            async with open_background_nursery() as nursery:

                async def watch() -> None:
                    while self._is_writer(absent.introduction):
                        await self._trust.wait_judged()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                await self._read_while_kept(absent, fetcher, catch_up)
        finally:
            self._leave(absent)

    async def _read_while_kept(
        self, absent: AbsentMember, fetcher: Fetcher, catch_up: CatchUp
    ) -> None:
        """As `_read_along`, and again when our disk has failed, once it may work."""
        await self._wait_settled()
        while True:
            with suppress(StorageFailed):
                await self._read_along(absent, fetcher, catch_up)
            with trio.move_on_after(RETRY_SECONDS):
                await self._turned.park()
            while self._is_paused:
                await self._turned.park()

    async def _read_along(self, absent: AbsentMember, fetcher: Fetcher, catch_up: CatchUp) -> None:
        """Bring over what is wanted, now and whenever the core has grown, until cancelled."""
        about = absent.introduction
        length = 0
        while True:
            await absent.core.wait_length(length + 1)
            length = absent.core.length
            if absent.id in self._members:
                continue  # it says itself what it has
            if self._keeps_all():
                welcome = Welcome(about.data_key, length, about.name, "", about.grant, ())
                await catch_up.run(absent, welcome)
            await fetcher.bring(absent, sorted(self._wanted()), {})

    async def _keep_of_writer(self, member: Member, core: Core) -> None:
        """As `_keep`, from when the member may write."""
        while not member.may_write:
            await member.needs_catching_up.wait()
        self._kept[member] = core
        try:
            await self._keep(core)
        finally:
            del self._kept[member]

    async def _keep(self, core: Core) -> None:
        """Fetch all of a core, and what is appended, until cancelled; nothing while paused."""
        while True:
            while self._is_paused:
                await self._turned.park()
            async with core.downloading(0, LIVE):
                while not self._is_paused:
                    await self._turned.park()

    def _tell(self, member: Member, introductions: Sequence[Introduction]) -> None:
        for kept in split_introductions(introductions):
            member.carry_out(member.session.tell(kept))


def _first_missing(core: Core) -> Iterator[int]:
    """Some blocks that are not here: more than are found missing at once while it is fetched."""
    index = -1
    for _ in range(LOOKED_AT):
        index = core.bitfield.first_unset(index + 1)
        if index >= core.length:
            return
        yield index
