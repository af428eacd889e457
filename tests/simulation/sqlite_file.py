"""The SQLite file of a hybrid node: real SQLite on a real file, whose work takes virtual time.

What a node gives to a thread runs in its place, in the middle of the time that it takes. So a
commit whose node is killed or loses power may be in the file or not, and one that was waited for
is. The dead node's tasks go on with the file that it had; the next start gets a copy of what it
was at that moment, its write-ahead log included.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import trio

import node.covalue.sqlite_store
from hypercore.errors import StorageFailed
from hypercore.storage import Durability
from node.covalue.sqlite_store import SqliteStore, open_sqlite_store
from node.covalue.sqlite_writer import SqliteWriter
from tests.simulation.disk import Disk, Shortage

T = TypeVar("T")

_FILES = ("", "-wal")
"""Of a SQLite file, what is not made anew when it is opened."""

_THREAD_SECONDS = 0.002

_disks: dict[Path, Disk] = {}
"""Where the files lie that are open."""


class SqliteFile:
    """On the disk of one node."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self._starts = 0

    @property
    def _path(self) -> Path:
        """Each start has its own: the tasks of the last one may not be gone yet."""
        return self._directory / str(self._starts) / "covalues.sqlite"

    @asynccontextmanager
    async def open(self, durability: Durability) -> AsyncIterator[SqliteStore]:
        """As a node opens it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        path = self._path.resolve()
        _disks[path] = self._disk
        try:
            async with open_sqlite_store(path, durability) as store:
                yield store
        finally:
            del _disks[path]

    def cut_off(self) -> None:
        """The process is no more: what it still does on its way out, it does to another file."""
        before = self._path.parent
        self._starts += 1
        _copy_file(before, self._path.parent)

    def copy(self) -> Path:
        """The file as it is now, for who puts it back."""
        copied = self._directory / "copy"
        _copy_file(self._path.parent, copied)
        return copied

    def put_back(self, copied: Path) -> None:
        """Have the file as it was when it was copied; nobody may have it open."""
        self._starts += 1
        _copy_file(copied, self._path.parent)


def _copy_file(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for end in _FILES:
        file = source / f"covalues.sqlite{end}"
        if file.exists():
            shutil.copy(file, target / file.name)


class _Writer(SqliteWriter):
    """Fails while there is no room on the disk: before the commit, or when it was made."""

    def __init__(self, path: Path, *, waits_for_disk: bool) -> None:
        self._disk = _disks[path]
        super().__init__(path, waits_for_disk=waits_for_disk)

    def commit(self) -> None:
        is_full = self._disk.shortage is Shortage.FULL
        if is_full and self._disk.chance.random() < 0.5:
            raise StorageFailed("no space left on the device")
        super().commit()
        if is_full:
            raise StorageFailed("no space left on the device")


async def _run_in_place(
    work: Callable[..., T], *arguments: Any, limiter: trio.CapacityLimiter | None = None
) -> T:
    """As `trio.to_thread.run_sync`, without the thread."""
    await trio.lowlevel.checkpoint_if_cancelled()
    limiter = limiter or trio.to_thread.current_default_thread_limiter()
    async with limiter:
        with trio.CancelScope(shield=True):
            await trio.sleep(_THREAD_SECONDS / 2)
            result = work(*arguments)
            await trio.sleep(_THREAD_SECONDS / 2)
        return result


@contextmanager
def sqlite_on_virtual_time() -> Iterator[None]:
    """Until the block ends."""
    with (
        mock.patch.object(trio.to_thread, "run_sync", _run_in_place),
        mock.patch.object(node.covalue.sqlite_store, "SqliteWriter", _Writer),
    ):
        yield
