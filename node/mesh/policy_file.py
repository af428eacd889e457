"""`policy.toml` in the data directory: what was decided while the node ran.

| key             | TOML   | meaning                                                             |
|-----------------|--------|---------------------------------------------------------------------|
| replicate       | text   | `all` or `lazy`                                                     |
| configured      | text   | what the configuration said when that was decided; if it says       |
|                 |        | something else now, it was changed later and holds                  |
| pin             | texts  | ids                                                                 |
| follow, deny    | texts  | rules; `deny` also ids                                              |
| max_value_bytes | number | left out: no bound                                                  |
| max_age_seconds | number | left out: no bound                                                  |
| peers           | tables | by id, name, `lan` or `wan`: direction, day_bytes, month_bytes      |
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from math import inf
from pathlib import Path

from node.errors import ConfigError, reason_of
from node.mesh.follow_rules import OwnerRule
from node.mesh.peer_rules import Direction, PeerRule
from node.mesh.policy_change import PolicyChange
from node.mesh.replicas import ReplicaPolicy
from node.private_file import write_private

_KEYS = frozenset(
    {
        *("replicate", "configured", "pin", "follow", "deny"),
        *("max_value_bytes", "max_age_seconds", "peers"),
    }
)
_RULE_KEYS = frozenset({"direction", "day_bytes", "month_bytes"})


def follow_texts(prefixes: Iterable[str], owners: Iterable[OwnerRule]) -> list[str]:
    """Rules as they are written, in order."""
    return [
        *(f"prefix:{prefix}" for prefix in sorted(prefixes)),
        *(rule.text for rule in sorted(owners)),
    ]


def format_policy(policy: ReplicaPolicy, configured: str) -> str:
    """The text of `policy.toml`."""
    denied = [
        *sorted(policy.denied),
        *follow_texts(policy.denied_prefixes, policy.denied_owners),
    ]
    lines = [
        "# Written by `beemesh pin`, `follow` and `policy`; read when the node starts.",
        f"replicate = {_text('all' if policy.everything else 'lazy')}",
        f"configured = {_text(configured)}",
        f"pin = {_list(sorted(policy.pinned))}",
        f"follow = {_list(follow_texts(policy.prefixes, policy.owners))}",
        f"deny = {_list(denied)}",
    ]
    if policy.max_value_bytes is not None:
        lines.append(f"max_value_bytes = {policy.max_value_bytes}")
    if policy.max_age_seconds is not None:
        lines.append(f"max_age_seconds = {policy.max_age_seconds}")
    for name, rule in sorted(policy.peers.named.items()):
        lines += ["", f"[peers.{_text(name)}]", f"direction = {_text(rule.direction)}"]
        if rule.day_bytes is not None:
            lines.append(f"day_bytes = {rule.day_bytes}")
        if rule.month_bytes is not None:
            lines.append(f"month_bytes = {rule.month_bytes}")
    return "\n".join(lines) + "\n"


def parse_policy(text: str, configured: str, source: str = "policy.toml") -> ReplicaPolicy:
    """Read the text of `policy.toml`; `configured` is `all` or `lazy`, as the node is started now.

    `source` is what errors call it.

    Raises: ConfigError.
    """
    try:
        values = tomllib.loads(text)
        if unknown := values.keys() - _KEYS:
            raise ValueError(f"unknown key {min(unknown)!r}")
        replicate = values.get("replicate", configured)
        if values.get("configured", configured) != configured:
            replicate = configured
        peers = values.get("peers", {})
        if not isinstance(peers, dict):
            raise ValueError("peers: tables wanted")
        change = PolicyChange(
            pin=_texts(values, "pin"),
            follow=_texts(values, "follow"),
            deny=_texts(values, "deny"),
            max_value_bytes=_bound(values, "max_value_bytes"),
            max_age_seconds=_bound(values, "max_age_seconds"),
            peers={name: _peer_rule(name, rule) for name, rule in peers.items()},
        )
        return change.restore(ReplicaPolicy.parse(str(replicate)))
    except ValueError as error:
        raise ConfigError(f"{source}: {error}: mend it, or remove it to begin anew") from None


def load_policy(path: Path, configured: str) -> ReplicaPolicy:
    """What the file says, or what is configured where there is none; blocks on the disk.

    Raises: ConfigError.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return ReplicaPolicy.parse(configured)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from error
    return parse_policy(text, configured, str(path))


def save_policy(path: Path, policy: ReplicaPolicy, configured: str) -> None:
    """Replace the file, all or nothing; blocks on the disk."""
    write_private(path, format_policy(policy, configured).encode())


def _peer_rule(name: str, value: object) -> PeerRule:
    if not isinstance(value, dict):
        raise ValueError(f"peers.{name}: a table wanted")
    if unknown := value.keys() - _RULE_KEYS:
        raise ValueError(f"peers.{name}: unknown key {min(unknown)!r}")
    return PeerRule(
        Direction(str(value.get("direction", Direction.BOTH))),
        _bound(value, "day_bytes"),
        _bound(value, "month_bytes"),
    )


def _bound(values: dict[str, object], name: str) -> int | None:
    value = values.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 1 <= value < inf  # so NaN is refused, too
    ):
        raise ValueError(f"{name}: a number of at least 1 wanted, not {value!r}")
    return int(value)


def _texts(values: dict[str, object], name: str) -> tuple[str, ...]:
    value = values.get(name, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name}: a list of texts wanted")
    return tuple(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(items: list[str]) -> str:
    return f"[{', '.join(map(_text, items))}]"
