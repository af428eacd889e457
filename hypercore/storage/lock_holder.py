"""Who holds the lock of a store, in words: process id, command, and since when it has run.

From Linux's /proc. A lock on a file description (as of `CORESTORE`) has no process there, so it is
RocksDB's own lock on `db/LOCK` that is looked up: whoever has one has the other.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

OURSELVES = "this process"
"""What `lock_holder` says of the process that asks."""

_PROC = Path("/proc")
_COMMAND_LENGTH = 80


def lock_holder(path: Path) -> str:
    """Which process holds a lock on this file, as far as the system tells."""
    process = locking_process(path)
    if process is None:
        return "another process"
    if process == os.getpid():
        return OURSELVES
    return f"process {process}{process_facts(process)}"


def process_facts(process: int) -> str:
    """The command of a process and since when it has run, in parentheses; empty if unknown."""
    facts = [fact for fact in (_command(process), _start(process)) if fact]
    return f" ({', '.join(facts)})" if facts else ""


def locking_process(path: Path) -> int | None:
    """The id of that process; None when there is none, or the system does not tell."""
    try:
        inode = path.stat().st_ino
        locks = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return None
    for line in locks:
        # "1: POSIX  ADVISORY  WRITE 4711 fd:01:131090 0 EOF"
        fields = line.split()
        if "->" not in fields and fields[-3].rpartition(":")[2] == str(inode) and fields[4] != "-1":
            return int(fields[4])
    return None


def _command(process: int) -> str:
    try:
        words = (_PROC / str(process) / "cmdline").read_bytes().split(b"\x00")
    except OSError:
        return ""
    text = b" ".join(words).decode(errors="replace").strip()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= _COMMAND_LENGTH else text[: _COMMAND_LENGTH - 3] + "..."


def _start(process: int) -> str:
    try:
        status = (_PROC / str(process) / "stat").read_text(errors="replace")
        uptime = float((_PROC / "uptime").read_text().split()[0])
    except OSError:
        return ""
    # The command, in parentheses, may hold anything; the start, in ticks, is the 20th after it.
    ticks = int(status.rpartition(")")[2].split()[19])
    started = time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    return time.strftime("running since %Y-%m-%d %H:%M:%S", time.localtime(started))
