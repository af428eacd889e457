"""Which mesh this node belongs to, and who else does: `mesh.toml`.

A mesh is a name and a secret. From both comes the mesh key, and from that the topic under
which members find one another and the proofs with which they recognize one another:

    mesh key = H("beemesh/1 mesh" || u64 length of the name || name || secret)
    topic    = H(key = mesh key; "topic")
    proof    = H(key = mesh key; "hello" || role byte (0 initiator, 1 responder) || handshake hash)

| key     | TOML   | meaning                                                       |
|---------|--------|---------------------------------------------------------------|
| name    | text   | name of the mesh                                              |
| secret  | text   | z-base-32; empty in an open mesh, that its name alone lets in |
| grant   | text   | z-base-32; what an admin let this node do, if one did         |
| admins  | texts  | z-base-32 public keys whose grants count                      |
| revoked | texts  | z-base-32; the revocations known here                         |
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from hypercore.crypto import (
    Entropy,
    KeyPair,
    decode_id,
    encode_id,
    system_entropy,
    z_base_32_decode,
    z_base_32_encode,
)
from node.errors import ConfigError
from node.identity import write_private
from node.mesh.mesh_key import derive_mesh_key, derive_topic
from node.mesh.ticket import (
    MAX_SECRET_BYTES,
    Grant,
    Revocation,
    Role,
    Ticket,
    is_mesh_name,
)

SECRET_BYTES = 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Membership:
    """The mesh as this node knows it. `key` is derived from the name and the secret."""

    name: str
    secret: bytes = field(repr=False)
    grant: Grant | None = None
    admins: frozenset[bytes] = frozenset()
    revocations: tuple[Revocation, ...] = ()

    @classmethod
    def found(cls, name: str, founder_id: bytes, entropy: Entropy = system_entropy) -> Membership:
        """A new mesh with a random secret; who founds it is its first admin."""
        return cls(name, entropy(SECRET_BYTES), admins=frozenset((founder_id,)))

    @classmethod
    def open_mesh(cls, name: str) -> Membership:
        """The mesh of everybody who knows its name, for demonstrations and trusted networks."""
        return cls(name, b"")

    @classmethod
    def join(cls, ticket: Ticket) -> Membership:
        """The mesh of a ticket. Whoever issued its grant counts as admin from now on."""
        admins = frozenset() if ticket.grant is None else frozenset((ticket.grant.issuer,))
        return cls(ticket.mesh_name, ticket.secret, ticket.grant, admins)

    @property
    def is_open(self) -> bool:
        return not self.secret

    @property
    def key(self) -> bytes:
        return derive_mesh_key(self.name, self.secret)

    @property
    def topic(self) -> bytes:
        return derive_topic(self.key)

    def invite(self, identity: KeyPair, addresses: Sequence[str] = ()) -> Ticket:
        """A ticket to this node: an admin's lets its bearer write, others pass on their own."""
        grant = self.grant
        if identity.public_key in self.admins:
            grant = Grant.issue(self.key, identity, Role.WRITER)
        elif grant is not None and grant.member is not None:
            grant = None
        return Ticket(self.name, self.secret, identity.public_key, tuple(addresses), grant)

    def role_of(self, member_id: bytes, grant: Grant | None, unix_seconds: float) -> Role | None:
        """What somebody who proved the secret may do; None: nothing, shut out.

        An admin needs no grant. Where no grant is shown, or no admin is known that could have
        issued one, knowing the secret is enough to be a writer.
        """
        revoked = {revocation.subject for revocation in self.revocations}
        if member_id in revoked:
            return None
        if member_id in self.admins:
            return Role.ADMIN
        if grant is None or not self.admins:
            return Role.WRITER
        counts = (
            grant.issuer in self.admins
            and grant.digest not in revoked
            and grant.is_for(member_id, unix_seconds)
            and grant.is_signed(self.key)
        )
        return grant.role if counts else None

    def with_revocation(self, revocation: Revocation) -> Membership:
        """The same with one more revocation; unchanged when it is known or not an admin's."""
        if (
            revocation in self.revocations
            or revocation.issuer not in self.admins
            or not revocation.is_signed(self.key)
        ):
            return self
        return replace(self, revocations=(*self.revocations, revocation))


def format_membership(membership: Membership) -> str:
    """The text of `mesh.toml`."""
    lines = [
        "# Who can read this file can join the mesh.",
        f"name = {json.dumps(membership.name, ensure_ascii=False)}",
        f'secret = "{z_base_32_encode(membership.secret)}"',
    ]
    if membership.grant is not None:
        lines.append(f'grant = "{z_base_32_encode(membership.grant.encode())}"')
    lines.extend(
        (
            _toml_list("admins", [encode_id(key) for key in sorted(membership.admins)]),
            _toml_list(
                "revoked", [z_base_32_encode(item.encode()) for item in membership.revocations]
            ),
        )
    )
    return "\n".join(lines) + "\n"


def parse_membership(text: str) -> Membership:
    """Read the text of `mesh.toml`.

    Raises: ConfigError for anything that `format_membership` would not write.
    """
    try:
        values = tomllib.loads(text)
        name = values["name"]
        if not isinstance(name, str) or not is_mesh_name(name):
            raise ValueError("name: 1 to 128 printable characters wanted")
        grant = values.get("grant")
        return Membership(
            name,
            _read_secret(values["secret"]),
            None if grant is None else Grant.decode_bytes(z_base_32_decode(_text(grant))),
            frozenset(_read_list(values, "admins", decode_id)),
            tuple(
                _read_list(
                    values, "revoked", lambda item: Revocation.decode_bytes(z_base_32_decode(item))
                )
            ),
        )
    except KeyError as error:
        raise ConfigError(f"mesh.toml lacks {error}: restore it, or join again") from None
    except ValueError as error:
        raise ConfigError(f"mesh.toml: {error}: restore it, or join again") from None


def load_membership(path: Path) -> Membership | None:
    """What the file says, or None where there is none; blocks on the disk.

    Raises: ConfigError.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    return parse_membership(text)


def save_membership(path: Path, membership: Membership) -> None:
    """Replace the file, readable by its owner alone, all or nothing; blocks on the disk."""
    write_private(path, format_membership(membership).encode())


def _toml_list(name: str, items: list[str]) -> str:
    return f"{name} = [{', '.join(json.dumps(item) for item in items)}]"


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
