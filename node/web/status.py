"""The records that `status` and `peers` show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """One open log, `held` of whose `length` blocks are stored here.

    Either we write it, or another node does: `member` is its name if it is connected.
    """

    name: str
    member: str
    is_own: bool
    key: str
    length: int
    byte_length: int
    contiguous_length: int
    held: int
    is_frozen: bool = False
    """Whether its writer signed two histories: what is held is served, and nothing is added."""

    is_stuck: bool = False
    """Whether it cannot follow its writer to a later history; see `node.stuck_forks`."""


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Blocks of all open cores; all but what is held counts since the start.

    `held_of_others` of those `held` are of cores that other nodes write.
    `fetched` came from other nodes, and `verified` of them fit a signed tree: the rest was
    refused. Bytes are those of blocks, without proofs.
    """

    held: int
    held_of_others: int
    fetched: int
    verified: int
    uploaded: int
    fetched_bytes: int
    uploaded_bytes: int


@dataclass(frozen=True, slots=True)
class ClientCounts:
    """Jazz clients: connected now, and what went through since the start."""

    connected: int
    accepted: int
    refused: int
    unauthorized: int
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


@dataclass(frozen=True, slots=True)
class SyncCounts:
    """What the sync engine did since the start; `in_memory` and `subscribed` are now.

    `refused` are messages of which nothing was kept, `forks` sessions of which a second
    continuation was seen, `erased` deleted values whose content was removed from the disk.
    Of `forked_cores` the writer signed two histories; `false_evidence` of forks was refused.
    Damage kept messages from being stored at all (`not_stored`), or from being shared: `not_shared`
    is how often a value went to SQLite only. `withheld` names values, of those that were read, that
    clients cannot take, wholly or in part, and why. `left` values and blocks are still to be
    fetched from members, or confirmed by them; `waiting` acknowledgements to clients wait for
    copies.
    """

    in_memory: int
    subscribed: int
    transactions: int
    commits: int
    refused: int
    bad_lines: int
    forks: int
    erased: int
    forked_cores: int = 0
    false_evidence: int = 0
    not_stored: int = 0
    not_shared: int = 0
    withheld: Mapping[str, str] = field(default_factory=dict)
    left: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class CompactionStatus:
    """What is dead in the data bee as of the last look, and what compacting has freed so far.

    Without a data bee, and before the first look, all is 0. Bytes are those of blocks.
    """

    is_running: bool = False
    dead_share: float = 0.0
    dead_bytes: int = 0
    compactions: int = 0
    blocks: int = 0
    bytes: int = 0

    def estimated(self, dead_share: float, dead_bytes: int) -> CompactionStatus:
        return replace(self, dead_share=dead_share, dead_bytes=dead_bytes)

    def begun(self) -> CompactionStatus:
        return replace(self, is_running=True)

    def finished(self, blocks: int, size_bytes: int) -> CompactionStatus:
        return CompactionStatus(
            compactions=self.compactions + 1,
            blocks=self.blocks + blocks,
            bytes=self.bytes + size_bytes,
        )


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """What clients with one token did; `name` is `other` for all but the busiest tokens."""

    name: str
    connections: int
    frames: int
    bytes: int
    refused: int


@dataclass(frozen=True, slots=True)
class AccountStatus:
    """What one account has stored and created here."""

    id: str
    bytes: int
    values: int


@dataclass(frozen=True, slots=True)
class AccessStatus:
    """Who may do what, what was refused since the start, and what is used of quotas.

    None: no such bound. `refused` has a number for each reason, `accounts` those that use most.
    `lists_error` tells why changed files are not in force, empty when they are.
    `slowed` counts how often a client was left unread for its rate. It `is_shut` when a token is
    needed and there is none.
    """

    needs_token: bool
    allowed: int | None
    denied: int
    lists_error: str
    refused: dict[str, int]
    slowed: int
    sent_away: int
    account_bytes: int | None
    account_values: int | None
    accounts_counted: int
    accounts_full: int
    accounts: tuple[AccountStatus, ...]
    tokens: tuple[TokenStatus, ...]
    is_shut: bool = False


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """The disk that the data directory is on. `trouble` says why nothing is taken in, if so.

    `used_bytes` are those of the data directory, `max_bytes` its quota, None for none.
    `recoveries` counts how often, since the start, it could be written to again.
    """

    free_bytes: int = 0
    used_bytes: int = 0
    max_bytes: int | None = None
    trouble: str = ""
    trouble_since_unix: float | None = None
    recoveries: int = 0


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """Blocks of others' cores that may be given up, those given up since the start, and bytes."""

    limit: int = 0
    bytes: int = 0
    blocks: int = 0
    evicted_blocks: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """`key` is what others name with --relay; `links` are open now, `links_opened` were in all."""

    key: str
    links: int
    links_opened: int
    refused: int
    bytes_left: int


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """A core of somebody else's that is kept here: `held` of the `wanted` blocks of its range.

    `kind` is bee or core once its first block has come. `trouble` is empty where there is none.
    """

    key: str
    name: str
    kind: str
    start: int
    stop: int | None
    length: int
    fork: int
    byte_length: int
    wanted: int
    held: int
    is_complete: bool
    peers: int
    trouble: str


@dataclass(frozen=True, slots=True)
class PenaltyStatus:
    """A member that was sent away for what it did, for the `times`-th time."""

    id: str
    reason: str
    times: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node at one moment. `key`, of its data core, and `mesh` are None without a mesh."""

    name: str
    id: str
    key: str | None
    version: str
    data: str
    ws: str
    mesh: str | None
    admin: str
    mesh_name: str
    mesh_is_open: bool
    mesh_is_encrypted: bool
    mesh_role: str
    mesh_role_expiry: int | None
    mesh_trouble: str
    store: str
    durability: str
    replicate: str
    discovery: tuple[str, ...]
    uptime_seconds: float
    covalues: int
    peers: int
    blocks: BlockCounts
    clients: ClientCounts
    sync: SyncCounts
    cores: tuple[CoreStatus, ...]
    access: AccessStatus
    mirrors: tuple[MirrorStatus, ...] = ()
    cache: CacheStatus = field(default_factory=CacheStatus)
    disk: DiskStatus = field(default_factory=DiskStatus)
    compaction: CompactionStatus = field(default_factory=CompactionStatus)
    hypercore: Mapping[str, float] = field(default_factory=dict)
    """The open cores under the names of `hypercore-stats`."""
    penalties: tuple[PenaltyStatus, ...] = ()
    """Members sent away, the last one first; some may be back by now (`seconds_left` is 0)."""
    ways: Mapping[str, int] = field(default_factory=dict)
    """How many nodes are connected by which way; see `PeerStatus.reach`."""
    relay: RelayStatus | None = None
    """The blind relay that this node is for others; None if it is not one."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One connected node. Empty text and zeros are not (yet) known.

    `found_by` says how it was met: by an address that was given, on the LAN, through the DHT, by a
    member's word, or because it called; `reach` says which way its packets take: lan, direct,
    punched, relayed, tcp or websocket. Of the `length` blocks of its data core `held` are here.
    """

    id: str
    name: str
    address: str
    found_by: str
    reach: str
    is_member: bool
    is_initiator: bool
    key: str
    length: int
    held: int
    bytes_received: int
    bytes_sent: int
    connected_seconds: float
