"""The messages of `beemesh/1` that are about members: what admins signed, and farewells.

| #  | message  | fields                                                          |
|----|----------|-----------------------------------------------------------------|
| 16 | records  | summary (32 bytes), [grant...], [revocation...]                 |
| 17 | held     | first 16 bytes of the digest of every record held               |
| 18 | farewell | reason, revocation or nil                                       |

Before its welcome a node sends the records that show what it may do, and the summary of all it
holds. Who holds others says which (`held`) once the other is a member, and is sent what it lacks.
Later records go to all members as they come. A node that is shut out is told why (`farewell`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from node.mesh.fields import Field, FieldError, FieldReader, pack_fields
from node.mesh.ledger import MAX_RECORDS
from node.mesh.ticket import Grant, Record, Revocation

SHORT_DIGEST_BYTES = 16
MAX_FAREWELL = 512
MAX_MESSAGE_RECORDS = 1024
"""Of each kind in one message: at most about a quarter of a megabyte, as a rule."""


@dataclass(frozen=True, slots=True)
class Records:
    """Signed by admins; `summary` is that of all records that are in force at the sender."""

    summary: bytes
    grants: tuple[Grant, ...] = ()
    revocations: tuple[Revocation, ...] = ()

    @property
    def records(self) -> tuple[Record, ...]:
        return (*self.grants, *self.revocations)

    def encode(self) -> bytes:
        grants: list[Field] = [grant.fields for grant in self.grants]
        revocations: list[Field] = [revocation.fields for revocation in self.revocations]
        return pack_fields(self.summary, grants, revocations)

    @classmethod
    def decode(cls, reader: FieldReader) -> Records:
        summary = reader.fixed(32)
        grants, revocations = reader.array(MAX_MESSAGE_RECORDS), reader.array(MAX_MESSAGE_RECORDS)
        return cls(
            summary,
            tuple(Grant.decode(grants.array()) for _ in range(grants.remaining)),
            tuple(Revocation.decode(revocations.array()) for _ in range(revocations.remaining)),
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


TrustMessage = Records | Held | Farewell


def short_digest(record: Record) -> bytes:
    return record.digest[:SHORT_DIGEST_BYTES]


def split_records(summary: bytes, records: Iterable[Record]) -> Iterator[Records]:
    """As many messages as it takes; one at least."""
    listed = list(records)
    for start in range(0, max(1, len(listed)), MAX_MESSAGE_RECORDS):
        part = listed[start : start + MAX_MESSAGE_RECORDS]
        yield Records(
            summary,
            tuple(record for record in part if isinstance(record, Grant)),
            tuple(record for record in part if isinstance(record, Revocation)),
        )
