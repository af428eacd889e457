"""Evidence kept of forked cores: so many pieces at most, and which of them give way to others.

Everybody can fork cores of their own, and whoever is a member can have this node hold some of them.
So a place goes first to cores that are known here (the data cores of members, mirrors); the others
share what is left by who told of them, as each member could fill all of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

MAX_FORKED_CORES = 256
"""Cores of which evidence is kept (at most 256 KiB each)."""


@dataclass(frozen=True, slots=True)
class ForkedCore:
    """A core whose writer signed two histories; `proof` convinces everybody."""

    key: bytes
    conflict: str
    proof: bytes


class ForkedCores:
    """The cores of which evidence is kept, by key, those kept first in front."""

    def __init__(self) -> None:
        self._kept: dict[bytes, ForkedCore] = {}
        self._told_by: dict[bytes, bytes | None] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def cores(self) -> list[ForkedCore]:
        return list(self._kept.values())

    @property
    def is_full(self) -> bool:
        return len(self) >= MAX_FORKED_CORES

    def giving_way(self, key: bytes, told_by: bytes | None, known: Set[bytes]) -> bytes | None:
        """The core whose evidence gives way to that of `key`, now that there is no place left.

        `told_by` is a member, or None for what was found here; `known` are the cores that matter
        here. None: the new evidence is not kept.
        """
        others = [kept for kept in self._kept if kept not in known]
        counts = Counter(self._told_by[kept] for kept in others)
        if key not in known:
            counts[told_by] += 1  # with the new one
        if not others:
            return None
        most = max(counts.values())
        if key not in known and counts[told_by] == most:
            return None  # it would take the place of another's, or of one of its own
        return next(kept for kept in reversed(others) if counts[self._told_by[kept]] == most)

    def add(self, core: ForkedCore, told_by: bytes | None) -> None:
        self._kept[core.key] = core
        self._told_by[core.key] = told_by

    def remove(self, key: bytes) -> None:
        del self._kept[key], self._told_by[key]
