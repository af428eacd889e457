"""How many files and connections the process may have open.

Systems let a process start with 1,024 or so, and have many more if it asks for them. Where they are
used up nothing can be opened any more: no file of the database, which then stops writing, and no
connection of a member, or of whoever asks what is wrong.
"""

from __future__ import annotations

import resource
from contextlib import suppress

_WANTED = 65_536


def raise_limit() -> None:
    """Allow as many as the system lets this process have, and a node can use; process-wide."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # some systems have a lower limit that they do not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room_for_clients(wanted: int) -> int:
    """How many clients may be connected, `wanted` at most.

    The database may take half of the files (`hypercore.storage.rocks_opening`); an eighth is left
    to members, the admin server and small files.
    """
    allowed = limit()
    return wanted if allowed is None else min(wanted, allowed * 3 // 8)


def limit() -> int | None:
    """None is any number."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if allowed == resource.RLIM_INFINITY else allowed
