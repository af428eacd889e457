"""[trio] Reading what members hold for as long as blocks come, however long that takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from node.mesh.member_data import MemberData, MemberDataError

T = TypeVar("T")

STALL_SECONDS = 4.0
"""A read is given up when the member sends no block for half of this, or at most all of it."""


async def unless_stalled(data: MemberData, call: Callable[[], Awaitable[T]]) -> T:
    """What `call` reads from `data`, as long as blocks keep coming.

    Raises: MemberDataError, also when nothing comes for `STALL_SECONDS`.
    Cancel: as `call`.
    """
    fetched: int | None = None
    while True:
        # Statistics are not free: they are looked at only when the time is up.
        with trio.move_on_after(STALL_SECONDS / 2):
            return await call()
        before, fetched = fetched, data.blocks_fetched
        if before == fetched:
            raise MemberDataError(f"no block came for {STALL_SECONDS / 2:g} s")
        # What came is kept, so calling again goes on where it was.
