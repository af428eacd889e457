"""[trio] Peers that are no members, and make room for members when connections are scarce.

Whoever reaches the port of `--mesh` may come, as any hypercore peer does, and replicate the cores
of which it knows the keys. A swarm holds so many connections and no more: some hundred that came
for nothing would keep all members out, for good. Nor does a peer that comes for nothing say so: we
wait until it has shown what it is, and it may come again with another key. So there is little room
for unknown peers, except members that were here before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import structlog
import trio

from hypercore.core import Core
from swarm.io.crowd import Crowd, Place
from swarm.io.swarm import MAX_CONNECTIONS

CROWD = MAX_CONNECTIONS // 2
"""From this many connections on they are scarce."""

MOST = MAX_CONNECTIONS // 2
"""Strangers that are served at the same time, whatever they replicate."""

MOST_UNKNOWN = MAX_CONNECTIONS // 4
"""Peers that have not shown yet whether they are members, when connections are scarce. The other
places are for members, none of which is sent away."""

IDLE_SECONDS = 10.0
"""How long a stranger may be here without replicating anything, when connections are scarce."""

_log = structlog.get_logger(__name__)


class OpenCores(Protocol):
    """What is needed of the corestore."""

    def open_cores(self) -> Sequence[Core]: ...


class Strangers:
    """Strangers that dialed us; `connections` tells how many there are in all."""

    def __init__(self, cores: OpenCores, connections: Callable[[], int]) -> None:
        self._cores = cores
        self._connections = connections
        self._present: dict[trio.CancelScope, tuple[bytes, float]] = {}
        self._unknown = Crowd(MOST_UNKNOWN)

    def finding_out(self, host: str) -> AbstractContextManager[Place]:
        """The block finds out what a peer from this host is; it may have to make room.

        While there is room for all, none has to: they may be a hundred new members at once.
        """
        others = self._connections() - 1 - len(self._unknown)
        self._unknown.most = max(MOST_UNKNOWN, CROWD - others)
        return self._unknown.place(host)

    @contextmanager
    def making_room(self, public_key: bytes) -> Iterator[None]:
        """The block serves a stranger; it ends early when that is idle and connections are scarce.

        It also ends, at its first checkpoint, when there are too many: one channel of a core that
        everybody may have costs next to nothing, and no peer that has one counts as idle.
        """
        with trio.CancelScope() as scope:
            if len(self._present) >= MOST:
                _log.info("too many strangers", count=len(self._present))
                scope.cancel()
            self._present[scope] = (public_key, trio.current_time())
            try:
                yield
            finally:
                del self._present[scope]

    async def run(self) -> None:
        """Look for strangers that have to make room, until cancelled."""
        while True:
            await trio.sleep(IDLE_SECONDS)
            if self._present and self._connections() >= CROWD:
                self._make_room()

    def _make_room(self) -> None:
        cores = self._cores.open_cores()
        busy = {peer.remote_public_key for core in cores for peer in core.peers}
        since = trio.current_time() - IDLE_SECONDS
        idle = [
            scope
            for scope, (public_key, came) in self._present.items()
            if came <= since and public_key not in busy
        ]
        for scope in idle:
            scope.cancel()
        if idle:
            _log.warning("connections are scarce: strangers sent away", count=len(idle))
