"""The records that `status` and `peers` show, and what people are shown of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime


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
    """Its writer signed two histories: what is held is served, and nothing is added."""


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Blocks of all open cores; all but what is held counts since the start.

    `held_of_others` of those `held` are of cores that other nodes write.
    `fetched` came from other nodes and `verified` of them fitted a signed tree: the rest was
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


@dataclass(frozen=True, slots=True)
class CompactionStatus:
    """What is dead in the data bee as of the last look, and what compacting it freed so far.

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
    """What clients did that came with one token; `name` is `other` for all but the busiest."""

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
    """Who may do what, what that refused since the start, and what is used of quotas.

    None: no such bound. `refused` has one number a reason, `accounts` those that use most.
    `lists_error` tells why changed files are not in force, empty when they are.
    `slowed` counts how often a client was left unread for its rate.
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


@dataclass(frozen=True, slots=True)
class DiskStatus:
    """The disk that the data directory is on. `trouble` says why nothing is taken in, if so.

    `used_bytes` are those of the data directory, `max_bytes` its quota, None for none.
    `recoveries` counts how often it went on since the start.
    """

    free_bytes: int = 0
    used_bytes: int = 0
    max_bytes: int | None = None
    trouble: str = ""
    trouble_since_unix: float | None = None
    recoveries: int = 0


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """Blocks of other nodes' cores that may be given up, and what was since the start; bytes."""

    limit: int = 0
    bytes: int = 0
    blocks: int = 0
    evicted_blocks: int = 0
    evicted_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """`key` is what others name with --relay; `links` pass packets now, `links_opened` in all."""

    key: str
    links: int
    links_opened: int
    refused: int
    bytes_left: int


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """A core of somebody else's that is kept here: `held` of the `wanted` blocks of its range.

    `kind` is bee or core once its first block came. `trouble` is empty where there is none.
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
    """Members that may not come back yet; the last one first."""
    ways: Mapping[str, int] = field(default_factory=dict)
    """How many nodes are connected by which way; see `PeerStatus.reach`."""
    relay: RelayStatus | None = None
    """The blind relay that this node is for others; None if it is none."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One connected node. Empty text and zeros are not (yet) known.

    `found_by` says how it was met: by an address that was given, on the LAN, through the DHT, or
    because it called; `reach` which way its packets take: lan, direct, punched, relayed, tcp or
    websocket.
    `held` of the `length` blocks of its data core are kept here.
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


def format_size(size: float) -> str:
    """Bytes for people: 1.5 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_age(seconds: float) -> str:
    """A span of time for people, in its two largest units: 3 d 4 h."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= length or (unit == "s" and not parts):
            parts.append(f"{left // length} {unit}")
            left %= length
    return " ".join(parts[:2])


def format_moment(unix_seconds: object) -> str:
    """A time for people, to the minute; `-` for none."""
    if not isinstance(unix_seconds, int | float):
        return "-"
    try:
        return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        return "never"  # beyond the calendar


def describe_role(role: str, expiry: object) -> str:
    """What a member may do, and until when."""
    if not role:
        return "none"
    return role if expiry is None else f"{role} until {format_moment(expiry)} UTC"


_SHOWN_PENALTIES = 8


def status_rows(status: NodeStatus) -> list[tuple[str, str]]:
    """What both the page and the terminal show about a node, top to bottom."""
    clients = status.clients
    has_mesh = status.mesh is not None
    return [
        ("name", status.name),
        ("id", status.id),
        *([("data core", status.key)] if status.key is not None else ()),
        ("up for", format_age(status.uptime_seconds)),
        *(_mesh_rows(status) if has_mesh else [("mesh", "none: --store sqlite")]),
        ("Jazz clients", f"{clients.connected} at {status.ws}"),
        ("coValues", f"{status.covalues:,}, {status.sync.in_memory:,} in memory"),
        ("transactions", f"{status.sync.transactions:,} stored in {status.sync.commits:,} commits"),
        *_trouble_rows(status.sync),
        *(
            (
                f"sent away {penalty.id[:12]}",
                f"for {format_age(penalty.seconds_left)}: {penalty.reason}",
            )
            for penalty in status.penalties[:_SHOWN_PENALTIES]
        ),
        *_compaction_rows(status.compaction),
        *(_block_rows(status.blocks) if has_mesh else ()),
        *_mirror_rows(status.mirrors),
        *_cache_rows(status.cache),
        ("disk", _disk_text(status.disk)),
        ("store", _store_text(status)),
        *([("discovery", ", ".join(status.discovery) or "off")] if has_mesh else ()),
        ("access", describe_access(status.access)),
        ("refused", describe_refusals(status)),
        ("data", status.data),
    ]


