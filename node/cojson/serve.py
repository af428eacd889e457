"""One Jazz client over a socket, until it goes.

(Signatures first; the body follows.)
"""

from __future__ import annotations

from typing import Protocol

from node.cojson.host import SyncHost


class ClientSocket(Protocol):
    """A connection that carries text frames."""

    @property
    def remote(self) -> str:
        """Who is there, for logs."""
        ...

    async def receive(self) -> str | None:
        """The next text frame; None when the client has gone."""
        ...

    async def send(self, text: str) -> None:
        """Send one text frame; waits while the client is slow.

        Raises: trio.BrokenResourceError when the client has gone.
        """
        ...


async def serve_client(host: SyncHost, socket: ClientSocket) -> None:
    """Serve one client until it goes or breaks a limit.

    Cancel: the client is forgotten; what it sent and was accepted is stored.
    """
    raise NotImplementedError
