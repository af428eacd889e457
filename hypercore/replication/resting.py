"""[trio] Connections whose channel was closed as idle, until it is wanted again."""

from __future__ import annotations

import trio

from hypercore.replication.channel import Multiplexer


class Resting:
    """The resting connections of one core."""

    def __init__(self) -> None:
        self._events: dict[Multiplexer, trio.Event] = {}

    async def wait(self, mux: Multiplexer) -> None:
        """Return when the channel is wanted again, by us or by the remote.

        Cancel: nobody waits any more.
        """
        event = self._events[mux] = trio.Event()
        try:
            await event.wait()
        finally:
            del self._events[mux]

    def wake(self, mux: Multiplexer) -> None:
        """The remote wants the channel."""
        if mux in self._events:
            self._events[mux].set()

    def wake_all(self) -> None:
        """The core is in use again."""
        for event in self._events.values():
            event.set()
