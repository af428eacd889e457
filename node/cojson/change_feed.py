"""What has become durable, for whoever passes it on: merged per value, so that it stays small."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping

import trio

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import SessionCounts, merge_counts

MAX_CHANGED_VALUES = 65_536
"""Values that may wait; beyond them the oldest is left out, for comparison to find."""

Change = tuple[RawCoId, Mapping[CoSessionId, int]]


class ChangeFeeds:
    """All feeds that were opened: each is told of what moves from then on."""

    def __init__(self) -> None:
        self._feeds: list[ChangeFeed] = []

    def open(self) -> ChangeFeed:
        feed = ChangeFeed()
        self._feeds.append(feed)
        return feed

    def add(self, co_id: RawCoId, counts: SessionCounts) -> None:
        for feed in self._feeds:
            feed.add(co_id, counts)


class ChangeFeed:
    """(id, counts of the sessions that moved), oldest first; each goes to one receiver."""

    def __init__(self) -> None:
        self.left_out = 0
        """Changes that did not fit: catching up by comparison finds them."""
        self._changes: OrderedDict[RawCoId, dict[CoSessionId, int]] = OrderedDict()
        self._filled = trio.Event()

    def add(self, co_id: RawCoId, counts: SessionCounts) -> None:
        merge_counts(self._changes.setdefault(co_id, {}), counts)
        if len(self._changes) > MAX_CHANGED_VALUES:
            self._changes.popitem(last=False)
            self.left_out += 1
        self._filled.set()

    async def _wait_filled(self) -> None:
        while not self._changes:
            if self._filled.is_set():  # else others wait for this event
                self._filled = trio.Event()
            await self._filled.wait()

    async def receive(self) -> Change:
        """The next change.

        Cancel: no change is lost.
        """
        await self._wait_filled()
        return self._changes.popitem(last=False)

    async def receive_many(self) -> list[Change]:
        """All changes that wait, at least one.

        Cancel: no change is lost.
        """
        await self._wait_filled()
        changes: list[Change] = list(self._changes.items())
        self._changes.clear()
        return changes

    def __aiter__(self) -> AsyncIterator[Change]:
        return self

    async def __anext__(self) -> Change:
        return await self.receive()
