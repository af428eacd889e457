"""What a swarm tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.io.connection import ConnectionStatistics
from swarm.known_peer import Source
from swarm.reach import Reach


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One connection now; `since_unix_ms` is when its handshake was done."""

    remote_public_key: bytes
    address: str
    source: Source
    reach: Reach
    """The way that its packets take now."""
    is_initiator: bool
    since_unix_ms: int
    statistics: ConnectionStatistics


@dataclass(slots=True)
class Counters:
    """What happened since the swarm was opened."""

    connections_opened: int = 0
    dials: int = 0
    dials_failed: int = 0
    refused: int = 0
    duplicates: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    network_changes: int = 0


@dataclass(frozen=True, slots=True)
class SwarmStatistics:
    """Counts since the swarm was opened, bytes of ended connections included."""

    connections: int
    connections_opened: int
    dials: int
    dials_failed: int
    refused: int
    duplicates: int
    bytes_received: int
    bytes_sent: int
    topics: int
    neighbors: int
    lan_error: str
    found: int
    """Peers that the table told of."""
    network_changes: int
    """Times that this machine had another address, or woke up."""
    is_suspended: bool


def describe(group: BaseExceptionGroup[BaseException]) -> str:
    """The errors inside, in one line."""
    texts: list[str] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            texts.append(describe(error))
        else:
            texts.append(str(error) or type(error).__name__)
    return "; ".join(texts)
