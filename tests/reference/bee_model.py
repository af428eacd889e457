"""A bee as a list of dicts, one per version: slow, and obviously right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Stored = tuple[int, bytes | None]
"""Seq of the block that put it, and the value."""

Operation = tuple[bytes, bytes | None, bool]
"""Key, value, whether it is a deletion."""


@dataclass(frozen=True)
class Bounds:
    gt: bytes | None = None
    gte: bytes | None = None
    lt: bytes | None = None
    lte: bytes | None = None

    def contains(self, key: bytes) -> bool:
        above = key > self.gt if self.gt is not None else self.gte is None or key >= self.gte
        below = key < self.lt if self.lt is not None else self.lte is None or key <= self.lte
        return above and below


class BeeModel:
    """`versions[v]` is what the bee holds at version v; None inside a batch."""

    def __init__(self) -> None:
        self.versions: list[dict[bytes, Stored] | None] = [{}, {}]
        self.history: list[tuple[int, bytes, bytes | None, bool]] = []
        self.has_header = False

    @property
    def version(self) -> int:
        return len(self.versions) - 1

    @property
    def now(self) -> dict[bytes, Stored]:
        current = self.versions[-1]
        assert current is not None
        return current

    def apply(self, operations: Iterable[Operation]) -> None:
        """One put or delete, or one batch of them."""
        state = dict(self.now)
        first = self.version
        for key, value, is_deletion in operations:
            self.has_header = True
            if is_deletion and key not in state:
                continue
            seq = self.version
            if is_deletion:
                del state[key]
            else:
                state[key] = (seq, value)
            self.history.append((seq, key, None if is_deletion else value, is_deletion))
            self.versions.append(None)
        if self.version > first:
            self.versions[-1] = state

    def range(
        self, version: int, bounds: Bounds, *, reverse: bool = False, limit: int | None = None
    ) -> list[tuple[int, bytes, bytes | None]]:
        state = self.versions[version]
        assert state is not None
        keys = sorted((key for key in state if bounds.contains(key)), reverse=reverse)
        return [(state[key][0], key, state[key][1]) for key in keys][:limit]

    def diff(
        self, left: int, right: int, bounds: Bounds
    ) -> list[tuple[bytes, int | None, int | None]]:
        """Keys that differ, with the seq on either side."""
        one, other = self.versions[left], self.versions[right]
        assert one is not None
        assert other is not None
        rows = []
        for key in sorted(one.keys() | other.keys()):
            seqs = [side[key][0] if key in side else None for side in (one, other)]
            if bounds.contains(key) and seqs[0] != seqs[1]:
                rows.append((key, seqs[0], seqs[1]))
        return rows
