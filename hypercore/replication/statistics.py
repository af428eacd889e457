"""What replication has done so far, counted per peer and in total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from operator import add

from hypercore.replication.messages import MessageType


@dataclass(slots=True)
class Counters:
    """Running counts of one peer, or of all that are gone."""

    blocks_received: int = 0
    """Blocks that were verified and stored, pushed ones among them."""

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

    hotswaps: int = 0
    """Requests that this peer took over from slower ones."""

    pushes_sent: int = 0
    pushes_received: int = 0
    """Blocks that came unasked, verified and stored."""

    invalid_requests: int = 0
    """Requests of the peer that could not be answered."""

    invalid_data: int = 0
    """Answers of the peer that proved something wrong."""

    def add(self, other: Counters) -> None:
        for field in fields(self):
            name = field.name
            setattr(self, name, getattr(self, name) + getattr(other, name))


class WireCounts:
    """How many messages of each type came and went."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = [0] * len(MessageType)
        self.sent = [0] * len(MessageType)

    def count_sent(self, messages: Iterable[tuple[int, bytes]]) -> None:
        sent = self.sent
        for message_type, _ in messages:
            sent[message_type] += 1

    def add(self, other: WireCounts) -> None:
        self.received = list(map(add, self.received, other.received))
        self.sent = list(map(add, self.sent, other.sent))

    def named(self) -> dict[str, int]:
        """By names such as `wire_sync_rx`; rx and tx are as seen from here."""
        named = {}
        for message_type in MessageType:
            name = message_type.name.lower()
            named[f"wire_{name}_rx"] = self.received[message_type]
            named[f"wire_{name}_tx"] = self.sent[message_type]
        return named


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """One peer of one core. Seconds are 0.0 before the first answer."""

    remote_public_key: bytes
    fork: int
    length: int
    """What the peer last said of itself."""

    contiguous_length: int
    requests_in_flight: int
    max_requests_in_flight: int
    requests_waiting: int
    """The peer's requests that are not answered yet."""

    round_trip_seconds: float
    seconds_per_block: float
    """Between two answers while more are due."""

    allows_push: bool
    counters: Counters
    wire: Mapping[str, int]
    """Messages by type and direction: `wire_data_rx` and so on."""


@dataclass(frozen=True, slots=True)
class ReplicationStatistics:
    """One core: its present peers, and the counts over these and all that left."""

    peers: tuple[PeerStatistics, ...]
    total: Counters
    wire: Mapping[str, int]
    peers_refused: int
    """Peers that sent an invalid proof, message or capability."""
