"""The messages of `beemesh/1` that are about members: what admins signed, and farewells.

| #  | message  | fields                                                            |
|----|----------|-------------------------------------------------------------------|
| 16 | records  | summary (32 bytes), own grant or nil, [grant...], [revocation...] |
| 17 | held     | first 16 bytes of the digest of every record held                 |
| 18 | farewell | reason, revocation or nil                                         |
| 19 | kept     | [[member id, data core key, name, grant or nil, signature]...]    |

Where there are admins, a node that has proved the secret sends the grant that it came with, the
records that show what it may do, and the summary of all it holds; by these it is welcomed, or not.
A node whose summary differs says which records it holds (`held`) once the other is a member, and
is sent what it lacks. Later records go to all members as they come. A node that is shut out is
told why (`farewell`).

In an encrypted mesh each writer introduces itself (`kept`, of itself alone), and members that keep
its core pass that on. A member signs H(key = mesh key; "introduction" || id, data core key and
name, packed).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hypercore.crypto import KEY_BYTES, SIGNATURE_BYTES, KeyPair, blake2b, sign, verify
from node.mesh.fields import Field, FieldError, FieldReader, pack_fields
from node.mesh.ledger import MAX_RECORDS
from node.mesh.ticket import MAX_RECORD_BYTES, Grant, Record, Revocation

SHORT_DIGEST_BYTES = 16
MAX_FAREWELL = 512
MAX_NAME = 128
MAX_MESSAGE_INTRODUCTIONS = 1024
TARGET_BYTES = 256 << 10
MAX_RECORDS_AT_ONCE = 256
"""In one message, of both kinds together: its receiver verifies them all in one go, some 20 ms, and
lets others have their turn before the next message."""


@dataclass(frozen=True, slots=True)
class Records:
    """Signed by admins; `summary` is that of all records that are in force at the sender."""

    summary: bytes
    grants: tuple[Grant, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    shown: Grant | None = None
    """The grant that the sender came with; only said before the welcome."""

    @property
    def records(self) -> tuple[Record, ...]:
        return (*self.grants, *self.revocations)

    def encode(self) -> bytes:
        grants: list[Field] = [grant.fields for grant in self.grants]
        revocations: list[Field] = [revocation.fields for revocation in self.revocations]
        shown = None if self.shown is None else self.shown.fields
        return pack_fields(self.summary, shown, grants, revocations)

    @classmethod
    def decode(cls, reader: FieldReader) -> Records:
        summary, shown = reader.fixed(32), reader.optional_array()
        grants, revocations = reader.array(MAX_RECORDS_AT_ONCE), reader.array(MAX_RECORDS_AT_ONCE)
        if (count := grants.remaining + revocations.remaining) > MAX_RECORDS_AT_ONCE:
            raise FieldError(f"{count} records, at most {MAX_RECORDS_AT_ONCE}", 0)
        return cls(
            summary,
            tuple(Grant.decode(grants.array()) for _ in range(grants.remaining)),
            tuple(Revocation.decode(revocations.array()) for _ in range(revocations.remaining)),
            None if shown is None else Grant.decode(shown),
        )


@dataclass(frozen=True, slots=True)
class Held:
    """The records that the sender has, by the beginnings of their digests."""

    digests: frozenset[bytes]

    def encode(self) -> bytes:
        return pack_fields(b"".join(sorted(self.digests)))

    @classmethod
    def decode(cls, reader: FieldReader) -> Held:
        data = reader.data(MAX_RECORDS * SHORT_DIGEST_BYTES)
        if len(data) % SHORT_DIGEST_BYTES:
            raise FieldError(f"{len(data)} bytes of digests of {SHORT_DIGEST_BYTES}", 0)
        starts = range(0, len(data), SHORT_DIGEST_BYTES)
        return cls(frozenset(data[start : start + SHORT_DIGEST_BYTES] for start in starts))


@dataclass(frozen=True, slots=True)
class Farewell:
    """The receiver is not, or no longer, let in: why, and who wanted it so."""

    reason: str
    revocation: Revocation | None = None

    def encode(self) -> bytes:
        fields = None if self.revocation is None else self.revocation.fields
        return pack_fields(self.reason[:MAX_FAREWELL], fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Farewell:
        reason, revocation = reader.text(MAX_FAREWELL), reader.optional_array()
        return cls(reason, None if revocation is None else Revocation.decode(revocation))


@dataclass(frozen=True, slots=True)
class Introduction:
    """A member says which data core is its own; `grant` is what it may do, if it has one."""

    member: bytes
    data_key: bytes
    name: str
    grant: Grant | None
    signature: bytes = b""

    @classmethod
    def issue(
        cls, mesh_key: bytes, identity: KeyPair, data_key: bytes, name: str, grant: Grant | None
    ) -> Introduction:
        introduction = cls(identity.public_key, data_key, name[:MAX_NAME], grant)
        signature = sign(introduction._signable(mesh_key), identity.secret_key)
        return replace(introduction, signature=signature)

    def _signable(self, mesh_key: bytes) -> bytes:
        claim = pack_fields(self.member, self.data_key, self.name)
        return blake2b(b"introduction", claim, key=mesh_key)

    def is_signed(self, mesh_key: bytes) -> bool:
        return verify(self._signable(mesh_key), self.signature, self.member)

    @property
    def fields(self) -> list[Field]:
        grant = None if self.grant is None else self.grant.fields
        return [self.member, self.data_key, self.name, grant, self.signature]

    def encode(self) -> bytes:
        return pack_fields(*self.fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Introduction:
        """Raises: DecodeError."""
        member, data_key = reader.fixed(KEY_BYTES), reader.fixed(KEY_BYTES)
        name, grant = reader.text(MAX_NAME), reader.optional_array()
        return cls(
            member,
            data_key,
            name,
            None if grant is None else Grant.decode(grant),
            reader.fixed(SIGNATURE_BYTES),
        )

    @classmethod
    def decode_bytes(cls, data: bytes) -> Introduction:
        """Raises: DecodeError."""
        return cls.decode(FieldReader.unpack(data, MAX_RECORD_BYTES))


@dataclass(frozen=True, slots=True)
class Kept:
    """Members whose data core the sender has: itself, or those whose core it keeps."""

    introductions: tuple[Introduction, ...]

    def encode(self) -> bytes:
        fields: list[Field] = [introduction.fields for introduction in self.introductions]
        return pack_fields(fields)

    @classmethod
    def decode(cls, reader: FieldReader) -> Kept:
        items = reader.array(MAX_MESSAGE_INTRODUCTIONS)
        return cls(tuple(Introduction.decode(items.array()) for _ in range(items.remaining)))


TrustMessage = Records | Held | Farewell | Kept


def shortened(digest: bytes) -> bytes:
    """As `Held` names a record."""
    return digest[:SHORT_DIGEST_BYTES]


def split_records(summary: bytes, records: Iterable[Record]) -> Iterator[Records]:
    """As many messages as it takes; one at least."""
    part: list[Record] = []
    size = 0
    for record in records:
        record_bytes = len(record.encode())
        if part and (size + record_bytes > TARGET_BYTES or len(part) >= MAX_RECORDS_AT_ONCE):
            yield _as_message(summary, part)
            part, size = [], 0
        part.append(record)
        size += record_bytes
    yield _as_message(summary, part)


def _as_message(summary: bytes, records: Sequence[Record]) -> Records:
    return Records(
        summary,
        tuple(record for record in records if isinstance(record, Grant)),
        tuple(record for record in records if isinstance(record, Revocation)),
    )


def split_introductions(introductions: Sequence[Introduction]) -> Iterator[Kept]:
    """As many messages as it takes; one at least."""
    for start in range(0, max(1, len(introductions)), MAX_MESSAGE_INTRODUCTIONS):
        yield Kept(tuple(introductions[start : start + MAX_MESSAGE_INTRODUCTIONS]))
