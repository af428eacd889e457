"""What `Mesh.sync_state` tells, gathered from the parts of the mesh that know it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from node.mesh.announced import AnnouncedValues
from node.mesh.fetch import Fetcher
from node.mesh.follow import CatchUp
from node.mesh.member import Member
from node.mesh.mesh_host import MeshHost
from node.mesh.own_interest import OwnInterest
from node.mesh.recall import Recall
from node.mesh.safekeeping import Safekeeping
from node.mesh.sync_state import MemberSync, Obstacle, SyncState

MAX_AWAITED = 100
"""Values waited for of which it is looked up who wants them."""


class InStep:
    """How far this node and its members are."""

    def __init__(
        self,
        host: MeshHost,
        members: Mapping[bytes, Member],
        interest: OwnInterest,
        announced: AnnouncedValues,
        fetcher: Fetcher,
        catch_up: CatchUp,
        safekeeping: Safekeeping,
        recall: Recall,
    ) -> None:
        """`members` is the mesh's own table, by id."""
        self._host = host
        self._members = members
        self._interest = interest
        self._announced = announced
        self._fetcher = fetcher
        self._catch_up = catch_up
        self._keeping = safekeeping
        self._recall = recall

    def state(self) -> SyncState:
        """At this moment."""
        keeping, copies = self._keeping, self._host.copies
        return SyncState(
            held=self._host.store.count(),
            missing=len(self._announced),
            min_copies=copies.min_copies,
            waiting=copies.held_back,
            members=tuple(self._member(member) for member in self._members.values()),
            logs_kept=len(keeping.kept()) if keeping.is_keeper else None,
            unkept=self.unkept,
        )

    @property
    def unkept(self) -> int:
        """How many values clients wait for that too few members want; `MAX_AWAITED` at most."""
        copies = self._host.copies
        selections = [
            member.session.selection for member in self._members.values() if not member.is_frozen
        ]
        return sum(
            sum(selection.matches(co_id) for selection in selections) < copies.min_copies - 1
            for co_id in islice(copies.awaited, MAX_AWAITED)
        )

    def _obstacle(self, member: Member) -> Obstacle:
        """Why what it holds has not been wholly compared with what we want."""
        if not self._recall.is_settled:
            return Obstacle.RECOVERING
        if self._fetcher.pause_reason:
            return Obstacle.PAUSED
        if member.acknowledgements.is_compared:
            return Obstacle.NOT_LISTED
        return Obstacle.NONE

    def _member(self, member: Member) -> MemberSync:
        about, said = member.statistics(), member.acknowledgements
        missing = self._announced.open_of(member.id)
        # A blind node, or one that takes nothing by its rule, has nothing to compare.
        is_keeper, takes = self._keeping.is_keeper, member.direction.takes
        is_compared = (said.is_compared and member.session.is_listed) or is_keeper or not takes
        length, merged = about.length, None
        if is_keeper and takes:
            length, merged = self._keeping.kept_of(member)
        elif self._interest.policy.everything:
            merged = self._catch_up.merged(about.key).length
            if is_compared and not missing:
                merged = length  # what came since was announced, and is here
        return MemberSync(
            id=about.id.hex(),
            name=about.name,
            is_frozen=member.is_frozen,
            is_compared=is_compared,
            missing=missing,
            undelivered=member.conduct.undelivered,
            acknowledges=said.is_spoken,
            unacknowledged=said.unacknowledged,
            is_partial=said.is_partial,
            declined=said.declined,
            length=length,
            merged=merged,
            ours=said.told_length,
            merged_there=said.merged_there if member.session.selection.everything else None,
            blocks_fetched=about.blocks_fetched,
            bytes_fetched=about.bytes_fetched,
            obstacle=Obstacle.NONE if is_compared else self._obstacle(member),
        )
