"""What a `Replicator` wants done, in the order in which it is carried out."""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.errors import RemoteProtocolError
from hypercore.replication.remote import RemotePeer


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send these messages to the peer, in order."""

    peer: RemotePeer
    messages: list[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class Answerable:
    """The peer's requests wait: `take` from them when its connection can carry more."""

    peer: RemotePeer


@dataclass(frozen=True, slots=True)
class ExtensionReceived:
    """A message of a protocol on top."""

    peer: RemotePeer
    name: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class EndChannel:
    """End this peer's channel: as idle when `error` is None, else for what the peer sent."""

    peer: RemotePeer
    error: RemoteProtocolError | None


@dataclass(frozen=True, slots=True)
class AbortConnection:
    """The peer does not speak the protocol: end its whole connection."""

    peer: RemotePeer
    error: RemoteProtocolError


Output = Transmit | Answerable | ExtensionReceived | EndChannel | AbortConnection
