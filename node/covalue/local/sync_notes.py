"""Who has what, noted in batches: 60 edits a second must not make 60 more commits.

Notes wait up to BATCH_SECONDS for others. Of one value and one peer the last note counts.

Source: cojson 0.20.19 UnsyncedCoValuesTracker.ts.
"""

from __future__ import annotations

from node.covalue.ids import RawCoId

ANY_PEER = "any"
"""Stands for whichever server comes: noted for values that no server is known for yet."""

BATCH_SECONDS = 0.2

MAX_NOTES = 10_000
"""Notes that may wait; with one more they are due at once."""

NoteKey = tuple[RawCoId, str]


class SyncNotes:
    """A machine: notes in, and at `deadline` a batch out."""

    def __init__(self) -> None:
        self._notes: dict[NoteKey, bool] = {}
        self._deadline: float | None = None

    def __len__(self) -> int:
        return len(self._notes)

    @property
    def deadline(self) -> float | None:
        """When the batch is due; None while nothing waits."""
        return self._deadline

    def add(self, co_id: RawCoId, peer_id: str, now: float, *, is_synced: bool) -> None:
        """Note whether the peer has all of the value."""
        self._notes[co_id, peer_id] = is_synced
        if len(self._notes) > MAX_NOTES:
            self._deadline = now
        elif self._deadline is None:
            self._deadline = now + BATCH_SECONDS

    def take(self) -> dict[NoteKey, bool]:
        """The batch, to be written now."""
        notes = self._notes
        self._notes = {}
        self._deadline = None
        return notes

    def put_back(self, notes: dict[NoteKey, bool], now: float) -> None:
        """The batch was not written; what was noted since takes precedence."""
        self._notes = notes | self._notes
        self._deadline = now + BATCH_SECONDS if self._notes else None

    def forget(self, co_id: RawCoId) -> None:
        """Drop all notes of a value."""
        self._notes = {key: note for key, note in self._notes.items() if key[0] != co_id}
        if not self._notes:
            self._deadline = None
