"""Statistics in, page out: the records that `status` and `peers` show, and the status page.

The page is one HTML document with its style inside: no build step, no script, no other request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class CoreStatus:
    """One log: `held` of `length` blocks are stored here, `stored_bytes` of `byte_length`."""

    name: str
    key: str
    length: int
    byte_length: int
    contiguous_length: int
    held: int


@dataclass(frozen=True, slots=True)
class BlockCounts:
    """Blocks of all open cores; all but `held` count since the start.

    `fetched` came from other nodes and `verified` of them fitted a signed tree: the rest was
    refused. Bytes are those of blocks, without proofs.
    """

    held: int
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
    """One node at one moment."""

    name: str
    id: str
    key: str
    version: str
    data: str
    ws: str
    mesh: str
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

    `held` of the `length` blocks of its data core are kept here.
    """

    id: str
    name: str
    address: str
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
    blocks, clients = status.blocks, status.clients
    mesh_kind = "open to everyone who knows the name" if status.mesh_is_open else "by ticket"
    return [
        ("name", status.name),
        ("id", status.id),
        ("data core", status.key),
        ("up for", format_age(status.uptime_seconds)),
        ("Jazz clients", f"{clients.connected} at {status.ws}"),
        ("mesh", f"{status.mesh_name or '-'} ({mesh_kind}) at {status.mesh}"),
        ("peers", str(status.peers)),
        ("coValues", f"{status.covalues:,}"),
        ("blocks held", f"{blocks.held:,}"),
        (
            "blocks fetched",
            f"{blocks.fetched:,} ({format_size(blocks.fetched_bytes)}), "
            f"{blocks.verified:,} verified",
        ),
        ("blocks uploaded", f"{blocks.uploaded:,} ({format_size(blocks.uploaded_bytes)})"),
        ("store", f"{status.store}, durability {status.durability}, replicate {status.replicate}"),
        ("discovery", ", ".join(status.discovery) or "off"),
        ("data", status.data),
    ]


_PEER_HEADINGS = ("node", "name", "address", "member", "its data core", "received", "sent", "for")
_CORE_HEADINGS = ("core", "key", "length", "held", "bytes")


def peer_row(peer: PeerStatus) -> tuple[str, ...]:
    return (
        peer.id[:12],
        peer.name or "-",
        peer.address or "-",
        "yes" if peer.is_member else "no",
        f"{peer.held:,} of {peer.length:,} blocks here" if peer.key else "-",
        format_size(peer.bytes_received),
        format_size(peer.bytes_sent),
        format_age(peer.connected_seconds),
    )


def peer_headings() -> tuple[str, ...]:
    return _PEER_HEADINGS


def core_row(core: CoreStatus) -> tuple[str, ...]:
    return (
        core.name or "-",
        core.key[:12],
        f"{core.length:,}",
        f"{core.held:,}",
        format_size(core.byte_length),
    )


def core_headings() -> tuple[str, ...]:
    return _CORE_HEADINGS


def render_status(status: NodeStatus, peers: Sequence[PeerStatus]) -> str:
    """The status page. It asks the browser to load it again every five seconds."""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in status_rows(status)
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        "<meta http-equiv=refresh content=5>"
        f"<title>{escape(status.name)} - beemesh</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>{escape(status.name)}</h1><dl>{facts}</dl>"
        f"<h2>Peers</h2>{_table(_PEER_HEADINGS, map(peer_row, peers), 'No node is connected.')}"
        f"<h2>Cores</h2>{_table(_CORE_HEADINGS, map(core_row, status.cores), 'None.')}"
        f"<footer>beemesh {escape(status.version)}</footer></main></body></html>"
    )


def _table(headings: Iterable[str], rows: Iterable[Sequence[str]], if_empty: str) -> str:
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    if not body:
        return f"<p>{escape(if_empty)}</p>"
    head = "".join(f"<th scope=col>{escape(heading)}</th>" for heading in headings)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


_STYLE = """
:root{color-scheme:light dark;--line:#8884;--dim:#666}
@media(prefers-color-scheme:dark){:root{--dim:#aaa}}
body{font:16px/1.5 system-ui,sans-serif;margin:0;padding:1rem}
main{max-width:60rem;margin:auto}h1{margin:.2rem 0 1rem}h2{margin:2rem 0 .5rem;font-size:1.1rem}
dl{margin:0}
dl div{display:flex;flex-wrap:wrap;gap:0 1rem;border-top:1px solid var(--line);padding:.3rem 0}
dt{flex:0 0 9rem;color:var(--dim)}dd{flex:1 1 14rem;margin:0;overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem 1rem .3rem 0;border-top:1px solid var(--line)}
th,td{white-space:nowrap}
th{color:var(--dim);font-weight:normal}footer,p{color:var(--dim);margin-top:1rem}
"""
