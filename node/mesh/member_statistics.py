"""One member, as people see it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemberStatistics:
    """One member at one moment; the round trip is that of the last query."""

    id: bytes
    key: bytes
    name: str
    role: str
    policies: tuple[str, ...]
    since_unix_seconds: float
    length: int
    blocks_fetched: int
    bytes_fetched: int
    refused: int
    failures: int
    queries_asked: int
    queries_answered: int
    updates_received: int
    updates_sent: int
    round_trip_seconds: float | None
