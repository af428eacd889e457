"""What a stream tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.udx.congestion import BbrState


@dataclass(frozen=True, slots=True)
class UdxStatistics:
    """One stream: bytes are those of datagrams, the window is in packets."""

    bytes_received: int
    bytes_sent: int
    packets_received: int
    packets_sent: int
    packets_dropped: int
    """Received, and beyond our window."""
    retransmissions: int
    timeouts: int
    recoveries: int
    """How often losses began to be repaired without a time-out."""
    round_trip_seconds: float | None
    min_round_trip_seconds: float | None
    window: int
    in_flight: int
    bandwidth: float
    """Bytes per second that the path was seen to deliver."""
    mtu: int
    bbr_state: BbrState
    queued_bytes: int
    """Sent or not, and not acknowledged."""
    buffered_bytes: int
    """Received, and not read."""
