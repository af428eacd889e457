"""The storage seam in memory: for tests, and for logs that need not outlive the process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from sortedcontainers import SortedDict  # type: ignore[import-untyped]  # it has no types

from hypercore.errors import StoreSuspended, UsageError
from hypercore.storage import READ_AHEAD_ITEMS, LastingBatch, WriteBatch


class MemoryBatch:
    """Remembers the changes to make."""

    __slots__ = ("changes", "is_used")

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes | None, bytes | None]] = []
        """(key, value, None) to put, (key, None, None) to delete, (start, None, stop) a range."""
        self.is_used = False

    @property
    def is_lost(self) -> bool:
        return False

    def put(self, key: bytes, value: bytes, /) -> None:
        self.changes.append((key, value, None))

    def delete(self, key: bytes, /) -> None:
        self.changes.append((key, None, None))

    def delete_range(self, start: bytes, stop: bytes, /) -> None:
        self.changes.append((start, None, stop))

    def settle(self) -> None:
        """Nothing to do: all of it waits here."""

    def close(self) -> None:
        if not self.is_used:
            self.is_used = True
            self.changes.clear()


class MemorySnapshot:
    """A copy of the map; the rows are shared."""

    def __init__(self, rows: SortedDict) -> None:
        self._rows: dict[bytes, bytes] = dict(rows)
        self.is_lost = False

    def get(self, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def close(self) -> None:
        self._rows.clear()


class MemoryStorage:
    """An ordered map; every commit is durable at once, for as long as the object lives."""

    def __init__(self) -> None:
        self._rows = SortedDict()
        self._sequence = 0
        self._is_suspended = False

    @property
    def is_read_only(self) -> bool:
        return False

    @property
    def why_read_only(self) -> str:
        return ""

    @property
    def is_suspended(self) -> bool:
        return self._is_suspended

    def _check(self) -> None:
        if self._is_suspended:
            raise StoreSuspended

    def get(self, key: bytes) -> bytes | None:
        self._check()
        value: bytes | None = self._rows.get(key)
        return value

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check()
        return [self._rows.get(key) for key in keys]

    def items(
        self, start: bytes, stop: bytes, limit: int | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        return islice(self._items(start, stop), limit)

    def _items(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        while True:
            self._check()
            keys: list[bytes] = []
            for key in self._rows.irange(start, stop, inclusive=(True, False)):
                keys.append(key)
                if len(keys) == READ_AHEAD_ITEMS:
                    break
            for key in keys:
                if (value := self._rows.get(key)) is not None:
                    yield key, value
            if len(keys) < READ_AHEAD_ITEMS:
                return
            start = keys[-1] + b"\x00"

    def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(self._rows)

    def batch(self) -> MemoryBatch:
        self._check()
        return MemoryBatch()

    def lasting_batch(self, rising: Sequence[bytes] = ()) -> MemoryBatch:
        return self.batch()

    def commit(self, batch: WriteBatch) -> int:
        self._check()
        if not isinstance(batch, MemoryBatch) or batch.is_used:
            raise UsageError("a batch is made by this storage, and committed once")
        batch.is_used = True
        rows = self._rows
        for key, value, stop in batch.changes:
            if value is not None:
                rows[key] = value
            elif stop is None:
                rows.pop(key, None)
            else:
                for doomed in list(rows.irange(key, stop, inclusive=(True, False))):
                    del rows[doomed]
        self._sequence += 1
        return self._sequence

    def commit_lasting(self, batch: LastingBatch) -> int:
        assert isinstance(batch, MemoryBatch)
        return self.commit(batch)

    @property
    def has_failed(self) -> bool:
        return False

    @property
    def durable_sequence(self) -> int:
        return self._sequence

    async def wait_durable(self, sequence: int) -> None:
        """Returns at once."""

    async def wait_writable(self) -> None:
        """Returns at once."""

    def recover(self) -> None:
        """Nothing ever fails."""

    async def reclaim(self) -> None:
        """Returns at once: what is deleted is garbage."""
        self._check()

    async def suspend(self) -> None:
        """Refuse everything until `resume`."""
        self._is_suspended = True

    async def resume(self) -> None:
        self._is_suspended = False

    def close(self) -> None:
        """Nothing to release."""
