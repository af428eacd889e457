"""[trio] The channels on which one core is replicated at this moment."""

from __future__ import annotations

import trio

from hypercore.replication.channel import Multiplexer
from hypercore.replication.effort import Effort
from hypercore.replication.session import CoreReplication


class OpenChannels:
    """Each channel belongs to the task that serves it; from here all of them can be ended."""

    def __init__(self) -> None:
        self._serving: set[trio.CancelScope] = set()
        self._ended = trio.lowlevel.ParkingLot()

    async def serve(
        self, replication: CoreReplication, mux: Multiplexer, effort: Effort | None
    ) -> None:
        """As `CoreReplication.serve`; also returns when the channels are ended from here."""
        with trio.CancelScope() as scope:
            self._serving.add(scope)
            try:
                await replication.serve(mux, effort)
            finally:
                self._serving.discard(scope)
                self._ended.unpark_all()

    def end(self) -> None:
        """Have all channels end; their tasks do that when they run next."""
        for scope in self._serving:
            scope.cancel()

    async def wait_ended(self) -> None:
        """Return when no channel is left. Cancel: undoes nothing."""
        while self._serving:
            await self._ended.park()
