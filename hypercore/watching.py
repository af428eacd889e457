"""[trio] Cores as they get opened or frozen, for whoever wants to look at each."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from hypercore.core import Core


class CoreWatch:
    """Cores opened or made since this watch was; an iterator that may be dropped at any time.

    A core is given once for each time that it goes from closed to open, if it is still open when
    its turn comes. It is not kept open: a user that wants it for longer gets it from the store.
    """

    def __init__(self) -> None:
        # At most one entry for each core of the store, however slow the reader is.
        self._opened: dict[bytes, Core] = {}
        self._is_over = False
        self._changed = trio.lowlevel.ParkingLot()

    def opened(self, core: Core) -> None:
        self._opened[core.discovery_key] = core
        self._changed.unpark_all()

    def end(self) -> None:
        """The store is closed: no more will come."""
        self._is_over = True
        self._changed.unpark_all()

    def __aiter__(self) -> CoreWatch:
        return self

    async def __anext__(self) -> Core:
        """Cancel: takes nothing."""
        while True:
            while self._opened:
                core = self._opened.pop(next(iter(self._opened)))
                if not core.is_closed:
                    return core
            if self._is_over:
                raise StopAsyncIteration
            await self._changed.park()


class FrozenWatch:
    """Cores in the order in which they were found to be frozen, each once, closed or not.

    An iterator that may be dropped at any time.
    """

    def __init__(self, found: Iterable[Core]) -> None:
        """`found` are those from before this watch."""
        self._found = deque(found)
        self._is_over = False
        self._changed = trio.lowlevel.ParkingLot()

    def frozen(self, core: Core) -> None:
        self._found.append(core)
        self._changed.unpark_all()

    def end(self) -> None:
        """The store is closed: no more will come."""
        self._is_over = True
        self._changed.unpark_all()

    def __aiter__(self) -> FrozenWatch:
        return self

    async def __anext__(self) -> Core:
        """Cancel: takes nothing."""
        while not self._found:
            if self._is_over:
                raise StopAsyncIteration
            await self._changed.park()
        return self._found.popleft()
