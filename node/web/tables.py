"""The tables that the page and the terminal show: peers, cores, mirrors, tokens, accounts."""

from __future__ import annotations

from node.web.status import (
    AccessStatus,
    AccountStatus,
    CoreStatus,
    MirrorStatus,
    PeerStatus,
    TokenStatus,
)
from node.web.wording import format_age, format_share, format_size

_FOUND_BY = {
    "static": "address",
    "lan": "LAN",
    "dht": "DHT",
    "told": "a member",
    "incoming": "its call",
}
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
    return "-" if limit is None else format_share(used, limit)


def core_row(core: CoreStatus) -> tuple[str, ...]:
    condition = ", frozen" if core.is_frozen else ", stuck at a fork" if core.is_stuck else ""
    return (
        core.name or (f"of {core.member}" if core.member else "of us" if core.is_own else "-"),
        core.key[:12],
        f"{core.held:,} of {core.length:,}{condition}",
        format_size(core.byte_length),
    )


_MIRROR_HEADINGS = ("mirror of", "name", "is a", "range", "held", "peers", "trouble")


def mirror_headings() -> tuple[str, ...]:
    return _MIRROR_HEADINGS


def mirror_row(mirror: MirrorStatus) -> tuple[str, ...]:
    share = f", {format_share(mirror.held, mirror.wanted)}" if mirror.wanted else ""
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
