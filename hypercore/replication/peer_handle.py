"""What the handler of an extension sees of a peer, and may do to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from hypercore.replication.channel import Link
from hypercore.replication.remote import RemotePeer


class PeerActions(Protocol):
    """Carries out what a handle is asked for; `session.CoreReplication` is one."""

    def send_extension_to(self, peer: RemotePeer, name: str, payload: bytes) -> None: ...

    def push_asked(self, peer: RemotePeer, indices: Iterable[int]) -> Sequence[int]: ...

    def expect(
        self, peer: RemotePeer, indices: Iterable[int], instead_of: Iterable[int]
    ) -> None: ...

    def expect_announced(self, peer: RemotePeer, indices: Iterable[int]) -> None: ...


class PeerHandle:
    """One connected peer of one core, as an extension's handler sees it."""

    def __init__(self, replication: PeerActions, peer: RemotePeer, link: Link) -> None:
        self._replication = replication
        self._peer = peer
        self.link = link

    @property
    def remote_public_key(self) -> bytes:
        return self.link.remote_public_key

    @property
    def length(self) -> int:
        """The length that the peer said it has."""
        return self._peer.length

    @property
    def fork(self) -> int:
        """How often its log has been cut back, as it said."""
        return 0 if self._peer.sync is None else self._peer.sync.fork

    @property
    def is_synced(self) -> bool:
        """Whether the peer has said how far it is."""
        return self._peer.sync is not None

    @property
    def shown(self) -> tuple[int, int] | None:
        """Fork and length of the last head that it has proven here, if any."""
        head = self._peer.claims.shown
        return None if head is None else (head.fork, head.length)

    @property
    def is_connected(self) -> bool:
        return not self._peer.is_gone

    @property
    def contiguous_length(self) -> int:
        """The blocks that the peer said it has without a gap from 0."""
        return self._peer.contiguous_length

    @property
    def round_trip_seconds(self) -> float:
        """How long its answers took lately; 0 before the first."""
        return self._peer.inflight.round_trip_seconds

    @property
    def push_patience_seconds(self) -> float:
        """For how long nothing may come of the blocks that it announces."""
        return self._peer.push_patience_seconds

    @property
    def keeps_word(self) -> bool:
        """Whether the blocks that it announces come, by and large."""
        return self._peer.expected.is_kept

    def send_extension(self, name: str, payload: bytes) -> None:
        """Send to this peer; nothing happens when it is gone."""
        self._replication.send_extension_to(self._peer, name, payload)

    def push_blocks(self, indices: Iterable[int]) -> Sequence[int]:
        """Send blocks that this peer asked for through an extension, in this order.

        Returns those that will be sent: what it has or was sent before is left out, and what is
        over `pushes.MAX_WAITING_PUSHES`. They leave when the connection can carry them, after
        extension messages that are sent before the next checkpoint.
        """
        return self._replication.push_asked(self._peer, indices)

    def allow_pushes(self, count: int) -> None:
        """The peer was asked through an extension: so many blocks may come without a request."""
        self._peer.expected.allow(count)
        self._peer.was_allowed_push = True

    def expect_blocks(self, indices: Iterable[int], instead_of: Iterable[int] = ()) -> None:
        """The peer is likely to send these blocks: they are not requested unless it is late.

        `instead_of` are blocks that were expected, and are not any more.
        """
        self._replication.expect(self._peer, indices, instead_of)

    def expect_announced(self, indices: Iterable[int]) -> None:
        """As `expect_blocks`, for blocks that it announced, in that order, after earlier ones."""
        self._replication.expect_announced(self._peer, indices)


ExtensionHandler = Callable[[bytes, PeerHandle], Awaitable[Sequence[bytes]]]
"""Gets a peer's payload; what it returns is sent back to that peer under the same name."""

ExtensionNote = Callable[[bytes, PeerHandle], bool]
"""Sees a payload before its handler, when the blocks that came along are here.

True if the handler need not see it. It must be quick: the connection waits for it.
"""