def _trouble_rows(sync: SyncCounts) -> list[tuple[str, str]]:
    """What somebody may have to look at; nothing as a rule."""
    rows = (
        ("forked sessions", sync.forks, "`beemesh forks` lists them"),
        ("forked cores", sync.forked_cores, "`beemesh forks` lists them"),
        ("false evidence refused", sync.false_evidence, "who sent it was sent away"),
        ("deleted and erased", sync.erased, "coValues"),
    )
    return [(title, f"{count:,} ({text})") for title, count, text in rows if count]


def _compaction_rows(compaction: CompactionStatus) -> list[tuple[str, str]]:
    """What deletions and edits left, and what came back; nothing while there is none of either."""
    parts = []
    if compaction.is_running:
        parts.append("running")
    if compaction.dead_bytes:
        size = format_size(compaction.dead_bytes)
        parts.append(f"{size} dead ({compaction.dead_share:.0%})")
    if compaction.compactions:
        parts.append(f"{compaction.blocks:,} blocks ({format_size(compaction.bytes)}) freed")
    return [("compaction", ", ".join(parts))] if parts else []


def _mesh_rows(status: NodeStatus) -> list[tuple[str, str]]:
    kind = "open to everyone who knows the name" if status.mesh_is_open else "by ticket"
    if status.mesh_is_encrypted:
        kind += ", encrypted"
    trouble = [("TROUBLE", status.mesh_trouble)] if status.mesh_trouble else []
    return [
        ("mesh", f"{status.mesh_name or '-'} ({kind}) at {status.mesh}"),
        ("role", describe_role(status.mesh_role, status.mesh_role_expiry)),
        *trouble,
        ("peers", _peers_text(status)),
        *_relay_rows(status.relay),
    ]


def _peers_text(status: NodeStatus) -> str:
    ways = ", ".join(f"{count} {way}" for way, count in sorted(status.ways.items()))
    return f"{status.peers} ({ways})" if ways else str(status.peers)


def _relay_rows(relay: RelayStatus | None) -> list[tuple[str, str]]:
    if relay is None:
        return []
    left = f"{format_size(relay.bytes_left)} left today"
    return [("relays for others", f"{relay.links} links, {left}"), ("relay key", relay.key)]


def _block_rows(blocks: BlockCounts) -> list[tuple[str, str]]:
    return [
        (
            "blocks held",
            f"{blocks.held:,}: {blocks.held - blocks.held_of_others:,} own, "
            f"{blocks.held_of_others:,} of other nodes",
        ),
        (
            "blocks fetched",
            f"{blocks.fetched:,} ({format_size(blocks.fetched_bytes)}), "
            f"{blocks.verified:,} verified",
        ),
        ("blocks uploaded", f"{blocks.uploaded:,} ({format_size(blocks.uploaded_bytes)})"),
    ]


def _disk_text(disk: DiskStatus) -> str:
    used = f"{format_size(disk.used_bytes)} used"
    if disk.max_bytes is not None:
        used += f" of {format_size(disk.max_bytes)}"
    text = f"{used}, {format_size(disk.free_bytes)} free"
    return f"NOTHING IS TAKEN IN: {disk.trouble}; {text}" if disk.trouble else text


def _cache_rows(cache: CacheStatus) -> list[tuple[str, str]]:
    if not cache.limit:
        return []
    text = f"{format_size(cache.bytes)} of {format_size(cache.limit)}, {cache.blocks:,} blocks"
    if cache.evicted_blocks:
        gone = format_size(cache.evicted_bytes)
        text += f"; {cache.evicted_blocks:,} blocks ({gone}) given up"
    return [("cache of blocks", text)]


def _mirror_rows(mirrors: tuple[MirrorStatus, ...]) -> list[tuple[str, str]]:
    if not mirrors:
        return []
    held, wanted = (
        sum(counts) for counts in zip(*((m.held, m.wanted) for m in mirrors), strict=True)
    )
    troubled = sum(bool(mirror.trouble) for mirror in mirrors)
    text = f"{len(mirrors)}: {held:,} of {wanted:,} blocks"
    return [("mirrors", f"{text}, {troubled} in trouble" if troubled else text)]


