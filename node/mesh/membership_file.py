"""`mesh.toml`: which mesh this node belongs to, and what its admins signed, as far as known here.

| key         | TOML  | meaning                                                           |
|-------------|-------|-------------------------------------------------------------------|
| name        | text  | name of the mesh                                                  |
| secret      | text  | z-base-32; empty in an open mesh, where the name is enough        |
| encrypted   | bool  | whether data cores are encrypted; left out when they are not      |
| data_secret | text  | z-base-32; what reads them, where this node has it                |
| grant       | text  | z-base-32; what an admin let this node do, if one did             |
| admins      | texts | z-base-32 public keys of the founders, whose grants count         |
| granted     | texts | z-base-32; grants to named members                                |
| revoked     | texts | z-base-32; revocations                                            |
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hypercore.crypto import decode_id, encode_id, z_base_32_decode, z_base_32_encode
from node.errors import ConfigError, reason_of
from node.mesh.membership import Membership
from node.mesh.ticket import MAX_SECRET_BYTES, Grant, Record, Revocation, is_mesh_name
from node.private_file import write_private

T = TypeVar("T")

_KEYS = frozenset(
    {
        *("name", "secret", "encrypted", "data_secret"),
        *("grant", "admins", "granted", "revoked"),
    }
)


class MembershipText:
    """Makes the text of `mesh.toml` again and again; what has not changed is encoded once.

    For a mesh of 16,000 members it has 4 MB, and it changes with each one that comes.
    """

    def __init__(self) -> None:
        self._granted, self._revoked = _RecordTexts(), _RecordTexts()

    def of(self, membership: Membership) -> str:
        granted = self._granted.of(membership.grants)
        revoked = self._revoked.of(membership.revocations)
        return _format(membership, granted, revoked)


class _RecordTexts:
    """Records as they stand in the file, in order."""

    def __init__(self) -> None:
        self._records: frozenset[Record] = frozenset()
        self._texts: list[str] = []

    def of(self, records: frozenset[Grant] | frozenset[Revocation]) -> list[str]:
        gone = set(map(_record_text, self._records - records))
        texts = [text for text in self._texts if text not in gone] if gone else self._texts
        # Sorting a few more into what is in order is cheap.
        self._texts = sorted([*texts, *map(_record_text, records - self._records)])
        self._records = records
        return self._texts


def format_membership(membership: Membership) -> str:
    """The text of `mesh.toml`."""
    return MembershipText().of(membership)


def _format(membership: Membership, granted: list[str], revoked: list[str]) -> str:
    lines = [
        "# Whoever can read this file can join the mesh.",
        f"name = {json.dumps(membership.name, ensure_ascii=False)}",
        f'secret = "{z_base_32_encode(membership.secret)}"',
    ]
    if membership.is_encrypted:
        lines.append("encrypted = true")
    if membership.data_secret:
        lines.append(f'data_secret = "{z_base_32_encode(membership.data_secret)}"')
    if membership.grant is not None:
        lines.append(f'grant = "{z_base_32_encode(membership.grant.encode())}"')
    lines.append(
        _toml_list("admins", [f'"{encode_id(key)}"' for key in sorted(membership.founders)])
    )
    if granted:
        lines.append(_toml_list("granted", granted))
    lines.append(_toml_list("revoked", revoked))
    return "\n".join(lines) + "\n"


def parse_membership(text: str, source: str = "mesh.toml") -> Membership:
    """Read the text of `mesh.toml`, also of an older version; `source` is what errors call it.

    Raises: ConfigError for anything that `format_membership` would not write.
    """
    try:
        values = tomllib.loads(text)
        if unknown := values.keys() - _KEYS:
            # The next change to the file would lose it.
            raise ConfigError(
                f"{source}: unknown key {min(unknown)!r}: a newer version may have written it; "
                f"start that one, or mend the file"
            )
        name = values["name"]
        if not isinstance(name, str) or not is_mesh_name(name):
            raise ValueError("name: 1 to 128 printable characters wanted")
        is_encrypted = values.get("encrypted", False)
        if not isinstance(is_encrypted, bool):
            raise ValueError("encrypted: true or false wanted")
        grant = values.get("grant")
        return Membership(
            name,
            _read_secret(values["secret"]),
            None if grant is None else Grant.decode_bytes(z_base_32_decode(_text(grant))),
            frozenset(_read_list(values, "admins", decode_id)),
            frozenset(_read_list(values, "granted", _record_reader(Grant.decode_bytes))),
            frozenset(_read_list(values, "revoked", _record_reader(Revocation.decode_bytes))),
            is_encrypted,
            _read_secret(values.get("data_secret", "")),
        )
    except KeyError as error:
        raise ConfigError(f"{source} lacks {error}: restore it, or join again") from None
    except ValueError as error:
        raise ConfigError(f"{source}: {error}: restore it, or join again") from None


def load_membership(path: Path) -> Membership | None:
    """What the file says, or None where there is none; blocks on the disk.

    Raises: ConfigError.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from error
    return parse_membership(text, str(path))


def save_membership(path: Path, membership: Membership, text: MembershipText | None = None) -> None:
    """Replace the file, readable by its owner alone, all or nothing; blocks on the disk.

    `text` is that of a caller that writes it again and again.
    """
    write_private(path, (text or MembershipText()).of(membership).encode())


def _toml_list(name: str, items: list[str]) -> str:
    """A TOML list of items that are in quotation marks."""
    if len(items) < 2:
        return f"{name} = [{', '.join(items)}]"
    lines = ",\n  ".join(items)
    return f"{name} = [\n  {lines},\n]"


def _record_text(record: Record) -> str:
    return f'"{z_base_32_encode(record.encode())}"'


def _record_reader(decode: Callable[[bytes], T]) -> Callable[[str], T]:
    return lambda text: decode(z_base_32_decode(text))


def _read_list(values: dict[str, object], name: str, decode: Callable[[str], T]) -> list[T]:
    items = values.get(name, [])
    if not isinstance(items, list):
        raise ValueError(f"{name}: a list wanted")
    return [decode(_text(item)) for item in items]


def _read_secret(value: object) -> bytes:
    secret = z_base_32_decode(_text(value))
    if len(secret) > MAX_SECRET_BYTES:
        raise ValueError(f"secret of {len(secret)} bytes, at most {MAX_SECRET_BYTES}")
    return secret


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"text wanted, not {value!r}")
    return value
