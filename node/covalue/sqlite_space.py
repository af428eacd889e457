"""[disk] Giving back the space of what was erased, and leaving nothing of it to be found.

Files that we made keep track of free pages (`auto_vacuum=INCREMENTAL`): after an erasure they
shrink in small steps, between which others may write. Files that JavaScript made do not; they are
rewritten once, by a VACUUM, which blocks every writer for about a second per 100 MiB and needs
the space of the file a second time. That happens with the first erasure while the file is small,
later when an eighth of it is free.

What is erased is overwritten in place (`secure_delete`), then the write-ahead log is cut off.
That does not reach copies which stay behind in a page when it is split and some of its rows move
to another. So a small file is rewritten when its room is reclaimed, which happens rarely; in a
large one such copies stay until other rows take their place, or somebody runs VACUUM.
"""

from __future__ import annotations

import sqlite3

SMALL_FILE_BYTES = 64 * 1024 * 1024
"""Rewriting this much takes less than a second."""

_STEP_PAGES = 512
_INCREMENTAL = 2


def is_shrinkable(connection: sqlite3.Connection) -> bool:
    """Whether free pages can be given back in steps."""
    return _pragma(connection, "auto_vacuum") == _INCREMENTAL


def is_small(connection: sqlite3.Connection) -> bool:
    size_bytes = _pragma(connection, "page_count") * _pragma(connection, "page_size")
    return size_bytes <= SMALL_FILE_BYTES


def is_worth_rewriting(connection: sqlite3.Connection) -> bool:
    pages = _pragma(connection, "page_count")
    return is_small(connection) or 8 * _pragma(connection, "freelist_count") >= pages


def rewrite(connection: sqlite3.Connection) -> None:
    """Rewrite the file, shrinkable from now on."""
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
    connection.execute("VACUUM")


def shrink(connection: sqlite3.Connection) -> bool:
    """Give some free pages back; returns whether there are more."""
    connection.execute(f"PRAGMA incremental_vacuum({_STEP_PAGES})").fetchall()
    return _pragma(connection, "freelist_count") > 0


def cut_log(connection: sqlite3.Connection) -> None:
    """Move the write-ahead log into the file and empty it; waits for readers, not for ever."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (number,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(number)
