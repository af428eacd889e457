"""What replication needs from a multiplexer, as structural types.

`swarm.io.mux` satisfies them and neither package knows the other: the owner of a connection
introduces them by calling `Corestore.replicate(mux)`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

Take = Callable[[int], Sequence[tuple[int, bytes]]]
"""Gives about that many bytes of (message type, payload) to send; nothing when it has none."""


class Link(Protocol):
    """The authenticated connection below; the same for all its channels."""

    @property
    def is_initiator(self) -> bool: ...
    @property
    def handshake_hash(self) -> bytes: ...
    @property
    def remote_public_key(self) -> bytes: ...
    @property
    def handshake_seconds(self) -> float: ...


class MessageChannel(Protocol):
    """One open channel; both ends have opened it."""

    @property
    def link(self) -> Link: ...

    @property
    def remote_handshake(self) -> bytes:
        """The handshake bytes of the remote's open."""
        ...

    def send(self, message_type: int, payload: bytes) -> None:
        """Hand over a control message; never waits, what is queued leaves in one frame."""
        ...

    async def receive(self) -> list[tuple[int, bytes]]:
        """All messages that wait now, at least one, in order.

        Raises: trio.EndOfChannel when the remote closed the channel or the connection ended,
        trio.ClosedResourceError after `close`. Cancel: loses nothing.
        """
        ...

    def set_source(self, take: Take) -> None:
        """Set where bulk comes from: `take` is called whenever the connection can carry more."""
        ...

    def wake_source(self) -> None:
        """Tell that there is more to take."""
        ...

    def close(self) -> None: ...

    def abort(self, error: Exception) -> None:
        """The remote broke the protocol: end the whole connection, and say why."""
        ...


class RemoteOpen(Protocol):
    """A channel that the remote opened and nobody here has opened yet."""

    @property
    def id(self) -> bytes | None: ...

    def is_waiting(self) -> bool:
        """Whether it was neither answered nor taken back."""
        ...

    def reject(self) -> None: ...


class Multiplexer(Protocol):
    """Many channels over one connection."""

    @property
    def link(self) -> Link: ...

    async def open_channel(
        self,
        protocol: str,
        id: bytes | None,
        handshake: bytes = b"",
        *,
        aliases: Sequence[str] = (),
        early: Sequence[tuple[int, bytes]] = (),
    ) -> MessageChannel:
        """Send our open at once; return when the remote's has been seen.

        The `early` messages go right behind our open, whoever the remote is.

        Raises: trio.BrokenResourceError when the remote rejects it, trio.EndOfChannel when the
        connection ends first. Cancel: closes the channel.
        """
        ...

    def remote_opens(self, protocol: str) -> AsyncIterator[RemoteOpen]:
        """Opens of `protocol` that have no counterpart here, until the connection ends."""
        ...
