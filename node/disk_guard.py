"""[trio] Is there room on the disk? Without it nothing is taken in, and all that is here is served.

Nothing is taken in while less than `min_free_bytes` are free, while the data directory has reached
`max_disk_bytes` or cannot be looked at, and after a write failed. It goes on by itself, once there
is room again and the store, which refuses writes after a failure, could be opened anew underneath.

What comes between two looks is foreseen: the quota counts as reached when what could come until
the next one would reach it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from hypercore.corestore import Corestore
from hypercore.errors import HypercoreError, StorageFailed
from node.cojson.room import Room
from node.covalue.store import CoValueStore
from node.errors import reason_of
from node.web.status import DiskStatus
from node.web.wording import format_size
from swarm.io.tasks import open_background_nursery

LOOK_SECONDS = 1.0

MARGIN_SHARE = 1 / 64
MAX_MARGIN_BYTES = 8 << 20
"""What may come between two looks is a 64th of the quota, and no more than this."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DiskLimits:
    """`max_disk_bytes` None: as much as there is. `paths` are the directories and files that count.

    The first path says which file system.
    """

    paths: tuple[Path, ...]
    max_disk_bytes: int | None = None
    min_free_bytes: int = 16 << 20


Measure = Callable[[tuple[Path, ...]], Awaitable[tuple[int, int]]]
"""Finds out how many bytes are free, and how many the paths take."""


async def measure_disk(paths: tuple[Path, ...]) -> tuple[int, int]:
    """As the operating system says. Cancel: undoes nothing."""
    return await trio.to_thread.run_sync(_measure, paths)


class DiskGuard:
    """Looks every second, closes and opens the room; run `run`."""

    def __init__(
        self,
        room: Room,
        limits: DiskLimits,
        cores: Corestore,
        values: CoValueStore,
        measure: Measure = measure_disk,
    ) -> None:
        self._measure = measure
        self._room = room
        self._limits = limits
        self._cores = cores
        self._values = values
        self._free = 0
        self._used = 0
        self._since: float | None = None
        self._recoveries = 0

    def status(self) -> DiskStatus:
        return DiskStatus(
            free_bytes=self._free,
            used_bytes=self._used,
            max_bytes=self._limits.max_disk_bytes,
            trouble=self._room.reason,
            trouble_since_unix=self._since,
            recoveries=self._recoveries,
        )

    async def run(self) -> None:
        """Look again and again, until cancelled. Cancel: the room stays as it is."""
        while True:
            await self.look()
            with trio.move_on_after(LOOK_SECONDS):
                await self._room.wait_changed()

    async def look(self) -> None:
        """Measure, and close or open the room by that.

        Cancel: the room stays as it is.
        """
        was_open = self._since is None
        try:
            self._free, self._used = await self._measure(self._limits.paths)
        except OSError as error:  # of a network's disk, perhaps for a moment only
            shortage = f"the disk does not answer: {reason_of(error)}"
        else:
            shortage = self._shortage()
        if reason := shortage or ("the disk cannot be written" if self._cores.has_failed else ""):
            self._room.close(reason)
            self._room.restate(reason)  # there is less room now than there was, or more
        if self._room.is_open:
            return
        if was_open:
            self._since = time.time()
            _log.error("taking nothing in", reason=self._room.reason, free_bytes=self._free)
        if not shortage:
            await self._recover()

    async def _recover(self) -> None:
        """There is room: have the stores go on, if they can."""
        try:
            await self._cores.recover()
            await self._values.recover()
        except StorageFailed as error:
            _log.warning("not recovered yet", reason=str(error))
            return
        except HypercoreError as error:
            _log.error("not recovered", reason=str(error))
            return
        self._since = None
        self._recoveries += 1
        self._room.open()
        _log.info("taking in again", free_bytes=self._free)

    def _shortage(self) -> str:
        limits = self._limits
        least = limits.min_free_bytes
        if not self._room.is_open:
            least += least // 4  # a little more than what closed it, lest it flutter
        if self._free < least:
            return (
                f"the disk is full: {format_size(self._free)} free, {format_size(least)} are wanted"
            )
        most = limits.max_disk_bytes
        if most is not None and self._used + min(int(most * MARGIN_SHARE), MAX_MARGIN_BYTES) > most:
            return (
                f"the quota is used up: {format_size(self._used)} of {format_size(most)} "
                "(--max-disk-bytes)"
            )
        return ""


@asynccontextmanager
async def open_disk_guard(
    room: Room,
    limits: DiskLimits,
    cores: Corestore,
    values: CoValueStore,
    measure: Measure = measure_disk,
) -> AsyncIterator[DiskGuard]:
    """Guard until the block ends; what is found at the start is in force when this is entered."""
    guard = DiskGuard(room, limits, cores, values, measure)
    await guard.look()
    async with open_background_nursery() as nursery:
        nursery.start_soon(guard.run)
        yield guard


def _measure(paths: tuple[Path, ...]) -> tuple[int, int]:
    """Bytes that are free, and bytes that the paths take; blocks on the disk."""
    free = shutil.disk_usage(paths[0]).free
    return free, sum(_disk_bytes(path) for path in paths)


def _disk_bytes(path: Path) -> int:
    """What a file, or all in a directory, takes; what goes meanwhile takes nothing."""
    try:
        if not path.is_dir():
            return path.stat().st_blocks * 512
        with os.scandir(path) as entries:
            found = list(entries)
    except OSError:
        return 0
    total = 0
    for entry in found:
        try:
            if entry.is_dir(follow_symlinks=False):
                total += _disk_bytes(Path(entry.path))
            else:
                total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
    return total
