"""Tickets, which let a node in, and the signed records that say what a member may do.

| record     | MessagePack array                                                                 |
|------------|-----------------------------------------------------------------------------------|
| ticket     | version, mesh name, secret, node id, [address...], grant or nil; [founder...],    |
|            | [admin's grant...], encrypted (bool), data secret                                 |
| grant      | member id or "bearer", role, expiry or nil, issuer, signature; serial,            |
|            | [pardoned]; uses                                                                  |
| revocation | member id or digest of a grant, time, issuer, signature; reason, [kept]           |

What follows a semicolon is left out when it says nothing: earlier versions did not have it. A
ticket's version is 1, or 2 for an encrypted mesh, to which a node that knows only 1 must not write.
A ticket is written as `beemesh1` and the z-base-32 of the array, in either case: capitals make a
smaller QR code. Times are unix seconds. Issuers sign H(key = mesh key; "grant" or "revocation" ||
all fields but the signature, packed), so that a record of one mesh says nothing in another.

`serial` tells apart grants that say the same, once one of them was revoked, and tickets with a
number of uses from the start. `pardoned` are digests of revocations of the member that the grant
undoes: it was made knowing them, so no clock has to tell which came later. A grant with `uses`
counts for so many bearers, and only at its issuer, which signs a separate grant for each. `kept`
are digests of records that stay in force though the admin that signed them is revoked.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

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
from hypercore.encoding import DecodeError
from node.mesh.fields import Field, FieldError, FieldReader, pack_fields

TICKET_PREFIX = "beemesh1"
TICKET_VERSION = 1
ENCRYPTED_TICKET_VERSION = 2
BEARER = "bearer"

MAX_TICKET_BYTES = 4096
MAX_CHAIN = 8
"""Admins between the founder and the one that invites: each made the next one an admin."""
MAX_RECORD_BYTES = 16 << 10
MAX_REASON = 256
MAX_PARDONED = 16
MAX_KEPT = 256
"""Records of one revoked admin that may stay in force; the others have to be signed anew."""
MAX_MESH_NAME = 128
MAX_SECRET_BYTES = 64
MAX_ADDRESSES = 16
MAX_ADDRESS = 256


class BadTicket(ValueError):
    """What somebody pasted is no ticket that this node can use; the text says what to do."""


class UnknownVersion(FieldError):
    """A ticket of a later version."""


class Role(StrEnum):
    """What a member may do; each may also do what the ones after it may."""

    ADMIN = "admin"
    WRITER = "writer"
    READER = "reader"
    BLIND = "blind"

    def allows_more_than(self, other: Role) -> bool:
        roles = list(Role)
        return roles.index(self) < roles.index(other)

    @property
    def may_write(self) -> bool:
        """Whether others take what such a member has."""
        return self in {Role.ADMIN, Role.WRITER}


@dataclass(frozen=True, slots=True)
class Grant:
    """An admin lets a member (None: whoever bears this) have a role, until `expiry`."""

    member: bytes | None
    role: Role
    expiry: int | None
    issuer: bytes
    signature: bytes = b""
    serial: int = 0
    pardoned: tuple[bytes, ...] = ()
    uses: int = 0
    _digest: bytes = field(default=b"", init=False, repr=False, compare=False)

    @classmethod
    def issue(
        cls,
        mesh_key: bytes,
        issuer: KeyPair,
        role: Role,
        *,
        member: bytes | None = None,
        expiry: int | None = None,
        serial: int = 0,
        pardoned: tuple[bytes, ...] = (),
        uses: int = 0,
    ) -> Grant:
        grant = cls(member, role, expiry, issuer.public_key, b"", serial, pardoned, uses)
        return replace(grant, signature=sign(grant._signable(mesh_key), issuer.secret_key))

    @property
    def fields(self) -> list[Field]:
        return [*self._claim[:4], self.signature, *self._claim[4:]]

    @property
    def digest(self) -> bytes:
        """What a revocation names when it takes this grant back."""
        if not self._digest:  # asked for whenever members are judged, of whom there may be 16,000
            object.__setattr__(self, "_digest", blake2b(pack_fields(*self.fields)))
        return self._digest

    @property
    def use_serial(self) -> int:
        """Serial of the grants that its issuer signs for those that come with this one."""
        return int.from_bytes(self.digest[:6], "big")

    @property
    def _claim(self) -> list[Field]:
        member = BEARER if self.member is None else self.member
        claim: list[Field] = [member, self.role.value, self.expiry, self.issuer]
        if self.serial or self.pardoned or self.uses:
            claim += [self.serial, list(self.pardoned)]
        if self.uses:
            claim.append(self.uses)
        return claim

    def _signable(self, mesh_key: bytes) -> bytes:
        return blake2b(b"grant", pack_fields(*self._claim), key=mesh_key)

    def is_signed(self, mesh_key: bytes) -> bool:
        """Whether its issuer signed it, for this mesh; the issuer need not be an admin."""
        return verify(self._signable(mesh_key), self.signature, self.issuer)

    def encode(self) -> bytes:
        return pack_fields(*self.fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Grant:
        """Raises: DecodeError."""
        member = _read_member(reader)
        role = _read_role(reader)
        expiry, issuer = reader.optional_uint(), reader.fixed(KEY_BYTES)
        signature = reader.fixed(SIGNATURE_BYTES)
        if not reader.remaining:
            return cls(member, role, expiry, issuer, signature)
        serial, pardoned = reader.uint(), _read_digests(reader, MAX_PARDONED)
        uses = reader.uint() if reader.remaining else 0
        return cls(member, role, expiry, issuer, signature, serial, pardoned, uses)

    @classmethod
    def decode_bytes(cls, data: bytes) -> Grant:
        """Raises: DecodeError."""
        return cls.decode(FieldReader.unpack(data, MAX_RECORD_BYTES))


@dataclass(frozen=True, slots=True)
class Revocation:
    """An admin takes a grant back, or shuts a member out whatever grant it bears.

    The time is for people: nothing is decided by it.
    """

    subject: bytes
    unix_seconds: int
    issuer: bytes
    signature: bytes = b""
    reason: str = ""
    kept: tuple[bytes, ...] = ()

    @classmethod
    def issue(
        cls,
        mesh_key: bytes,
        issuer: KeyPair,
        subject: bytes,
        unix_seconds: int,
        reason: str = "",
        kept: tuple[bytes, ...] = (),
    ) -> Revocation:
        revocation = cls(subject, unix_seconds, issuer.public_key, b"", reason, kept)
        signature = sign(revocation._signable(mesh_key), issuer.secret_key)
        return replace(revocation, signature=signature)

    @property
    def fields(self) -> list[Field]:
        return [*self._claim[:3], self.signature, *self._claim[3:]]

    @property
    def digest(self) -> bytes:
        """What a grant that pardons the subject names."""
        return blake2b(pack_fields(*self.fields))

    @property
    def _claim(self) -> list[Field]:
        claim: list[Field] = [self.subject, self.unix_seconds, self.issuer]
        if self.reason or self.kept:
            claim += [self.reason, list(self.kept)]
        return claim

    def _signable(self, mesh_key: bytes) -> bytes:
        return blake2b(b"revocation", pack_fields(*self._claim), key=mesh_key)

    def is_signed(self, mesh_key: bytes) -> bool:
        return verify(self._signable(mesh_key), self.signature, self.issuer)

    def encode(self) -> bytes:
        return pack_fields(*self.fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Revocation:
        """Raises: DecodeError."""
        subject, unix_seconds = reader.fixed(KEY_BYTES), reader.uint()
        issuer, signature = reader.fixed(KEY_BYTES), reader.fixed(SIGNATURE_BYTES)
        if not reader.remaining:
            return cls(subject, unix_seconds, issuer, signature)
        reason = reader.text(MAX_REASON)
        kept = _read_digests(reader, MAX_KEPT)
        return cls(subject, unix_seconds, issuer, signature, reason, kept)

    @classmethod
    def decode_bytes(cls, data: bytes) -> Revocation:
        """Raises: DecodeError."""
        return cls.decode(FieldReader.unpack(data, MAX_RECORD_BYTES))


Record: TypeAlias = Grant | Revocation
"""What an admin signs."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """All that a node needs to join: whoever reads a ticket can."""

    mesh_name: str
    secret: bytes = field(repr=False)
    node_id: bytes
    addresses: tuple[str, ...] = ()
    grant: Grant | None = None
    founders: tuple[bytes, ...] = ()
    """Nodes whose grants count from the start; without any, the issuer of the grant is one."""
    chain: tuple[Grant, ...] = ()
    """How the issuer of the grant became an admin, from a founder's grant on."""
    is_encrypted: bool = False
    data_secret: bytes = field(default=b"", repr=False)
    """What readers of an encrypted mesh need; the ticket of a blind member lacks it."""

    def encode(self) -> str:
        grant = None if self.grant is None else self.grant.fields
        version = ENCRYPTED_TICKET_VERSION if self.is_encrypted else TICKET_VERSION
        fields: list[Field] = [version, self.mesh_name, self.secret, self.node_id]
        fields += [list(self.addresses), grant]
        if self.founders or self.chain or self.is_encrypted:
            chain = [grant.fields for grant in self.chain]
            fields += [list(self.founders), chain, self.is_encrypted, self.data_secret]
        return TICKET_PREFIX + z_base_32_encode(pack_fields(*fields))

    @classmethod
    def read(cls, text: str) -> Ticket:
        """As `decode`, for what somebody pasted. Raises: BadTicket."""
        try:
            return cls.decode(text)
        except UnknownVersion as error:
            raise BadTicket(f"{error.reason}: update this node") from error
        except DecodeError as error:
            raise BadTicket(
                f"this ticket is damaged: copy the whole of it, from {TICKET_PREFIX} to its end"
            ) from error

    @classmethod
    def decode(cls, text: str) -> Ticket:
        """Read a ticket; white space around it is ignored.

        Raises: DecodeError for anything else than a ticket of version 1 or 2.
        """
        text = text.strip().lower()
        if not text.startswith(TICKET_PREFIX) or len(text) > 2 * MAX_TICKET_BYTES:
            raise FieldError(f"a ticket begins with {TICKET_PREFIX}", 0)
        try:
            data = z_base_32_decode(text.removeprefix(TICKET_PREFIX))
        except ValueError as error:
            raise FieldError(f"damaged ticket: {error}", 0) from None
        reader = FieldReader.unpack(data, MAX_TICKET_BYTES)
        version = reader.uint()
        if version not in {TICKET_VERSION, ENCRYPTED_TICKET_VERSION}:
            raise UnknownVersion(f"a ticket of version {version}; this node knows 1 and 2", 0)
        name = read_mesh_name(reader)
        secret, node_id = reader.data(MAX_SECRET_BYTES), reader.fixed(KEY_BYTES)
        addresses = reader.texts(MAX_ADDRESSES, MAX_ADDRESS)
        found = reader.optional_array()
        grant = None if found is None else Grant.decode(found)
        if not reader.remaining:
            return cls(name, secret, node_id, addresses, grant)
        founders, admins = _read_digests(reader, MAX_CHAIN), reader.array(MAX_CHAIN)
        chain = tuple(Grant.decode(admins.array()) for _ in range(admins.remaining))
        ticket = cls(name, secret, node_id, addresses, grant, founders, chain)
        is_encrypted, data_secret = reader.flag(), reader.data(MAX_SECRET_BYTES)
        return replace(ticket, is_encrypted=is_encrypted, data_secret=data_secret)


def is_ticket(text: str) -> bool:
    """Whether a text is meant as a ticket; `decode` tells whether it is one."""
    return text.strip().lower().startswith(TICKET_PREFIX)


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


def _read_digests(reader: FieldReader, maximum: int) -> tuple[bytes, ...]:
    items = reader.array(maximum)
    return tuple(items.fixed(KEY_BYTES) for _ in range(items.remaining))


def _read_role(reader: FieldReader) -> Role:
    text = reader.text(MAX_MESH_NAME)
    try:
        return Role(text)
    except ValueError:
        raise FieldError(f"unknown role {text!r}", 1) from None
