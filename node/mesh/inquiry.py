"""One question put to all members: who answered what, and when that is enough."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import trio

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import merge_counts
from node.mesh.announcements import Announcements
from node.mesh.messages import MAX_QUERY_IDS, Sessions
from node.mesh.session import MAX_ANSWER_SECONDS

GRACE_SECONDS = 0.1
"""How long, once somebody holds a value, others may still say that they hold more of it."""


class Inquiry:
    """Collects the answers to queries that go out together; many may wait for parts of it."""

    def __init__(self, *, passes_on: bool = False) -> None:
        """With `passes_on`, nobody waits: all that comes counts as late."""
        self._passes_on = passes_on
        self.wanted: dict[RawCoId, Sessions | None] = {}
        self._claims: dict[RawCoId, dict[bytes, tuple[int, dict[CoSessionId, int]]]] = {}
        self._taken: set[RawCoId] = set()
        self._open_queries = 0
        self.is_answered = True
        """Whether no query was given up so far."""
        self._sent = trio.Event()
        self._changed = trio.Event()

    @property
    def has_room(self) -> bool:
        """Whether one more batch of ids can join before it is sent."""
        return len(self.wanted) <= MAX_QUERY_IDS

    @property
    def is_complete(self) -> bool:
        """Whether all members that were asked have answered, or were given up."""
        return self._sent.is_set() and self._open_queries == 0

    def sent(self, queries: int) -> None:
        """All members were asked, in that many queries."""
        self._open_queries += queries
        self._sent.set()
        self._notify()

    def query_ended(self, *, is_answered: bool) -> None:
        self._open_queries -= 1
        self.is_answered = self.is_answered and is_answered
        self._notify()

    def receive(
        self, member_id: bytes, version: int, values: Iterable[tuple[RawCoId, Sessions | None]]
    ) -> list[tuple[RawCoId, Sessions]]:
        """An answer; returns what came too late for whoever asked."""
        late: list[tuple[RawCoId, Sessions]] = []
        for co_id, sessions in values:
            if sessions is None or co_id not in self.wanted:
                continue
            if self._passes_on or co_id in self._taken:
                late.append((co_id, sessions))
                continue
            claims = self._claims.setdefault(co_id, {})
            _, earlier = claims.get(member_id, (0, {}))
            claims[member_id] = (version, merge_counts(earlier, sessions))
        self._notify()
        return late

    def holders(self, co_id: RawCoId) -> dict[bytes, Sessions]:
        """The members that claimed to hold it before it was taken, and how much of it."""
        claims = self._claims.get(co_id, {})
        return {member_id: sessions for member_id, (_, sessions) in claims.items()}

    async def wait_sent(self) -> None:
        """Return when no more ids can join. Cancel: undoes nothing."""
        await self._sent.wait()

    async def wait_complete(self) -> None:
        """Return when nobody is left to answer. Cancel: undoes nothing."""
        while not self.is_complete:
            await self._changed.wait()

    async def wait_enough(self, ids: Collection[RawCoId]) -> Announcements:
        """Wait until all have answered, or every id was found; then take what was claimed.

        At most `MAX_ANSWER_SECONDS`. Once all were found, those that have more get `GRACE_SECONDS`.

        Cancel: nothing is taken.
        """
        await self._sent.wait()
        with trio.move_on_after(MAX_ANSWER_SECONDS):
            while not self.is_complete and not all(co_id in self._claims for co_id in ids):
                await self._changed.wait()
            with trio.move_on_after(GRACE_SECONDS):
                await self.wait_complete()
        return self._take(ids)

    def _take(self, ids: Iterable[RawCoId]) -> Announcements:
        found = Announcements()
        for co_id in ids:
            self._taken.add(co_id)
            claims: Mapping[bytes, tuple[int, Sessions]] = self._claims.get(co_id, {})
            for member_id, (version, sessions) in claims.items():
                found.announce(member_id, version, [(co_id, sessions)])
        return found

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
