"""[trio] One connection on which the cores of a store are replicated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from hypercore.core import Core
from hypercore.errors import StorageError
from hypercore.replication.channel import Multiplexer, RemoteOpen
from hypercore.replication.effort import Effort

Allow = Callable[[Core], bool]


def deny_every_core(core: Core) -> bool:
    """Offer nothing."""
    return False


def allow_every_core(core: Core) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class _Turn:
    """A core to serve; `asked` is the remote's open, and then the core is ours to release."""

    core: Core
    asked: RemoteOpen | None = None

    def is_due(self) -> bool:
        return not self.core.is_closed if self.asked is None else self.asked.is_waiting()

    def release(self) -> None:
        if self.asked is not None:
            self.core.release()

    def drop(self) -> None:
        """Do not serve the core: the remote must not wait for it."""
        if self.asked is not None:
            self.asked.reject()
            self.core.release()


class StoreConnection:
    """One connection on which cores are replicated, each by one task at a time."""

    def __init__(
        self,
        mux: Multiplexer,
        is_allowed: Allow,
        is_offered: Allow,
        nursery: trio.Nursery,
        failures: dict[bytes, StorageError],
    ) -> None:
        self._mux = mux
        self._is_allowed = is_allowed
        self._is_offered = is_offered
        self._nursery = nursery
        self._effort = Effort.of_connection(trio.current_time())
        self._failures = failures
        self._served: dict[bytes, Core] = {}
        self._next: dict[bytes, _Turn] = {}
        """Turns that came while a channel of the same core was there, or was about to end."""

    def offer(self, core: Core) -> None:
        """Open the core's channel, unless it is open."""
        if self._is_allowed(core) and self._is_offered(core):
            served = self._served.get(core.discovery_key)
            if served is None or served.is_closed:
                self._start(_Turn(core))

    def serve_asked(self, remote_open: RemoteOpen, core: Core | None) -> None:
        """Serve a core that the remote opened, or reject the open if it may not have the core."""
        if core is None:
            remote_open.reject()
            return
        turn = _Turn(core, remote_open)
        if not self._is_allowed(core):
            turn.drop()
            return
        # If there is a channel, our own open, about to leave, answers theirs; or it was turned
        # down, or the core closed, just before.
        self._start(turn)
        core.replication.remote_opened(self._mux)

    def _start(self, turn: _Turn) -> None:
        key = turn.core.discovery_key
        if key not in self._served:
            self._served[key] = turn.core
            self._nursery.start_soon(self._serve, key, turn)
            return
        earlier = self._next.get(key)
        if earlier is None or turn.asked is not None:
            self._next[key] = turn
            if earlier is not None:
                earlier.drop()

    async def _serve(self, key: bytes, first: _Turn) -> None:
        turn: _Turn | None = first
        try:
            while turn is not None:
                self._served[key] = turn.core
                try:
                    await turn.core.serve(self._mux, self._effort)
                finally:
                    turn.release()
                turn = self._take_next(key)
        except StorageError as error:
            # A bad disk ends one core, not the connection of all of them.
            self._failures[key] = error
        finally:
            del self._served[key]
            if (left := self._next.pop(key, None)) is not None:
                left.drop()

    def _take_next(self, key: bytes) -> _Turn | None:
        turn = self._next.pop(key, None)
        if turn is None or turn.is_due():
            return turn
        turn.drop()
        return None
