"""How much of a log a power cut leaves: it may take commits that are not on the disk yet."""

from __future__ import annotations

from collections import deque

from hypercore.storage import Storage

_MAX_PENDING = 1024
"""Commits whose durability is told apart; with more, the last ones count as one."""


class DurableLength:
    """The part of one log that survives what its store's durability promises."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._durable = 0
        self._pending: deque[tuple[int, int]] = deque()  # (sequence, length), ascending

    def forget(self) -> None:
        """All that is here is on the disk, or is to be taken for that."""
        self._pending.clear()

    def note(self, length: int, sequence: int, length_before: int) -> None:
        """A commit with that sequence number took the log from `length_before` to `length`."""
        pending = self._pending
        if not pending:
            if sequence <= self._storage.durable_sequence:
                return
            self._durable = length_before
        elif len(pending) == _MAX_PENDING:
            pending.pop()
        pending.append((sequence, length))

    def note_cut(self, length: int, sequence: int) -> None:
        """A commit with that sequence number put another history of `length` blocks in place.

        A power cut before it is on the disk brings the old one back, so that nothing of the new
        one counts until then, though both begin with the same blocks.
        """
        self._pending.clear()
        self.note(length, sequence, -1)

    def of(self, length: int) -> int:
        """How many blocks are durable of a log that has `length` of them; -1: not even its fork."""
        pending = self._pending
        if not pending:
            return length
        durable = self._storage.durable_sequence
        while pending and pending[0][0] <= durable:
            self._durable = pending.popleft()[1]
        return min(self._durable, length) if pending else length

    def sequence_of(self, length: int) -> int | None:
        """The commit that must be durable for `length` to be; None if none is known."""
        for sequence, committed in self._pending:
            if committed >= length:
                return sequence
        return None
