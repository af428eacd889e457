"""[trio] Telling members which values moved here, and late ones what moved just before.

What clients of this node changed is told at once to all that are interested; what a member brought
is told in brief to those that hear from that member, too (`hearsay`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import islice
from math import inf

import trio

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import merge_counts
from node.mesh.hearsay import FIRST_SECONDS, SECOND_SECONDS, Origins, ShortNames
from node.mesh.hearsay_messages import Brief, HearsayMessage, Neighbors, Unclear, difference
from node.mesh.member import Member
from node.mesh.mesh_host import MeshHost
from node.mesh.messages import Interest, Sessions, Update
from node.mesh.own_log import OwnReplication
from node.mesh.owners import OwnerTable
from node.mesh.trust import Trust
from swarm.io.tasks import Wakeup

MAX_RECENT = 8192
"""Values that moved last (about 3 MB). A member interested in one of them hears of it even if the
word of that interest came after the change."""

TELL_SECONDS = 5e-6
"""What it takes to announce one of them again: the member's share of our time pays for that."""

ANNOUNCE_SECONDS = 0.5
"""How long others may not hear that our log has grown by what came from members: those that have it
from its origin do not read it here. What is told in full is announced with it."""

NEIGHBOR_SECONDS = 0.1
"""Members are told who else is one once in this time at most: several often come together."""


