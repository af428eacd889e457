"""The members that this node has met in its mesh: `members.json`.

It is what `beemesh members` knows of those who are away, and more hangs on it: who is asked how
long our own log was, which cores are for members only once somebody was shut out, which cores a
blind node keeps, with which ticket somebody came. So no node replaces a damaged one by a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from node.errors import ConfigError, reason_of
from node.foreign_fields import ForeignFields, encode_objects, foreign_fields
from node.mesh.trust_messages import Introduction
from node.private_file import write_private

MAX_MET = 4096
"""Members remembered; those never here are forgotten first, then those not seen for longest."""


class Met(msgspec.Struct, frozen=True):
    """One member as it was when it was last here; times are unix seconds."""

    id: str
    name: str
    role: str
    """Empty if it was never here, but introduced."""
    since: float
    seen: float
    ticket: str = ""
    """Digest of the grant that it showed, in hexadecimal, if others may show it, too."""
    key: str = ""
    """The key of its data core, in hexadecimal."""
    address: str = ""
    """Where it was dialed last, HOST:PORT."""
    introduction: str = ""
    """What it signed about that, where it is passed on; in hexadecimal."""
    said: str = ""
    """Where it said last that it listens, HOST:PORT: it may have moved since it was dialed."""


class MemberBook:
    """Everybody met, by id."""

    def __init__(
        self, members: list[Met] | None = None, foreign: Mapping[str, ForeignFields] | None = None
    ) -> None:
        self._members = {member.id: member for member in members or ()}
        self._foreign = {id: fields for id, fields in (foreign or {}).items() if fields}

    def __iter__(self) -> Iterator[Met]:
        return iter(self._members.values())

    def get(self, id: str) -> Met | None:
        return self._members.get(id)

    def cores(self) -> Iterator[bytes]:
        """What members said is their data core, by key."""
        for member in self:
            with suppress(ValueError):
                yield bytes.fromhex(member.key)

    def has_core(self, key: str) -> bool:
        """Whether somebody said that this is its data core."""
        return any(member.key == key for member in self)

    def has_other(self, id: str, key: str) -> bool:
        """Whether somebody else said so."""
        return any(member.key == key and member.id != id for member in self)

    def note(
        self,
        id: str,
        name: str,
        role: str,
        unix_seconds: float,
        *,
        ticket: str = "",
        key: str = "",
    ) -> None:
        """The member is here now."""
        earlier = self._members.pop(id, None)
        since = unix_seconds if earlier is None else earlier.since
        address, introduction, said = (
            ("", "", "")
            if earlier is None
            else (earlier.address, earlier.introduction, earlier.said)
        )
        met = Met(id, name, role, since, unix_seconds, ticket, key, address, introduction, said)
        self._put(met)

    def note_address(self, id: str, address: str) -> None:
        """The member was reached there."""
        met = self._members.get(id)
        if met is not None and met.address != address:
            self._put(msgspec.structs.replace(met, address=address))

    def note_said(self, id: str, address: str) -> None:
        """The member says that it listens there."""
        met = self._members.get(id)
        if met is not None and met.said != address:
            self._put(msgspec.structs.replace(met, said=address))

    def addresses(self, count: int) -> list[tuple[str, str]]:
        """(id, address) of the `count` members that were here last: one or two of each."""
        known = sorted((met for met in self if met.address or met.said), key=lambda met: met.seen)
        return [
            (met.id, address)
            for met in known[-count:]
            for address in dict.fromkeys((met.address, met.said))
            if address
        ]

    def introduce(self, introduction: Introduction, unix_seconds: float) -> None:
        """Keep what a member, perhaps one that was never here, signed about its core."""
        id = introduction.member.hex()
        met = self._members.get(id) or Met(id, introduction.name, "", unix_seconds, unix_seconds)
        key, signed = introduction.data_key.hex(), introduction.encode().hex()
        self._put(msgspec.structs.replace(met, key=key, introduction=signed))

    def _put(self, met: Met) -> None:
        self._members[met.id] = met
        if len(self._members) > MAX_MET:
            # One that introduces itself as many must not have those forgotten that were here.
            gone = min(self, key=lambda member: (member.role != "", member.seen)).id
            del self._members[gone]
            self._foreign.pop(gone, None)

    def encode(self) -> bytes:
        return encode_objects((member, self._foreign.get(member.id, {})) for member in self)

    @classmethod
    def decode(cls, data: bytes) -> MemberBook:
        """Raises: ValueError."""
        members = msgspec.json.decode(data, type=list[Met])[:MAX_MET]
        for member in members:
            bytes.fromhex(member.id + member.ticket)
        foreign = foreign_fields(data, Met)
        return cls(members, {met.id: fields for met, fields in zip(members, foreign, strict=False)})


def load_book(path: Path) -> MemberBook:
    """What the file says; blocks on the disk. Raises: ConfigError."""
    try:
        return MemberBook.decode(path.read_bytes())
    except FileNotFoundError:
        return MemberBook()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason_of(error)}") from error
    except ValueError as error:
        raise ConfigError(
            f"{path} is damaged: {error}: mend it, or restore it from a backup. If it is moved "
            f"away, this node knows nobody any more: it may append without having asked how long "
            f"its own log was, and serve or give up cores that only members are to have"
        ) from None


def save_book(path: Path, encoded: bytes) -> None:
    """Replace the file; blocks on the disk."""
    write_private(path, encoded)
