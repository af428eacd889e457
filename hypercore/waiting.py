"""[trio] Tasks that wait for blocks, and the lock of the one writer."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType

import trio

from hypercore.errors import SnapshotNotAvailable, UsageError


class BlockWaiter:
    """One call that waits for one or more blocks; has them in `found` when woken."""

    __slots__ = ("_event", "failure", "found", "known_length", "missing")

    def __init__(self, indices: Iterable[int], known_length: int) -> None:
        self.missing = set(indices)
        self.known_length = known_length
        """The log's length when this began: blocks below it are of the history of that time."""
        self.found: dict[int, bytes] = {}
        self.failure: Exception | None = None
        self._event = trio.Event()

    @property
    def is_over(self) -> bool:
        """Whether `wait` would return, or raise, at once."""
        return self._event.is_set()

    def _arrived(self, index: int, block: bytes) -> None:
        self.missing.discard(index)
        self.found[index] = block
        if not self.missing:
            self._event.set()

    def _fail(self, error: Exception) -> None:
        self.failure = error
        self._event.set()

    async def wait(self) -> dict[int, bytes]:
        """The blocks, as they are stored.

        Raises: what `BlockWaiters.fail` was given. Cancel: undoes nothing; discard the waiter then.
        """
        await self._event.wait()
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # others raise it, too
        return self.found


class BlockWaiters:
    """The waiters for blocks of one core, by block."""

    def __init__(self) -> None:
        self._by_index: dict[int, list[BlockWaiter]] = {}

    def __bool__(self) -> bool:
        return bool(self._by_index)

    def add(self, indices: Iterable[int], known_length: int) -> BlockWaiter:
        waiter = BlockWaiter(indices, known_length)
        for index in waiter.missing:
            self._by_index.setdefault(index, []).append(waiter)
        return waiter

    def discard(self, waiter: BlockWaiter) -> None:
        for index in waiter.missing:
            waiting = self._by_index.get(index, [])
            if waiter in waiting:
                waiting.remove(waiter)
            if not waiting:
                self._by_index.pop(index, None)

    def arrived(self, blocks: Iterable[tuple[int, bytes]]) -> None:
        """These blocks are stored now."""
        by_index = self._by_index
        for index, block in blocks:
            for waiter in by_index.pop(index, ()):
                waiter._arrived(index, block)

    def truncating(self, length: int) -> None:
        """The log is about to be cut: waiters for what is lost fail."""
        for waiter in self._all():
            lost = [index for index in waiter.missing if length <= index < waiter.known_length]
            if lost:
                self.discard(waiter)
                waiter._fail(SnapshotNotAvailable(min(lost), length))

    def fail(self, error: Exception) -> None:
        """Nothing will come any more."""
        waiting = self._all()
        self._by_index.clear()
        for waiter in waiting:
            waiter._fail(error)

    def _all(self) -> set[BlockWaiter]:
        return {waiter for waiters in self._by_index.values() for waiter in waiters}


class WriterLock:
    """A lock that costs no trip to the scheduler while it is free.

    `async with lock:` as usual; its holder may take it again. Whoever leaves the block gives it
    back: a task that took it and is gone would keep it for ever.
    """

    __slots__ = ("_depth", "_holder", "_waiting")

    def __init__(self) -> None:
        self._holder: trio.lowlevel.Task | None = None
        self._depth = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def is_free(self) -> bool:
        """Whether the running task may write without waiting."""
        return self._holder is None or self._holder is trio.lowlevel.current_task()

    def check_held(self) -> None:
        """Raises: UsageError when the running task does not have it."""
        if self._holder is not trio.lowlevel.current_task():
            raise UsageError("only the task that took the writer's lock may write")

    async def __aenter__(self) -> None:
        """Cancel: the lock is not taken."""
        task = trio.lowlevel.current_task()
        if self._holder is None:
            self._holder = task
        elif self._holder is not task:
            await self._waiting.park()  # woken as its holder
        self._depth += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth:
            # Handed over, not just freed: a writer that never yields would always win.
            woken = self._waiting.unpark()
            self._holder = woken[0] if woken else None