def _store_text(status: NodeStatus) -> str:
    text = f"{status.store}, durability {status.durability}"
    return text if status.mesh is None else f"{text}, replicate {status.replicate}"


def describe_access(access: AccessStatus) -> str:
    """Who may do what, in a line."""
    parts = ["token needed"] if access.needs_token else []
    if access.allowed is not None:
        parts.append(f"{access.allowed:,} accounts allowed")
    if access.denied:
        parts.append(f"{access.denied:,} denied")
    if access.account_bytes is not None:
        parts.append(f"{format_size(access.account_bytes)} an account")
    if access.account_values is not None:
        parts.append(f"{access.account_values:,} values an account")
    if access.lists_error:
        parts.append(f"CHANGED LISTS NOT IN FORCE: {access.lists_error}")
    if access.accounts_full:
        parts.append(f"{access.accounts_full:,} of {access.accounts_counted:,} accounts full")
    return ", ".join(parts) or "open to everybody"


def describe_refusals(status: NodeStatus) -> str:
    """What was refused and slowed since the start, in a line."""
    access = status.access
    counts = {
        "no token": status.clients.unauthorized,
        **{reason.replace("_", " "): count for reason, count in access.refused.items()},
        "sent away": access.sent_away,
        "slowed": access.slowed,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing"


_FOUND_BY = {"static": "address", "lan": "LAN", "dht": "DHT", "incoming": "its call"}
_PEER_HEADINGS = (
    "name", "id", "address", "found by", "way", "blocks here", "received", "sent", "for",
)  # fmt: skip
_CORE_HEADINGS = ("core", "key", "blocks held", "bytes in all")


def peer_row(peer: PeerStatus) -> tuple[str, ...]:
    return (
        peer.name or ("-" if peer.is_member else "no member"),
        peer.id[:12],
        peer.address or "-",
        _FOUND_BY.get(peer.found_by, "-"),
        peer.reach or "-",
        f"{peer.held:,} of {peer.length:,}" if peer.key else "-",
        format_size(peer.bytes_received),
        format_size(peer.bytes_sent),
        format_age(peer.connected_seconds),
    )


def peer_headings() -> tuple[str, ...]:
    return _PEER_HEADINGS


_TOKEN_HEADINGS = ("token", "connections", "frames", "received", "refused")
_ACCOUNT_HEADINGS = ("account", "stored", "of quota", "values", "of quota")


def token_headings() -> tuple[str, ...]:
    return _TOKEN_HEADINGS


def token_row(token: TokenStatus) -> tuple[str, ...]:
    return (
        token.name,
        f"{token.connections:,}",
        f"{token.frames:,}",
        format_size(token.bytes),
        f"{token.refused:,}",
    )


def account_headings() -> tuple[str, ...]:
    return _ACCOUNT_HEADINGS


def account_row(account: AccountStatus, access: AccessStatus) -> tuple[str, ...]:
    return (
        account.id,
        format_size(account.bytes),
        _share(account.bytes, access.account_bytes),
        f"{account.values:,}",
        _share(account.values, access.account_values),
    )


def _share(used: int, limit: int | None) -> str:
    return "-" if limit is None else f"{100 * used / limit:.0f} %"


def core_row(core: CoreStatus) -> tuple[str, ...]:
    return (
        core.name or (f"of {core.member}" if core.member else "of us" if core.is_own else "-"),
        core.key[:12],
        f"{core.held:,} of {core.length:,}" + (", frozen" if core.is_frozen else ""),
        format_size(core.byte_length),
    )


_MIRROR_HEADINGS = ("mirror of", "name", "is a", "range", "held", "peers", "")


def mirror_headings() -> tuple[str, ...]:
    return _MIRROR_HEADINGS


def mirror_row(mirror: MirrorStatus) -> tuple[str, ...]:
    share = f", {100 * mirror.held // mirror.wanted} %" if mirror.wanted else ""
    return (
        mirror.key,
        mirror.name or "-",
        mirror.kind or "?",
        f"{mirror.start}:{'' if mirror.stop is None else mirror.stop}",
        f"{mirror.held:,} of {mirror.wanted:,}{share}",
        str(mirror.peers),
        mirror.trouble,
    )


def core_headings() -> tuple[str, ...]:
    return _CORE_HEADINGS
