"""What a core tells about itself, as values."""

from __future__ import annotations

from dataclasses import dataclass

from hypercore.replication.statistics import ReplicationStatistics


@dataclass(frozen=True, slots=True)
class CoreInfo:
    """What a core is at one moment."""

    key: bytes
    discovery_key: bytes
    is_writable: bool
    is_encrypted: bool
    length: int
    byte_length: int
    contiguous_length: int
    durable_length: int
    fork: int
    blocks_held: int
    peers: int
    sessions: int
    """How many users keep it open, snapshots among them."""
    is_recovering: bool
    """Its newest blocks may have been lost: it takes no more until peers have been asked."""

    is_frozen: bool
    """The writer signed two histories; the core's `fork_proof` shows it."""


@dataclass(frozen=True, slots=True)
class CoreStatistics:
    """What one core has done since it was opened."""

    blocks_appended: int
    blocks_verified: int
    """Blocks of others, each proven against a signed head before it was stored."""
    replication: ReplicationStatistics
