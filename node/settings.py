"""How the value of each setting is written, wherever it was given."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from node.notation import format_address, parse_address, parse_duration, parse_size


class SecretText(str):
    """Text that does not show when a configuration is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Endpoint(msgspec.Struct, frozen=True):
    """Where to listen. Port 0 picks a free one; a default that `may_move` does so if taken."""

    host: str
    port: int
    may_move: bool = False

    def __str__(self) -> str:
        return format_address(self.host, self.port)


def _endpoint(default_host: str) -> Callable[[object], Endpoint]:
    return lambda value: Endpoint(*parse_address(str(value), default_host))


def _list(value: object) -> tuple[str, ...]:
    """A TOML list, a tuple of repeated flags, or text with commas.

    Blank text is refused: it is what an unset variable of a script leaves.
    """
    items = value.split(",") if isinstance(value, str) else list(_expect(value, list, tuple))
    texts = tuple(text for item in items if (text := str(item).strip()))
    if items and not texts:
        raise ValueError("it is empty: leave it out, or name something")
    return texts


def _some(value: object) -> tuple[str, ...]:
    """A list that lets in only those on it; an empty one is refused, as it could mean either."""
    if not (texts := _list(value)):
        raise ValueError("an empty list: leave it out to let all in, or name somebody")
    return texts


def _expect(value: object, *types: type) -> Iterable[object]:
    if isinstance(value, types) and isinstance(value, Iterable):
        return value
    raise ValueError(f"{value!r} is no list")


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value in choices:
            return str(value)
        raise ValueError(f"{value!r} is none of {', '.join(choices)}")

    return parse


def _discovery(value: object) -> tuple[str, ...]:
    ways = _list(value)
    if ways == ("off",):
        return ()
    for way in ways:
        if way == "off":
            raise ValueError("'off' excludes the others: say off, lan, dht or lan,dht")
        if way not in ("lan", "dht"):
            raise ValueError(f"{way!r} is neither lan, dht nor off")
    return ways


def _bootstrap(value: object) -> tuple[str, ...]:
    from swarm.dht.bootstrap import parse_bootstrap  # late: few need it, and it takes time

    texts = _list(value)
    for text in texts:
        parse_bootstrap(text)
    return texts


def _websockets(value: object) -> tuple[str, ...]:
    from swarm.io.websocket import WebSocketAddress  # as above

    return tuple(WebSocketAddress.parse(text).url for text in _list(value))


def _relay(value: object) -> tuple[str, ...]:
    from hypercore.crypto import decode_id  # as above

    texts = _list(value)
    for text in texts:
        decode_id(text)
    return texts


def _joins(value: object) -> tuple[str, ...]:
    from node.joining import parse_joins  # as above

    texts = _list(value)
    parse_joins(texts)
    return texts


def _durability(value: object) -> str:
    text = str(value).strip()
    if not re.fullmatch(r"commit|os|group\(\d{1,5}\)", text):
        raise ValueError(f"{value!r} is none of commit, group(MILLISECONDS), os")
    return text


def _boolean(value: object) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if (truth := words.get(str(value).strip().lower())) is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return truth


def _count(value: object) -> int:
    text = str(value).strip()
    if not re.fullmatch(r"\d{1,9}", text) or not (count := int(text)):
        raise ValueError(f"{value!r} is no count of at least 1")
    return count


def _share(value: object) -> float | None:
    text = str(value).strip()
    if text == "off":
        return None
    match = re.fullmatch(r"(\d{0,3}(?:\.\d{1,6})?)(%?)", text)
    if match is None or not match.group(1) or match.group(1) == ".":
        raise ValueError(f"{value!r} is no share; write 0.5, 50% or off")
    share = float(match.group(1)) / (100 if match.group(2) else 1)
    if not 0 < share <= 1:
        raise ValueError(f"{value!r} is not above 0 and at most 1")
    return share


def _age(value: object) -> float:
    seconds = parse_duration(value)
    if seconds < 1:
        raise ValueError(f"{value!r} is less than a second")
    return seconds


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > 128:
        raise ValueError("must be text of 1 to 128 characters")
    return value.strip()


def _path(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError(f"{value!r} names no file")
    return Path(str(value)).expanduser().absolute()


def _tokens(value: object) -> tuple[SecretText, ...]:
    if not isinstance(value, str | list | tuple):
        raise ValueError("no list of tokens")  # the value is not shown: it may be one
    return tuple(map(SecretText, _some(value)))


def _hosts(value: object) -> tuple[str, ...]:
    texts = _list(value)
    for text in texts:
        if not re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", text):
            raise ValueError(f"{text!r} is no host name; write status.example.org, without a port")
    return texts


def _networks(value: object) -> tuple[str, ...]:
    texts = _list(value)
    for text in texts:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(
                f"{text!r} is no address and no network; write 10.0.0.1 or 10.0.0.0/8"
            ) from None
    return texts


PARSERS: dict[str, Callable[[object], object]] = {
    "data": _path,
    "name": _text,
    "ws": _endpoint("127.0.0.1"),
    "mesh": _endpoint("0.0.0.0"),
    "admin": _endpoint("127.0.0.1"),
    "admin_hosts": _hosts,
    "admin_token_file": _path,
    "join": _joins,
    "mesh_name": _text,
    "mesh_encrypted": _boolean,
    "discovery": _discovery,
    "bootstrap": _bootstrap,
    "mesh_url": _websockets,
    "relay": _relay,
    "serve_relay": parse_size,
    "store": _choice("bee", "sqlite", "hybrid"),
    "sqlite": _path,
    "durability": _durability,
    "replicate": _choice("lazy", "all"),
    "min_copies": _count,
    "cache_bytes": parse_size,
    "max_disk_bytes": parse_size,
    "min_free_bytes": parse_size,
    "covalue_memory": parse_size,
    "covalue_memory_seconds": _age,
    "signature_process": _choice("auto", "on", "off"),
    "ws_max_message_bytes": parse_size,
    "ws_max_connections": _count,
    "ws_max_connections_per_address": _count,
    "ws_handshake_seconds": parse_duration,
    "ws_deflate": _boolean,
    "ws_tokens": _tokens,
    "ws_tokens_file": _path,
    "ws_trusted_proxies": _networks,
    "allow_accounts": _some,
    "allow_accounts_file": _path,
    "deny_accounts": _list,
    "deny_accounts_file": _path,
    "enforce_permissions": _boolean,
    "erase_deleted": _boolean,
    "compact_dead_share": _share,
    "compact_min_bytes": parse_size,
    "quota_account_bytes": parse_size,
    "quota_account_values": _count,
    "rate_bytes": parse_size,
    "rate_messages": _count,
    "rate_values": _count,
    "rate_loopback": _boolean,
    "shutdown_seconds": parse_duration,
    "log_level": _choice("debug", "info", "warning", "error"),
    "log_format": _choice("auto", "pretty", "json"),
}
"""By the name of the setting. Each raises ValueError or TypeError for what it cannot read."""
