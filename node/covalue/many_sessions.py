"""[trio] Values of very many sessions, which must not keep others from having their turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

MANY_SESSIONS = 1000
"""Reading the rows of so many takes 5 ms, and that is done for each part of a value; putting them
together takes 10 ms."""

T = TypeVar("T")


async def put_together(work: Callable[[], T], sessions: int) -> T:
    """What `work` makes of the rows of so many sessions; of many in a thread.

    Nobody else may have to do with what it works on. Cancel: it is finished first.
    """
    if sessions < MANY_SESSIONS:
        return work()
    return await trio.to_thread.run_sync(work)
