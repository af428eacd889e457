"""What replication has done so far, counted per peer and in total."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Counters:
    """Running counts of one peer, or of all that are gone."""

    blocks_received: int = 0
    """Blocks that were asked for, verified and stored."""

    bytes_received: int = 0
    """Their bytes, as stored."""

    blocks_sent: int = 0
    bytes_sent: int = 0
    upgrades_received: int = 0
    requests_sent: int = 0
    requests_received: int = 0
    no_data_received: int = 0
    no_data_sent: int = 0
    answers_ignored: int = 0
    """Answers that nobody waits for any more: cancelled, unknown, stale, or stored already."""

    answers_retried: int = 0
    """Blocks asked for again because the nodes below them never came."""

    def add(self, other: Counters) -> None:
        for field in fields(self):
            name = field.name
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One peer of one core. Seconds are 0.0 before the first answer."""

    remote_public_key: bytes
    fork: int
    length: int
    """What the peer last said of itself."""

    contiguous_length: int
    requests_in_flight: int
    requests_waiting: int
    """The peer's requests that are not answered yet."""

    round_trip_seconds: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class ReplicationStatistics:
    """One core: its present peers, and the counts over these and all that left."""

    peers: tuple[PeerStatistics, ...]
    total: Counters
    peers_refused: int
    """Peers that sent an invalid proof, message or capability."""
