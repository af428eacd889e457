"""A map that forgets: what is old, what is too much, and what one host has too much of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    host: str
    expires_at: float
    size_bytes: int


class ExpiringMap(Generic[K, V]):
    """Values that live for a fixed time after they were set last.

    One host has at most `max_per_host` of them, and is refused more. When there are too many, or
    too many bytes, the oldest make room. `on_drop` is told each key that goes by itself.
    """

    def __init__(
        self,
        *,
        seconds: float,
        max_items: int,
        max_per_host: int,
        max_bytes: int,
        on_drop: Callable[[K], None] | None = None,
    ) -> None:
        self._seconds = seconds
        self._max_items = max_items
        self._max_per_host = max_per_host
        self._max_bytes = max_bytes
        self._on_drop = on_drop
        self._entries: dict[K, _Entry[V]] = {}  # in the order in which they expire
        self._per_host: Counter[str] = Counter()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def get(self, key: K, now: float) -> V | None:
        entry = self._entries.get(key)
        return None if entry is None or entry.expires_at <= now else entry.value

    def set(self, key: K, value: V, host: str, size_bytes: int, now: float) -> bool:
        """Keep a value that came from `host`. False: that host has too many already."""
        self.expire(now)
        before = self._entries.get(key)
        is_more = before is None or before.host != host
        if is_more and not self.has_room(host):
            return False
        self._forget(key)
        self._entries[key] = _Entry(value, host, now + self._seconds, size_bytes)
        self._per_host[host] += 1
        self.size_bytes += size_bytes
        while len(self._entries) > self._max_items or self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return True

    def has_room(self, host: str) -> bool:
        """Whether that host may have one more."""
        return self._per_host[host] < self._max_per_host

    def pop(self, key: K) -> V | None:
        """Take a value out; `on_drop` is not told."""
        return self._forget(key)

    def expire(self, now: float) -> None:
        """Drop what is too old."""
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key].expires_at > now:
                return
            self._drop(key)

    def _drop(self, key: K) -> None:
        self._forget(key)
        if self._on_drop is not None:
            self._on_drop(key)

    def _forget(self, key: K) -> V | None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.size_bytes -= entry.size_bytes
        self._per_host[entry.host] -= 1
        if not self._per_host[entry.host]:
            del self._per_host[entry.host]
        return entry.value
