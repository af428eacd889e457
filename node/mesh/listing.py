"""Telling a member of all that it follows and that is held here, once it says what it follows.

An update tells what moves. A member that begins to follow a prefix or an owner also wants what does
not move: each value held is announced as if it had just moved, at the pace at which the member
takes it. What it has already, as the counts say, it does not read. Then it is told that this was
all (`Listed`): before, it cannot know that it is in step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from math import inf
from typing import Protocol

from node.covalue.ids import RawCoId
from node.mesh.follow_rules import PREFIX, OwnerRule, first_match, read_patterns
from node.mesh.messages import Interest
from node.mesh.owners import OwnerTable
from swarm.io.tasks import Wakeup

MAX_WAITING_UPDATES = 4096
"""Values listed that may wait to be sent."""

LISTED_AT_ONCE = 64

RETRY_SECONDS = 10.0
MAX_RETRY_SECONDS = 600.0
"""When to list again where a part could not be read: it may have been mended by then."""


class ValueIds(Protocol):
    """What is needed of a store."""

    def ids(self, prefix: str = "", after: str = "") -> AsyncIterator[RawCoId]: ...


class Listing:
    """The patterns of which a member was not told yet."""

    def __init__(self) -> None:
        self.wake = Wakeup()
        self.retry_seconds = inf
        """How long until what could not be listed is listed again; longer each time."""

        self._standing: frozenset[str] = frozenset()
        self._due: frozenset[str] = frozenset()
        self._taken: frozenset[str] = frozenset()

    def note(self, interest: Interest) -> None:
        """The member is interested in this now."""
        patterns = interest.followed
        self._due = (self._due | (patterns - self._standing)) & patterns
        self._standing = patterns
        if self._due:
            self.wake.set()

    def take(self) -> tuple[tuple[str, ...], frozenset[OwnerRule]]:
        """Prefixes and owners that are due; they count as done. A full replica has none."""
        due, self._due = self._due, frozenset()
        self._taken = due
        prefixes = tuple(
            text.removeprefix(f"{PREFIX}:") for text in sorted(due) if text.startswith(PREFIX)
        )
        return prefixes, read_patterns(due)

    def failed(self) -> None:
        """What was taken is due once more, as far as the member still follows it."""
        self._due |= self._taken & self._standing
        longer = RETRY_SECONDS if self.retry_seconds == inf else 2 * self.retry_seconds
        self.retry_seconds = min(longer, MAX_RETRY_SECONDS)

    def succeeded(self) -> None:
        self.retry_seconds = inf


async def matching_ids(
    store: ValueIds, table: OwnerTable, prefixes: tuple[str, ...], owners: frozenset[OwnerRule]
) -> AsyncGenerator[list[RawCoId], None]:
    """Ids of values held here that begin so or are owned so, a few at a time; some perhaps twice.

    For owners, every value is looked at.

    Raises: CorruptStore. Cancel: undoes nothing.
    """
    for prefix in prefixes:
        part: list[RawCoId] = []
        async for co_id in store.ids(prefix):
            part.append(co_id)
            if len(part) >= LISTED_AT_ONCE:
                yield part
                part = []
        yield part
    if not owners:
        return
    part = []
    async for co_id in store.ids():
        part.append(co_id)
        if len(part) >= LISTED_AT_ONCE:
            yield await _owned(table, owners, part)
            part = []
    yield await _owned(table, owners, part)


async def _owned(
    table: OwnerTable, rules: frozenset[OwnerRule], ids: list[RawCoId]
) -> list[RawCoId]:
    await table.resolve(ids)
    return [co_id for co_id in ids if first_match(rules, co_id, table.of(co_id) or ())]