class Telling:
    """`members` is the mesh's own table, by id; `changed` is woken when somebody comes or goes.

    `note_moved` is told which values moved.
    """

    def __init__(
        self,
        id: bytes,
        replication: OwnReplication,
        host: MeshHost,
        members: Mapping[bytes, Member],
        trust: Trust,
        owners: OwnerTable,
        changed: trio.lowlevel.ParkingLot,
        note_moved: Callable[[Collection[RawCoId]], None],
    ) -> None:
        self._id = id
        self._replication = replication
        self._host = host
        self._members = members
        self._trust = trust
        self._owners = owners
        self._changed = changed
        self._note_moved = note_moved
        self._recent: dict[RawCoId, dict[CoSessionId, int]] = {}
        """How far the values have got that moved last, in the order in which they moved."""
        self.origins = Origins()
        self._names = ShortNames()
        self._brief_queued = Wakeup()

    def greet(self, member: Member) -> None:
        """A member is in the table: it hears now of what it said earlier to be interested in."""
        selection = member.session.selection
        if member.direction.gives:
            self.tell_recent(member, Interest(selection.everything, tuple(selection.ids)))

    def tell_recent(self, member: Member, interest: Interest) -> None:
        """Announce what moved shortly before a member said that it follows this."""
        recent = self._recent
        if interest.added:
            recent = {co_id: recent[co_id] for co_id in interest.added if co_id in recent}
        elif not interest.everything:
            return
        if self._trust.may_write and recent:
            _queue(member, recent)
            member.conduct.effort.spend(len(recent) * TELL_SECONDS, trio.current_time())

    async def run(self) -> None:
        """Tell members what they are to know, until cancelled."""
        settings = replace(self._replication.settings, announce_delay_seconds=ANNOUNCE_SECONDS)
        self._replication.configure(settings)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            nursery.start_soon(self._tell_in_brief)
            nursery.start_soon(self._tell_neighbors)

    async def _tell(self) -> None:
        """Tell, at each wake-up, of all that waits together."""
        feed = self._host.changes()
        while True:
            moved = dict(await feed.receive_many())
            self._remember(moved)
            self._note_moved(moved)
            if self._members:  # what nobody hears of needs no short name
                self._names.note(moved)
            if not self._trust.may_write:
                continue  # nobody would take it
            members = [member for member in self._members.values() if member.direction.gives]
            if any(member.session.selection.owners for member in members):
                await self._owners.resolve(moved)
            parts = self.origins.split(moved)
            if None in parts:  # else it is announced soon: those told in brief have it by then
                self._replication.announce()
            for origin, changes in parts.items():
                for member in members:
                    if member.hearsay.hears(origin):
                        self._queue_brief(member, changes)
                    else:
                        _queue(member, changes)

    def _queue_brief(self, member: Member, changes: Mapping[RawCoId, Sessions]) -> None:
        patience = FIRST_SECONDS if self._id < member.id else SECOND_SECONDS
        if not member.outbox.queue_brief(changes, trio.current_time() + patience):
            _close(member)
        self._brief_queued.set()

    async def _tell_in_brief(self) -> None:
        """Say what was left for later when its time has come."""
        while True:
            due_at = min((member.hearsay.due_at for member in self._members.values()), default=inf)
            with trio.move_on_at(due_at):
                await self._brief_queued.wait()
                continue
            now = trio.current_time()
            for member in list(self._members.values()):
                if member.hearsay.due_at <= now:
                    member.outbox.tell_in_brief()

    async def _tell_neighbors(self) -> None:
        """Tell members from whom else this node hears."""
        while True:
            self._tell_new_neighbors()  # a call of its own: no local keeps alive those that went
            await self._changed.park()
            await trio.sleep(NEIGHBOR_SECONDS)

    def _tell_new_neighbors(self) -> None:
        heard = frozenset(
            member.id
            for member in self._members.values()
            if member.direction.takes and member.may_write and not member.is_frozen
        )
        for member in list(self._members.values()):
            hearsay = member.hearsay
            if hearsay.told is not None and not hearsay.is_spoken:
                continue  # an older node, which has no use for it
            first = [Neighbors()] if hearsay.told is None else []
            for message in [*difference(hearsay.told or frozenset(), heard)] or first:
                member.carry_out(member.session.mention(message))
            hearsay.told = heard

    def receive(self, member: Member, message: HearsayMessage) -> Update | None:
        """A member said something; returns an update if it holds more than is here."""
        match message:
            case Neighbors():
                member.hearsay.receive(message)
            case Unclear(names):
                self._explain(member, names)
            case Brief():
                return self._receive_brief(member, message)
        return None

    def _receive_brief(self, member: Member, brief: Brief) -> Update | None:
        held: dict[RawCoId, dict[CoSessionId, int]] = {}
        ahead: dict[RawCoId, dict[CoSessionId, int]] = {}
        unclear = []
        for name, count in brief.counts:
            found = self._names.find(name)
            if found is None and count:
                unclear.append(name)
            elif found is None:
                member.compare_again()  # the member does not know the name any more either
            else:
                co_id, session_id, ours = found
                held.setdefault(co_id, {})[session_id] = count
                if count > ours and member.may_write and member.session.wants(co_id):
                    ahead.setdefault(co_id, {})[session_id] = count
        member.note_holdings(list(held.items()))
        member.conduct.note_true(len(held) - len(ahead), trio.current_time())
        if unclear:
            member.carry_out(member.session.mention(Unclear(tuple(unclear))))
        return Update(brief.version, tuple(ahead.items())) if ahead else None

    def _explain(self, member: Member, names: tuple[bytes, ...]) -> None:
        """Tell in full what the member could not make out."""
        changes: dict[RawCoId, dict[CoSessionId, int]] = {}
        forgotten: list[tuple[bytes, int]] = []
        for name in names:
            found = self._names.find(name)
            if found is None:
                forgotten.append((name, 0))
            else:
                co_id, session_id, count = found
                changes.setdefault(co_id, {})[session_id] = count
        if not (member.direction.gives and self._trust.may_write):
            return
        _queue(member, changes)
        if forgotten:
            member.carry_out(member.session.mention(Brief(0, tuple(forgotten))))

    def _remember(self, moved: Mapping[RawCoId, Mapping[CoSessionId, int]]) -> None:
        recent = self._recent
        for co_id, counts in moved.items():
            merged = recent.pop(co_id, {})
            merge_counts(merged, counts)
            recent[co_id] = merged
        for co_id in list(islice(recent, max(0, len(recent) - MAX_RECENT))):
            del recent[co_id]


def _queue(member: Member, changes: Mapping[RawCoId, Sessions]) -> None:
    if not member.outbox.queue_update(changes):
        _close(member)


def _close(member: Member) -> None:
    member.carry_out(member.session.close("it does not read its updates"))
