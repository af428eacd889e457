"""Values of which a client had been sent a part when its connection ended.

The first piece of a large value announces where the last one will end (`expectContentUntil`). A
cojson client that was told so claims all of it when it connects again, though it has a part: it
would wait for the rest for ever. So such a claim is doubted, and the last transaction of each of
these sessions is sent again. A client that has all takes it for a repetition; one that has not
answers with a correction, and gets the rest.

Source: cojson 0.20.19 coValueCore.ts knownStateWithStreaming, PeerState.ts sendLoadRequest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import KnownState, SessionCounts

MAX_COUNTERS = 50_000
"""Session counters that are remembered, about 10 MB; beyond it the oldest streams are forgotten."""


class Journal(Protocol):
    """Remembers what a crash would cut."""

    def begin(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """A client is about to be told of so much."""
        ...


class CutStreams:
    """What was announced of each value, to doubt clients that claim just that."""

    def __init__(self, max_counters: int = MAX_COUNTERS) -> None:
        self.journal: Journal | None = None
        self._announced: OrderedDict[RawCoId, SessionCounts] = OrderedDict()
        self._counters = 0
        self._max_counters = max_counters

    @property
    def announced(self) -> Mapping[RawCoId, SessionCounts]:
        """Where each would have ended, the one that was cut last at the end."""
        return self._announced

    def begin(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """A client is about to be told of so much, and may be cut before it has it."""
        if self.journal is not None:
            self.journal.begin(co_id, announced)

    def note(self, co_id: RawCoId, announced: SessionCounts) -> None:
        """A client that was told of so much has gone, and had not said that it has it."""
        # Another client may have been told of other sessions of it, or of more. One that was told
        # of less is sent what lies beyond, finds the gap, and says so.
        merged = dict(self._announced.get(co_id, {}))
        for session_id, count in announced.items():
            merged[session_id] = max(count, merged.get(session_id, 0))
        self._forget(co_id)
        self._announced[co_id] = merged
        self._counters += len(merged)
        while self._counters > self._max_counters:
            self._forget(next(iter(self._announced)))

    def _forget(self, co_id: RawCoId) -> None:
        self._counters -= len(self._announced.pop(co_id, ()))

    def doubt(self, co_id: RawCoId, claimed: KnownState) -> KnownState:
        """What to believe of a claim."""
        sessions = claimed.sessions
        doubted: dict[CoSessionId, int] = {
            session_id: count - 1
            for session_id, count in self._announced.get(co_id, {}).items()
            if sessions.get(session_id) == count > 0
        }
        return KnownState(claimed.header, {**sessions, **doubted}) if doubted else claimed
