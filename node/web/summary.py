"""What the page and the terminal show about a node, a line for each thing."""

from __future__ import annotations

from node.web.status import (
    AccessStatus,
    BlockCounts,
    CacheStatus,
    CompactionStatus,
    DiskStatus,
    MirrorStatus,
    NodeStatus,
    PenaltyStatus,
    RelayStatus,
    SyncCounts,
)
from node.web.wording import describe_role, format_age, format_share, format_size

_SHOWN_PENALTIES = 8

_DAMAGE = "for damage: `beemesh core verify --repair`"


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
            (f"sent away {penalty.id[:12]}", f"{_penalty_text(penalty)}: {penalty.reason}")
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
    """What somebody may have to look at; usually nothing."""
    rows = (
        ("NOT STORED", sync.not_stored, f"messages, {_DAMAGE}"),
        ("NOT SHARED", sync.not_shared, f"edits that only our clients have, {_DAMAGE}"),
        ("WITHHELD", len(sync.withheld), "coValues that clients cannot take: `status --json`"),
        ("forked sessions", sync.forks, "`beemesh forks` lists them"),
        ("forked cores", sync.forked_cores, "`beemesh forks` lists them"),
        ("false evidence refused", sync.false_evidence, "its senders were sent away"),
        ("deleted and erased", sync.erased, "coValues"),
    )
    return [(title, f"{count:,} ({text})") for title, count, text in rows if count]


def _penalty_text(penalty: PenaltyStatus) -> str:
    if not penalty.seconds_left:
        return "may be back"
    return f"for {format_age(penalty.seconds_left)}"


def _compaction_rows(compaction: CompactionStatus) -> list[tuple[str, str]]:
    """What deletions and edits left behind, and what was freed; nothing while both are zero."""
    parts = []
    if compaction.is_running:
        parts.append("running")
    if compaction.dead_bytes:
        size = format_size(compaction.dead_bytes)
        parts.append(f"{size} dead ({format_share(compaction.dead_share)})")
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
    """Who may do what, in one line."""
    parts = ["token needed"] if access.needs_token else []
    if access.is_shut:
        parts = ["NO CLIENT GETS IN: a token is needed, and there is none"]
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
    """What was refused and slowed since the start, in one line."""
    access = status.access
    counts = {
        "no token": status.clients.unauthorized,
        "messages": status.sync.refused,
        "unreadable lines": status.sync.bad_lines,
        **{reason.replace("_", " "): count for reason, count in access.refused.items()},
        "sent away": access.sent_away,
        "slowed": access.slowed,
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing"
