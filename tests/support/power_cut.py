"""What a process does to its disk: a trace of every change and every sync, and made-up faults.

The shim (power_cut.c, which also describes the trace) is built here and preloaded into a child.
`crash_states` makes of a trace what a power cut could have left. Inside the child, `fail_calls`
makes chosen calls fail.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path(__file__).with_name("power_cut.c")
_HEADER = struct.Struct("<BiqII")


class Kind(IntEnum):
    """What a record tells; as in power_cut.c."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC_BEGIN = 5
    SYNC_END = 6
    SYNC_FAILED = 7
    RENAME = 8
    UNLINK = 9
    MKDIR = 10
    RMDIR = 11
    LINK = 12
    ATTRIBUTE = 13
    OUTPUT = 14


class Calls(IntFlag):
    """Which calls `fail_calls` is about; as in power_cut.c."""

    WRITE = 1
    SYNC = 2
    NAME = 4
    """Creating, renaming and linking."""


class Record(NamedTuple):
    kind: Kind
    fd: int
    number: int
    """Offset, new length, flags of an open or ticket of a sync."""
    data: bytes
    """Path, written bytes or name of an attribute."""
    data2: bytes
    """Second path, or value of an attribute."""


def build_shim(directory: Path) -> Path:
    """Put the shim into `directory`."""
    library = directory / "power_cut.so"
    library.write_bytes(_compiled_shim())
    return library


@cache
def _compiled_shim() -> bytes:
    """Made once in a process: tests want a dozen, and the compiler takes 0.3 s for each."""
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "power_cut.so"
        subprocess.run([*command, "-o", library, _SOURCE], check=True)
        return library.read_bytes()


def shim_environment(
    library: Path, directory: Path, trace: Path | None = None
) -> Mapping[str, str]:
    """The environment of a child that is watched below `directory`."""
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "POWER_CUT_DIRECTORY": str(directory.resolve()),
    }
    if trace is not None:
        environment["POWER_CUT_TRACE"] = str(trace)
    return environment


def read_trace(path: Path) -> Iterator[Record]:
    data = path.read_bytes()
    offset = 0
    while offset < len(data):
        kind, fd, number, size, size2 = _HEADER.unpack_from(data, offset)
        middle = offset + _HEADER.size + size
        yield Record(
            Kind(kind),
            fd,
            number,
            data[middle - size : middle],
            data[middle : middle + size2],
        )
        offset = middle + size2


def fail_calls(calls: Calls, *, after: int, count: int, error: int) -> None:
    """In a child with the shim: `after` such calls work, the `count` ones after them fail.

    With ENOSPC the first write of them is only half done, as a disk does that fills up.
    """
    ctypes.CDLL(None).power_cut_fail(int(calls), after, count, error)


def stop_failing() -> int:
    """All calls work again; returns how many had failed."""
    library = ctypes.CDLL(None)
    hits = int(library.power_cut_hits())
    library.power_cut_fail(0, 0, 0, 0)
    return hits


def die_at_call(calls: Calls, count: int, *, is_after: bool) -> None:
    """In a child with the shim: SIGKILL right before or after the `count`th such call from now."""
    ctypes.CDLL(None).power_cut_die(int(calls), count, int(is_after))
