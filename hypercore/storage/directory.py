"""The device record of a store's directory: who has it open, and whether it is the original.

`CORESTORE` is text, lines of name=value, written once when the directory is made:

| line                       | meaning                                                          |
|----------------------------|------------------------------------------------------------------|
| device/platform=linux      | as Node.js names it                                              |
| device/inode=N             | of this file                                                     |
| device/created=N           | Unix ms; the file's own times may be 5 s away at most            |
| device/attribute=original  | and then the extended attribute `user.device-file` says the same |

It is on the disk before the database's directory `db` is made, which is for its owner alone: the
seed of all keys is in there. `rebuilt`, `salvaged` and
`db.damaged` are what `salvage` makes, the last one to be deleted by hand.

A copy does not match. Two copies of a writable core would sign two histories of it, so a copy is
not opened for writing until somebody removes the file, and so says: this is the one.

The lock on the file (of the open file description, not of the process) is the store's lock.

Source: device-file 2 and fd-lock 2, as used by hypercore-storage 3.3.1.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import struct
import sys
import time
from pathlib import Path

from hypercore.errors import CopiedStore, StorageFailed, StoreLocked
from hypercore.storage.lock_holder import lock_holder

_FILE_NAME = "CORESTORE"
_DATABASE = "db"
_SALVAGED = "salvaged"
REBUILT = "rebuilt"
_DAMAGED = "db.damaged"
_PROBE = "probe"
_PIECE_BYTES = 1 << 20
_ATTRIBUTE = "user.device-file"
_ORIGINAL = b"original"
_MAX_FILE_BYTES = 4096
_SLACK_MS = 5000
_ADOPT = (
    "if no other copy will ever be written to again, delete this file to adopt the directory; "
    "or open it read-only"
)

# Python has no name for this lock before 3.13. Elsewhere than on Linux, flock has the same effect
# among Python processes.
_OFD_SETLK = 37
_FLOCK = struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class StoreDirectory:
    """Holds the lock of a directory that is open for writing. Blocking file access."""

    def __init__(self, path: Path) -> None:
        """Make the directory, or check that it is the original, and lock it.

        Raises: StoreLocked, CopiedStore, StorageFailed for what the system refuses.
        """
        self.path = path
        self._file = -1
        try:
            _make_directory(path)
            self._file = os.open(path / _FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._lock()
            self._check_or_write()
            self._finish_replacement()
            _make_directory(path / _DATABASE, mode=0o700)
        except OSError as error:
            self.close()
            raise StorageFailed(f"{path} cannot be opened for writing: {error}") from error
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        try:
            if sys.platform == "linux":
                fcntl.fcntl(self._file, _OFD_SETLK, _FLOCK)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreLocked(str(self.path), lock_holder(self.path / "db" / "LOCK")) from None

    def _check_or_write(self) -> None:
        if os.fstat(self._file).st_size == 0:
            self._write()  # a new directory, or one adopted by removing the file
            return
        try:
            self._check()
        except CopiedStore:
            if (self.path / _DATABASE).exists():
                raise
            self._write()  # torn by a power cut, when there was nothing yet to protect

    def _write(self) -> None:
        lines = {
            "device/platform": _platform_name(),
            "device/inode": os.fstat(self._file).st_ino,
            "device/created": time.time_ns() // 1_000_000,
        }
        text = "".join(f"{name}={value}\n" for name, value in lines.items())
        with contextlib.suppress(OSError):  # not every file system has attributes
            os.setxattr(self._file, _ATTRIBUTE, _ORIGINAL)
            text += f"device/attribute={_ORIGINAL.decode()}\n"
        os.ftruncate(self._file, 0)
        if os.pwrite(self._file, text.encode(), 0) < len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), _FILE_NAME)
        os.fsync(self._file)

    def _check(self) -> None:
        text = os.pread(self._file, _MAX_FILE_BYTES, 0).decode(errors="replace")
        lines = dict(line.strip().partition("=")[::2] for line in text.splitlines())
        platform = lines.get("device/platform", "")
        if platform and platform != _platform_name():
            raise self._refused(f"made on another platform ({platform})")
        status = os.fstat(self._file)
        inode = _number(lines.get("device/inode", ""))
        created_ms = _number(lines.get("device/created", ""))
        if self._attribute() != lines.get("device/attribute", ""):
            raise self._refused("the directory was copied or moved to another disk")
        if inode != status.st_ino:
            raise self._refused(f"the directory was copied (inode {inode} is now {status.st_ino})")
        changed_ms = status.st_mtime_ns // 1_000_000
        if created_ms and abs(changed_ms - created_ms) >= _SLACK_MS:
            raise self._refused("the file was changed after it was made")

    def _attribute(self) -> str:
        try:
            return os.getxattr(self._file, _ATTRIBUTE).decode(errors="replace")
        except OSError:
            return ""

    def _refused(self, reason: str) -> CopiedStore:
        return CopiedStore(str(self.path / _FILE_NAME), f"{reason}; {_ADOPT}")

    @property
    def salvaged_path(self) -> Path:
        """A complete store in here can take the database's place: `replace_database`."""
        return self.path / _SALVAGED

    @property
    def rebuilt_path(self) -> Path:
        """For a store that is needed while one is salvaged, and deleted afterward."""
        return self.path / REBUILT

    def replace_database(self) -> Path:
        """Put the database of the salvaged store in place of ours; returns where ours is now.

        A crash leaves one or the other, or none: then opening the store finishes this.
        Raises: OSError.
        """
        damaged = self.path / _DAMAGED
        shutil.rmtree(damaged, ignore_errors=True)
        sync_names(self.salvaged_path)
        (self.path / _DATABASE).rename(damaged)
        sync_names(self.path)
        self._finish_replacement()
        return damaged

    def _finish_replacement(self) -> None:
        salvaged, database = self.salvaged_path / _DATABASE, self.path / _DATABASE
        if database.exists() or not (self.path / _DAMAGED).exists() or not salvaged.exists():
            return
        shutil.copymode(self.path / _DAMAGED, salvaged)
        salvaged.rename(database)
        sync_names(self.path)
        shutil.rmtree(self.salvaged_path)

    def close(self) -> None:
        """Give the lock back."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_room(path: Path, size: int) -> None:
    """Write a file of about `size` bytes, and delete it. Raises: StorageFailed."""
    probe = path / _PROBE
    try:
        try:
            with probe.open("wb", buffering=0) as file:
                for _ in range(0, size, _PIECE_BYTES):
                    if file.write(bytes(_PIECE_BYTES)) < _PIECE_BYTES:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(probe))
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise StorageFailed(f"the store cannot be written yet: {error}") from error


def _make_directory(path: Path, mode: int = 0o777) -> None:
    """Make a directory with its parents, so that a power cut cannot take their names back."""
    missing = [parent for parent in path.parents if not parent.exists()]
    path.mkdir(mode, parents=True, exist_ok=True)
    for directory in (path, *missing):
        sync_names(directory.parent)


def sync_names(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a parent that is not ours to read, and so not ours to have made
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _platform_name() -> str:
    return {"linux": "linux", "darwin": "darwin", "win32": "win32"}.get(sys.platform, sys.platform)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0
