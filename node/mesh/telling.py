"""[trio] Telling members which values moved here, and those that ask late what moved before."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import merge_counts
from node.mesh.member import Member
from node.mesh.mesh_host import MeshHost
from node.mesh.messages import Interest
from node.mesh.owners import OwnerTable
from node.mesh.trust import Trust

MAX_RECENT = 8192
"""Values that moved last (about 3 MB). Who is interested in one of them hears of it even if the
word of that interest came after the change."""


class Telling:
    """`members` is the mesh's own table, by id."""

    def __init__(
        self,
        host: MeshHost,
        members: Mapping[bytes, Member],
        trust: Trust,
        owners: OwnerTable,
    ) -> None:
        self._host = host
        self._members = members
        self._trust = trust
        self._owners = owners
        self._recent: dict[RawCoId, dict[CoSessionId, int]] = {}
        """How far values have got that moved last, those that moved first before the others."""

    def tell_recent(self, member: Member, interest: Interest) -> None:
        """What moved shortly before it said so is announced now: it has not heard of that."""
        recent = self._recent
        if interest.added:
            recent = {co_id: recent[co_id] for co_id in interest.added if co_id in recent}
        elif not interest.everything:
            return
        if self._trust.may_write and not member.queue_update(recent):
            member.carry_out(member.session.close("it does not read its updates"))

    async def run(self) -> None:
        """Tell of all that waits at a wake-up together, until cancelled."""
        feed = self._host.changes()
        while True:
            moved = dict(await feed.receive_many())
            self._remember(moved)
            if not self._trust.may_write:
                continue  # nobody would take it
            members = [member for member in self._members.values() if member.direction.gives]
            if any(member.session.selection.owners for member in members):
                await self._owners.resolve(moved)
            for member in members:
                if not member.queue_update(moved):
                    member.carry_out(member.session.close("it does not read its updates"))

    def _remember(self, moved: Mapping[RawCoId, Mapping[CoSessionId, int]]) -> None:
        recent = self._recent
        for co_id, counts in moved.items():
            merged = recent.pop(co_id, {})
            merge_counts(merged, counts)
            recent[co_id] = merged
        for co_id in list(islice(recent, max(0, len(recent) - MAX_RECENT))):
            del recent[co_id]
