"""Tickets, that let a node in, and the signed records that say what a member may do.

| record     | MessagePack array                                             |
|------------|---------------------------------------------------------------|
| ticket     | 1, mesh name, secret, node id, [address...], grant or nil     |
| grant      | member id or "bearer", role, expiry or nil, issuer, signature |
| revocation | member id or digest of a grant, time, issuer, signature       |

A ticket is written as `beemesh1` and the z-base-32 of that. Times are unix seconds. Issuers
sign H(key = mesh key; "grant" or "revocation" || the fields before the signature, packed), so
that a record of one mesh says nothing in another.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from hypercore.crypto import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    KeyPair,
    blake2b,
    sign,
    verify,
    z_base_32_decode,
    z_base_32_encode,
)
from node.mesh.fields import Field, FieldError, FieldReader, pack_fields

TICKET_PREFIX = "beemesh1"
TICKET_VERSION = 1
BEARER = "bearer"

MAX_TICKET_BYTES = 4096
MAX_RECORD_BYTES = 1024
MAX_MESH_NAME = 128
MAX_SECRET_BYTES = 64
MAX_ADDRESSES = 16
MAX_ADDRESS = 256


class Role(StrEnum):
    """What a member may do; each may also do what the ones after it may."""

    ADMIN = "admin"
    WRITER = "writer"
    READER = "reader"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Grant:
    """An admin lets a member (None: whoever bears this) have a role, until `expiry`."""

    member: bytes | None
    role: Role
    expiry: int | None
    issuer: bytes
    signature: bytes = b""

    @classmethod
    def issue(
        cls,
        mesh_key: bytes,
        issuer: KeyPair,
        role: Role,
        *,
        member: bytes | None = None,
        expiry: int | None = None,
    ) -> Grant:
        grant = cls(member, role, expiry, issuer.public_key)
        return replace(grant, signature=sign(grant._signable(mesh_key), issuer.secret_key))

    @property
    def fields(self) -> list[Field]:
        return [*self._claim, self.signature]

    @property
    def digest(self) -> bytes:
        """What a revocation names when it takes this grant back."""
        return blake2b(pack_fields(*self.fields))

    @property
    def _claim(self) -> list[Field]:
        member = BEARER if self.member is None else self.member
        return [member, self.role.value, self.expiry, self.issuer]

    def _signable(self, mesh_key: bytes) -> bytes:
        return blake2b(b"grant", pack_fields(*self._claim), key=mesh_key)

    def is_signed(self, mesh_key: bytes) -> bool:
        """Whether its issuer signed it, for this mesh; whether that is an admin is not asked."""
        return verify(self._signable(mesh_key), self.signature, self.issuer)

    def is_for(self, member_id: bytes, unix_seconds: float) -> bool:
        in_time = self.expiry is None or unix_seconds < self.expiry
        return in_time and self.member in {None, member_id}

    def encode(self) -> bytes:
        return pack_fields(*self.fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Grant:
        """Raises: DecodeError."""
        member = _read_member(reader)
        role = _read_role(reader)
        expiry, issuer = reader.optional_uint(), reader.fixed(KEY_BYTES)
        return cls(member, role, expiry, issuer, reader.fixed(SIGNATURE_BYTES))

    @classmethod
    def decode_bytes(cls, data: bytes) -> Grant:
        """Raises: DecodeError."""
        return cls.decode(FieldReader.unpack(data, MAX_RECORD_BYTES))


@dataclass(frozen=True, slots=True)
class Revocation:
    """An admin takes a grant back, or shuts a member out whatever grant it bears."""

    subject: bytes
    unix_seconds: int
    issuer: bytes
    signature: bytes = b""

    @classmethod
    def issue(
        cls, mesh_key: bytes, issuer: KeyPair, subject: bytes, unix_seconds: int
    ) -> Revocation:
        revocation = cls(subject, unix_seconds, issuer.public_key)
        signature = sign(revocation._signable(mesh_key), issuer.secret_key)
        return replace(revocation, signature=signature)

    @property
    def _claim(self) -> list[Field]:
        return [self.subject, self.unix_seconds, self.issuer]

    def _signable(self, mesh_key: bytes) -> bytes:
        return blake2b(b"revocation", pack_fields(*self._claim), key=mesh_key)

    def is_signed(self, mesh_key: bytes) -> bool:
        return verify(self._signable(mesh_key), self.signature, self.issuer)

    def encode(self) -> bytes:
        return pack_fields(*self._claim, self.signature)

    @classmethod
    def decode_bytes(cls, data: bytes) -> Revocation:
        """Raises: DecodeError."""
        reader = FieldReader.unpack(data, MAX_RECORD_BYTES)
        subject, unix_seconds = reader.fixed(KEY_BYTES), reader.uint()
        return cls(subject, unix_seconds, reader.fixed(KEY_BYTES), reader.fixed(SIGNATURE_BYTES))


@dataclass(frozen=True, slots=True)
class Ticket:
    """All that a node needs to join: whoever reads it can."""

    mesh_name: str
    secret: bytes = field(repr=False)
    node_id: bytes
    addresses: tuple[str, ...] = ()
    grant: Grant | None = None

    def encode(self) -> str:
        grant = None if self.grant is None else self.grant.fields
        fields = pack_fields(
            TICKET_VERSION, self.mesh_name, self.secret, self.node_id, list(self.addresses), grant
        )
        return TICKET_PREFIX + z_base_32_encode(fields)

    @classmethod
    def decode(cls, text: str) -> Ticket:
        """Read a ticket; white space around it is ignored.

        Raises: DecodeError for anything else than a ticket of version 1.
        """
        text = text.strip()
        if not text.startswith(TICKET_PREFIX) or len(text) > 2 * MAX_TICKET_BYTES:
            raise FieldError(f"a ticket begins with {TICKET_PREFIX}", 0)
        try:
            data = z_base_32_decode(text.removeprefix(TICKET_PREFIX))
        except ValueError as error:
            raise FieldError(f"damaged ticket: {error}", 0) from None
        reader = FieldReader.unpack(data, MAX_TICKET_BYTES)
        version = reader.uint()
        if version != TICKET_VERSION:
            raise FieldError(f"ticket of version {version}; this node knows {TICKET_VERSION}", 0)
        name = read_mesh_name(reader)
        secret, node_id = reader.data(MAX_SECRET_BYTES), reader.fixed(KEY_BYTES)
        addresses = reader.texts(MAX_ADDRESSES, MAX_ADDRESS)
        grant = reader.optional_array()
        return cls(name, secret, node_id, addresses, None if grant is None else Grant.decode(grant))


def is_mesh_name(name: str) -> bool:
    """Whether a mesh can be called that: printable, 1 to 128 characters."""
    return 1 <= len(name) <= MAX_MESH_NAME and name.isprintable()


def read_mesh_name(reader: FieldReader) -> str:
    name = reader.text(MAX_MESH_NAME)
    if not is_mesh_name(name):
        raise FieldError("mesh name with unprintable characters, or none", 1)
    return name


def _read_member(reader: FieldReader) -> bytes | None:
    if reader.is_text_next():
        if reader.text() != BEARER:
            raise FieldError(f"member id or {BEARER!r} wanted", 0)
        return None
    return reader.fixed(KEY_BYTES)


def _read_role(reader: FieldReader) -> Role:
    text = reader.text(MAX_MESH_NAME)
    try:
        return Role(text)
    except ValueError:
        raise FieldError(f"unknown role {text!r}", 1) from None
