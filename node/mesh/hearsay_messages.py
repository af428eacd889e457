"""The messages of `beemesh/1` about what members hear from one another anyway.

| #  | message   | fields                                                    |
|----|-----------|-----------------------------------------------------------|
| 20 | neighbors | [member id (32 bytes) added...], [member id removed...]   |
| 21 | brief     | data version, names (16 bytes each), [count...]           |
| 22 | unclear   | names (16 bytes each)                                     |

*Neighbors* are the members from which the sender hears what they change: a difference to what it
said before. *Brief* is an update of values of which the receiver has most likely heard: a name is
the beginning of BLAKE2b(coID, line feed, CoSessionId), and its count is that of the session's
transactions. A member that cannot tell what a name stands for says so (`unclear`), and is sent an
update, or the name once more with a count of 0: the sender does not know it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from hypercore.crypto import KEY_BYTES, blake2b
from node.covalue.ids import CoSessionId, RawCoId
from node.mesh.fields import Field, FieldError, FieldReader, pack_fields

SHORT_NAME_BYTES = 16
"""Long enough that nobody finds two sessions with one name."""

MAX_NAMES = 4096
"""Names, or members, in one message."""


def short_name(co_id: RawCoId, session_id: CoSessionId) -> bytes:
    """What a session of a value is called in brief."""
    return blake2b(f"{co_id}\n{session_id}".encode(), size=SHORT_NAME_BYTES)


@dataclass(frozen=True, slots=True)
class Neighbors:
    """The sender hears from these members, too, and no longer from those removed."""

    added: tuple[bytes, ...] = ()
    removed: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        return pack_fields(list(self.added), list(self.removed))

    @classmethod
    def decode(cls, reader: FieldReader) -> Neighbors:
        return cls(_read_ids(reader.array(MAX_NAMES)), _read_ids(reader.array(MAX_NAMES)))


@dataclass(frozen=True, slots=True)
class Brief:
    """So much of these sessions is durable at the sender, as of that version of its data core."""

    version: int
    counts: tuple[tuple[bytes, int], ...]

    def encode(self) -> bytes:
        counts: list[Field] = [count for _, count in self.counts]
        return pack_fields(self.version, b"".join(name for name, _ in self.counts), counts)

    @classmethod
    def decode(cls, reader: FieldReader) -> Brief:
        version, names, counts = reader.uint(), _read_names(reader), reader.array(MAX_NAMES)
        if counts.remaining != len(names):
            raise FieldError(f"{counts.remaining} counts for {len(names)} names", 2)
        return cls(version, tuple((name, counts.uint()) for name in names))


@dataclass(frozen=True, slots=True)
class Unclear:
    """The sender does not know which sessions of which values these are."""

    names: tuple[bytes, ...]

    def encode(self) -> bytes:
        return pack_fields(b"".join(self.names))

    @classmethod
    def decode(cls, reader: FieldReader) -> Unclear:
        return cls(_read_names(reader))


HearsayMessage: TypeAlias = Neighbors | Brief | Unclear


def difference(before: frozenset[bytes], after: frozenset[bytes]) -> Iterator[Neighbors]:
    """The messages that bring a member that knows `before` up to date; none without a change."""
    added, removed = iter(sorted(after - before)), iter(sorted(before - after))
    while True:
        part = Neighbors(tuple(islice(added, MAX_NAMES)), tuple(islice(removed, MAX_NAMES)))
        if not part.added and not part.removed:
            return
        yield part


def briefs(version: int, counts: Sequence[tuple[bytes, int]]) -> Iterable[Brief]:
    """As many messages as it takes."""
    for start in range(0, len(counts), MAX_NAMES):
        yield Brief(version, tuple(counts[start : start + MAX_NAMES]))


def _read_ids(items: FieldReader) -> tuple[bytes, ...]:
    return tuple(items.fixed(KEY_BYTES) for _ in range(items.remaining))


def _read_names(reader: FieldReader) -> tuple[bytes, ...]:
    data = reader.data(MAX_NAMES * SHORT_NAME_BYTES)
    if len(data) % SHORT_NAME_BYTES:
        raise FieldError(f"{len(data)} bytes of names of {SHORT_NAME_BYTES}", 0)
    starts = range(0, len(data), SHORT_NAME_BYTES)
    return tuple(data[start : start + SHORT_NAME_BYTES] for start in starts)
