"""The records that `status` and `peers` show, and what people are shown of them."""

from __future__ import annotations

from dataclasses import dataclass


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
    messages_received: int
    messages_sent: int
    bytes_received: int
    bytes_sent: int


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
    store: str
    durability: str
    replicate: str
    discovery: tuple[str, ...]
    uptime_seconds: float
    covalues: int
    peers: int
    blocks: BlockCounts
    clients: ClientCounts
    cores: tuple[CoreStatus, ...]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One connected node. Empty text and zeros are not (yet) known.

    `found_by` says how it was met: by an address that was given, on the LAN, or because it called.
    `held` of the `length` blocks of its data core are kept here.
    """

    id: str
    name: str
    address: str
    found_by: str
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
        ("coValues", f"{status.covalues:,}"),
        *(_block_rows(status.blocks) if has_mesh else ()),
        ("store", _store_text(status)),
        *([("discovery", ", ".join(status.discovery) or "off")] if has_mesh else ()),
        ("data", status.data),
    ]


def _mesh_rows(status: NodeStatus) -> list[tuple[str, str]]:
    kind = "open to everyone who knows the name" if status.mesh_is_open else "by ticket"
    return [
        ("mesh", f"{status.mesh_name or '-'} ({kind}) at {status.mesh}"),
        ("peers", str(status.peers)),
    ]


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


def _store_text(status: NodeStatus) -> str:
    text = f"{status.store}, durability {status.durability}"
    return text if status.mesh is None else f"{text}, replicate {status.replicate}"


_FOUND_BY = {"static": "address", "lan": "LAN", "incoming": "its call"}
_PEER_HEADINGS = ("name", "id", "address", "found by", "blocks here", "received", "sent", "for")
_CORE_HEADINGS = ("core", "key", "blocks held", "bytes in all")


def peer_row(peer: PeerStatus) -> tuple[str, ...]:
    return (
        peer.name or ("-" if peer.is_member else "no member"),
        peer.id[:12],
        peer.address or "-",
        _FOUND_BY.get(peer.found_by, "-"),
        f"{peer.held:,} of {peer.length:,}" if peer.key else "-",
        format_size(peer.bytes_received),
        format_size(peer.bytes_sent),
        format_age(peer.connected_seconds),
    )


def peer_headings() -> tuple[str, ...]:
    return _PEER_HEADINGS


def core_row(core: CoreStatus) -> tuple[str, ...]:
    return (
        core.name or (f"of {core.member}" if core.member else "of us" if core.is_own else "-"),
        core.key[:12],
        f"{core.held:,} of {core.length:,}",
        format_size(core.byte_length),
    )


def core_headings() -> tuple[str, ...]:
    return _CORE_HEADINGS
