"""Small files beside a node's data that nobody else may read: keys, tokens, membership, lists."""

from __future__ import annotations

import fcntl
import glob
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = re.compile(r"\.[0-9a-f]{6,}")


def write_private(path: Path, content: bytes) -> None:
    """Replace a file with one that only its owner can read, all or nothing. Blocks until synced."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            scratch.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def remove_scratch(path: Path) -> None:
    """Remove what crashes have left of writing the file: keys may be in it. Blocks on the disk."""
    for scratch in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if _SUFFIX.fullmatch(scratch.suffix):  # what editors leave, or people, is not ours
            scratch.unlink(missing_ok=True)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait until no other process is in this block, with that directory. Blocks.

    It says nothing about a store in there, which has a lock of its own.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
