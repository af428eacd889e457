"""What a node is told, and what it tells: the engine's settings, outputs and statistics."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.announcement import Address
from swarm.dht.health import Health
from swarm.dht.query import QueryResult, Reply
from swarm.dht.reachability import Role
from swarm.dht.records import RecordStatistics
from swarm.dht.requests import Answered, RequestStatistics, TimedOut, Transmit
from swarm.dht.router import PeerAsked


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is told when it starts.

    `server_port` is the local port of the server's socket. `is_open` says that strangers can
    reach it, `public_address` where; otherwise the node finds out.
    """

    server_port: int
    bootstrap: tuple[Address, ...] = ()
    role: Role = Role.EPHEMERAL
    is_open: bool = False
    public_address: Address | None = None
    nodes: tuple[Address, ...] = ()
    """Nodes known from earlier: asked, like any others, before they are believed in."""


@dataclass(frozen=True, slots=True)
class QueryReplied:
    """A node answered a query."""

    query: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class QueryFinished:
    """A query is over."""

    query: int
    result: QueryResult


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The search for neighbors is over, with whatever success; comes once."""


EngineOutput = (
    Transmit | Answered | TimedOut | QueryReplied | QueryFinished | Bootstrapped | PeerAsked
)


@dataclass(frozen=True, slots=True)
class DhtStatistics:
    """A node now, and counts since it started."""

    role: Role
    is_ephemeral: bool
    is_firewalled: bool
    is_bootstrapped: bool
    health: Health
    public_host: str | None
    public_port: int | None
    nodes: int
    queries: int
    requests: RequestStatistics
    answered: int
    ignored: int
    malformed: int
    refused_by_allowance: int
    passed_on: int
    """Messages between two peers that are not us, or their answers."""
    records: RecordStatistics
