"""What each peer is told as soon as it comes, or before that by an end that has nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hypercore.crypto import Entropy
from hypercore.replication.channel import Link
from hypercore.replication.early_data import NAME, NOTHING_HERE, EarlyData
from hypercore.replication.messages import Extension, MessageType
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.remote import RemotePeer
from hypercore.replication.replicated_log import ReplicatedLog


@dataclass(frozen=True, slots=True)
class Greeting:
    """What every peer is sent for a while."""

    name: str
    payload: bytes
    pushes: int

    def send(self, peer: PeerHandle) -> None:
        peer.allow_pushes(self.pushes)
        peer.send_extension(self.name, self.payload)


class Greetings:
    """The greetings of one core, and those of its peers that come early."""

    def __init__(self, log: ReplicatedLog, entropy: Entropy) -> None:
        self._log = log
        self._entropy = entropy
        self._greetings: list[Greeting] = []

    @contextmanager
    def saying(self, greeting: Greeting) -> Iterator[None]:
        """While in this block, peers that come are sent this greeting."""
        self._greetings.append(greeting)
        try:
            yield
        finally:
            self._greetings.remove(greeting)

    def greet(self, peer: PeerHandle) -> None:
        """A peer has come."""
        for greeting in self._greetings:
            greeting.send(peer)

    def early_messages(self, link: Link) -> list[tuple[int, bytes]]:
        """What goes behind the open of the channel: nothing once we have some of the core."""
        if self._log.head.length:
            return []
        key, entropy = self._log.key, self._entropy
        sealed = [
            EarlyData(greeting.name, greeting.payload).seal(link, key, entropy)
            for greeting in self._greetings
        ]
        return [(MessageType.EXTENSION, Extension(NAME, data).encode()) for data in sealed]

    def heard_early(self, payload: bytes, peer: RemotePeer, link: Link) -> EarlyData | None:
        """What a peer has said early; None for what is not for us, or comes too late."""
        if peer.sync not in (None, NOTHING_HERE):
            return None
        return EarlyData.unseal(payload, link, self._log.key)
