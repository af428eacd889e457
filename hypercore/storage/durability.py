"""What "written" promises, and how many waiters share one wait for the disk."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import trio

from hypercore.errors import StorageFailed

_GROUP = re.compile(r"group\((\d+(?:\.\d+)?)\)")


@dataclass(frozen=True, slots=True)
class Durability:
    """When a write counts as durable.

    `COMMIT`: the disk has it. `group(ms)`: the same, but the first to wait gives others that
    long to join. `OS`: the operating system has it, which survives a crash of the process and
    not of the machine; the JavaScript original does this.
    """

    waits_for_disk: bool
    delay_seconds: float = 0.0

    COMMIT: ClassVar[Durability]
    OS: ClassVar[Durability]

    @classmethod
    def group(cls, milliseconds: float) -> Self:
        return cls(True, milliseconds / 1000)

    @classmethod
    def parse(cls, text: str) -> Durability:
        """Read "commit", "os" or "group(5)". Raises: ValueError."""
        if text == "commit":
            return cls.COMMIT
        if text == "os":
            return cls.OS
        if match := _GROUP.fullmatch(text):
            return cls.group(float(match[1]))
        raise ValueError(f'durability is "commit", "os" or "group(MILLISECONDS)", not {text!r}')

    def __str__(self) -> str:
        if not self.waits_for_disk:
            return "os"
        return f"group({self.delay_seconds * 1000:g})" if self.delay_seconds else "commit"


Durability.COMMIT = Durability(True)
Durability.OS = Durability(False)


class GroupCommit:
    """Counts commits, and lets everybody who waits for the disk share one sync.

    The first waiter leads: it syncs in a thread, for all commits made until then. A cancelled
    leader hands over to another waiter.
    """

    def __init__(self, durability: Durability, sync: Callable[[], None]) -> None:
        """Raises: TypeError."""
        if not isinstance(durability, Durability):
            raise TypeError(
                f"durability is a Durability (Durability.parse reads one from text), "
                f"not {type(durability).__name__}"
            )
        self.durability = durability
        self.failure: StorageFailed | None = None
        self._sync = sync
        self._written = 0
        self._synced = 0
        self._is_led = False
        self._waiters = trio.lowlevel.ParkingLot()
        # One sync at a time, and none waits for a busy shared thread pool.
        self._limiter = trio.CapacityLimiter(1)

    @property
    def durable_sequence(self) -> int:
        return self._synced if self.durability.waits_for_disk else self._written

    def wrote(self) -> int:
        """Count one commit; returns its sequence."""
        self._written += 1
        return self._written

    def check(self) -> None:
        """Raises: StorageFailed once something has failed."""
        if self.failure is not None:
            raise StorageFailed(str(self.failure)) from self.failure

    def recovered(self) -> None:
        """All that can be read now is on the disk; writing may go on."""
        self.failure = None
        self._synced = self._written

    def fail(self, error: BaseException) -> StorageFailed:
        """Remember what went wrong; nothing may be written any more."""
        if self.failure is None:
            self.failure = StorageFailed(f"the store stopped writing: {error}")
            self.failure.__cause__ = error
        return self.failure

    async def wait(self, sequence: int) -> None:
        """Return when `sequence` is durable. Cancel: takes back nothing, others go on waiting."""
        while self.durable_sequence < sequence:
            self.check()
            if self._is_led:
                await self._waiters.park()
                continue
            self._is_led = True
            try:
                await self._lead()
            finally:
                self._is_led = False
                self._waiters.unpark_all()

    async def _lead(self) -> None:
        if self.durability.delay_seconds:
            await trio.sleep(self.durability.delay_seconds)
        target = self._written
        try:
            await trio.to_thread.run_sync(self._sync, limiter=self._limiter)
        except Exception as error:  # RocksDB's errors have no class of their own
            raise self.fail(error) from error
        self._synced = max(self._synced, target)
