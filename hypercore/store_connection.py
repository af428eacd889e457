"""[trio] One connection on which the cores of a store are replicated."""

from __future__ import annotations

from collections.abc import Callable

import trio

from hypercore.core import Core
from hypercore.errors import StorageError
from hypercore.replication.channel import Multiplexer

Allow = Callable[[Core], bool]


def deny_every_core(core: Core) -> bool:
    """Offer nothing."""
    return False


def allow_every_core(core: Core) -> bool:
    return True


class StoreConnection:
    """One connection on which cores are replicated."""

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
        self._failures = failures
        self._served: set[bytes] = set()

    def offer(self, core: Core) -> None:
        """Open the core's channel, unless it is open."""
        if (
            core.discovery_key not in self._served
            and self._is_allowed(core)
            and self._is_offered(core)
        ):
            self._served.add(core.discovery_key)
            self._nursery.start_soon(self._serve, core)

    def serve_asked(self, core: Core | None) -> bool:
        """Serve a core that the remote opened; False when it is not to have it."""
        if core is None:
            return False
        if not self._is_allowed(core):
            core.release()
            return False
        if core.discovery_key in self._served:
            # Our own open, on its way or about to leave, answers theirs.
            core.replication.remote_opened(self._mux)
            core.release()
            return True
        self._served.add(core.discovery_key)
        self._nursery.start_soon(self._serve_and_release, core)
        return True

    async def _serve_and_release(self, core: Core) -> None:
        try:
            await self._serve(core)
        finally:
            core.release()

    async def _serve(self, core: Core) -> None:
        try:
            await core.serve(self._mux)
        except StorageError as error:
            # A bad disk ends one core, not the connection of all of them.
            self._failures[core.discovery_key] = error
        finally:
            self._served.discard(core.discovery_key)
