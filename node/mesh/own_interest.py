"""[trio] What this node wants to hear of, and telling each member so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import trio

from node.covalue.ids import RawCoId
from node.mesh.member import Member
from node.mesh.mesh_host import MeshHost
from node.mesh.replicas import ReplicaPolicy

INTEREST_SECONDS = 0.02
"""Members are told of changed interest once in this time at most; with a query, at once."""


class OwnInterest:
    """What is kept for good, by the policy, and what clients have open now."""

    def __init__(
        self,
        host: MeshHost,
        members: Mapping[bytes, Member],
        policy: ReplicaPolicy,
        is_blind: Callable[[], bool],
    ) -> None:
        """`members` is the mesh's own table, by id.

        A blind node wants no values: members would wait for it to say that it has them.
        """
        self.policy = policy
        self._host = host
        self._members = members
        self._is_blind = is_blind

    def tell(self, member: Member) -> None:
        """Bring what a member knows of our interest up to date: none, if nothing of it is taken."""
        self._tell(member, self._single_ids())

    def _single_ids(self) -> frozenset[RawCoId]:
        """To be looked up once for all members: each id takes time."""
        if self.policy.everything:
            return frozenset()  # `everything` covers them
        return self.policy.select(self._host.wanted_ids())

    def _tell(self, member: Member, wanted: frozenset[RawCoId]) -> None:
        policy = self.policy
        if not (member.direction.takes and member.may_write) or self._is_blind():
            policy, wanted = ReplicaPolicy(), frozenset()
        member.carry_out(member.session.tell_interest(policy, wanted))

    def ask_for_listing(self, member: Member) -> None:
        """Have the member tell once more of all that we follow."""
        wanted = self._single_ids()
        if not self._is_blind():
            policy = replace(self.policy, prefixes=(), owners=frozenset())
            member.carry_out(member.session.tell_interest(policy, wanted))
        self._tell(member, wanted)

    async def run(self) -> None:
        """Tell members when the interest changes, until cancelled; a tenth of the time at most."""
        pause = INTEREST_SECONDS
        while True:
            await self._host.wait_interest_changed()
            await trio.sleep(pause)
            if not self._members:
                continue  # those that come later are told all of it
            started = trio.current_time()
            wanted = self._single_ids()
            for member in list(self._members.values()):
                self._tell(member, wanted)
            pause = max(INTEREST_SECONDS, 9 * (trio.current_time() - started))
