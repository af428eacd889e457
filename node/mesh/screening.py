"""Whether what a member announces is taken, decided before any of its content is fetched.

What clients ask for and what is pinned is taken unless it is denied. Of what is only followed the
header is looked at (who owns it), and size and age where they are bounded: a few blocks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import trio

from node.covalue.ids import RawCoId, is_co_id
from node.covalue.known_state import KnownState
from node.mesh.member_data import MemberDataError, Source
from node.mesh.outline import Outline
from node.mesh.owners import OwnerTable, owner_in
from node.mesh.replicas import ReplicaPolicy

MAX_REFUSALS = 4096
"""Values of which is remembered why they were not taken; the oldest are forgotten."""

OUTLINE_SECONDS = 5.0
"""A member that takes longer to show so little is given up for this value."""


class Subscriptions(Protocol):
    def is_wanted(self, co_id: RawCoId, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class NotTaken:
    """Why the last offer of a value was not taken; `member_id` offered it."""

    reason: str
    member_id: bytes
    is_declined: bool
    """By a decision; else it could not be had, or did not verify."""


class _NotThere(Exception):
    """The member's data core was read, and holds no such value."""


class Screening:
    """Decides by `policy`, which may be replaced at any time."""

    def __init__(
        self, policy: ReplicaPolicy, subscriptions: Subscriptions, owners: OwnerTable
    ) -> None:
        self.policy = policy
        self._subscriptions = subscriptions
        self._owners = owners
        self._not_taken: OrderedDict[RawCoId, NotTaken] = OrderedDict()

    def not_taken(self, co_id: RawCoId) -> NotTaken | None:
        """Why a value was not taken, if it was offered not long ago."""
        return self._not_taken.get(co_id)

    def declines(self, co_id: RawCoId) -> bool:
        """Whether it was decided not to take the last offer of this."""
        not_taken = self._not_taken.get(co_id)
        return not_taken is not None and not_taken.is_declined

    def note(
        self, co_id: RawCoId, member_id: bytes, reason: str, *, is_declined: bool = False
    ) -> None:
        """Something kept a value from being taken."""
        self._not_taken.pop(co_id, None)
        self._not_taken[co_id] = NotTaken(reason, member_id, is_declined)
        if len(self._not_taken) > MAX_REFUSALS:
            self._not_taken.popitem(last=False)

    async def screen(
        self,
        member: Source,
        version: int,
        offered: Mapping[RawCoId, KnownState],
        *,
        is_asked: bool,
        failed: Callable[[RawCoId, float, MemberDataError], None],
    ) -> dict[RawCoId, KnownState]:
        """Those of the values offered that are to be read; `is_asked` when somebody waits for them.

        `failed` is told of those of which the header could not be read, and when that began.
        Cancel: nothing is changed.
        """
        taken: dict[RawCoId, KnownState] = {}

        async def judge(co_id: RawCoId) -> None:
            started = trio.current_time()
            try:
                reason = await self._objection(member, version, co_id, is_asked=is_asked)
            except MemberDataError as error:
                self.note(co_id, member.id, f"its header could not be read: {error}")
                failed(co_id, started, error)
                return
            except _NotThere:
                self.note(co_id, member.id, "it is not there, or its header is another's")
                return
            if reason is not None:
                self.note(co_id, member.id, reason, is_declined=True)
                return
            self._not_taken.pop(co_id, None)
            taken[co_id] = offered[co_id]

        if self._is_decided_by_ids(is_asked=is_asked):
            for co_id in offered:
                await judge(co_id)
        else:
            async with trio.open_nursery() as nursery:
                for co_id in offered:
                    nursery.start_soon(judge, co_id)
        return taken

    def _is_decided_by_ids(self, *, is_asked: bool) -> bool:
        """Whether nothing has to be read to decide."""
        policy = self.policy
        if policy.denied_owners:
            return False
        return is_asked or not (policy.is_bounded or policy.owners)

    async def _objection(
        self, member: Source, version: int, co_id: RawCoId, *, is_asked: bool
    ) -> str | None:
        """Raises: MemberDataError, _NotThere."""
        policy = self.policy
        denial = policy.denial(co_id)
        if denial is not None:
            return f"denied by {denial}"
        is_wanted = is_asked or co_id in policy.pinned or self._subscriptions.is_wanted(co_id)
        if is_wanted and not policy.denied_owners:
            return None
        if not is_wanted and not policy.follows:
            return None  # a late answer to a question: only single ids are asked for
        return await self._look(member, version, co_id, is_wanted=is_wanted)

    async def _look(
        self, member: Source, version: int, co_id: RawCoId, *, is_wanted: bool
    ) -> str | None:
        """Raises: MemberDataError, _NotThere."""
        policy = self.policy
        outline: Outline | None = None
        if policy.is_bounded and not is_wanted:
            outline = await self._outline(member, version, co_id)
        owners = await self._owners_of(member, version, co_id) if policy.needs_owners else ()
        denial = policy.denial(co_id, owners)
        if denial is not None:
            return f"denied by {denial}"
        if is_wanted:
            return None
        if policy.reason(co_id, owners) is None:
            return "no client asks for it, and no rule follows it"
        return None if outline is None else self._excess(outline)

    def _excess(self, outline: Outline) -> str | None:
        policy = self.policy
        most = policy.max_value_bytes
        if most is not None and outline.size_bytes > most:
            return f"too large: about {outline.size_bytes} bytes, at most {most} are followed"
        oldest, changed = policy.max_age_seconds, outline.changed_unix_ms
        if oldest is not None and changed is not None:
            age = time.time() - changed / 1000
            if age > oldest:
                return f"too old: changed {age:.0f} s ago, at most {oldest:.0f} s are followed"
        return None

    async def _outline(self, member: Source, version: int, co_id: RawCoId) -> Outline:
        """Raises: MemberDataError, also when it does not come; _NotThere."""
        data = member.data
        if data is None:
            raise MemberDataError("the member has gone")
        is_dated = self.policy.max_age_seconds is not None
        with trio.move_on_after(OUTLINE_SECONDS):
            outline = await data.outline(co_id, version, is_dated=is_dated)
            if outline is None:
                raise _NotThere
            self._owners.learn(co_id, outline.header)
            return outline
        raise MemberDataError(f"it did not come within {OUTLINE_SECONDS:g} s")

    async def _owners_of(self, member: Source, version: int, co_id: RawCoId) -> tuple[str, ...]:
        """A value's owner and the owner of that, found here, else there. Raises: as `_outline`."""
        owner = await self._owner_of(member, version, co_id)
        if not owner:
            return ()
        above = await self._owner_of(member, version, RawCoId(owner)) if is_co_id(owner) else ""
        return (owner, above) if above else (owner,)

    async def _owner_of(self, member: Source, version: int, co_id: RawCoId) -> str:
        owner = self._owners.owner(co_id)
        if owner is None:
            await self._owners.resolve([co_id])
            owner = self._owners.owner(co_id)
        if owner is None:
            owner = owner_in((await self._outline(member, version, co_id)).header)
        return owner
