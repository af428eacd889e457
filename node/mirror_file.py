"""`mirrors.json` in the data directory: which cores of others this node keeps and serves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from hypercore.crypto import decode_id
from node.errors import ConfigError
from node.foreign_fields import ForeignFields, encode_objects, foreign_fields
from node.notation import parse_address
from node.private_file import write_private
from node.verbs import CoreList, LogVerb

MAX_MIRRORS = 1024
"""Each is a topic to announce and look for."""


class MirrorSpec(msgspec.Struct, frozen=True):
    """Blocks [start, stop) of a core, `stop` None with all that comes; `key` in hexadecimal.

    `kind` is `bee` or `core` if that was asked for: with `bee`, no other core is mirrored.
    `peers` are dialed for it, as HOST:PORT.
    """

    key: str
    name: str = ""
    kind: str = ""
    start: int = 0
    stop: int | None = None
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(decode_id(self.key)) != 32:
            raise ValueError(f"{self.key!r} is no key")
        if self.kind not in ("", "bee", "core"):
            raise ValueError(f"kind {self.kind!r} is neither bee nor core")
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"no block is in {self.start}:{self.stop}")
        for peer in self.peers:
            parse_address(peer)
        if len(self.name) > 128 or not self.name.isprintable():
            raise ValueError(f"name {self.name!r}: at most 128 printable characters wanted")

    @property
    def key_bytes(self) -> bytes:
        return decode_id(self.key)

    def is_meant(self, key_or_name: str) -> bool:
        """Whether a key or name means this mirror."""
        if key_or_name == self.name and self.name:
            return True
        try:
            return decode_id(key_or_name) == self.key_bytes
        except ValueError:
            return False


def told_by_key(
    verb: LogVerb, mirrors: Iterable[MirrorSpec], own_names: Collection[str]
) -> LogVerb:
    """The same verb, with the key of a mirror that it names; a name of our own goes first."""
    if isinstance(verb, CoreList) or not verb.core or verb.core in own_names:
        return verb
    keys = (mirror.key for mirror in mirrors if mirror.name == verb.core)
    return msgspec.structs.replace(verb, core=next(keys, verb.core))


def load_mirrors(path: Path) -> list[MirrorSpec]:
    """What the file says, nothing where there is none; blocks on the disk.

    Raises: ConfigError.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[MirrorSpec])[:MAX_MIRRORS]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}: mend it, or remove it to begin anew") from error


def save_mirrors(path: Path, mirrors: Sequence[MirrorSpec]) -> None:
    """Replace the file, all or nothing; blocks on the disk."""
    foreign = _foreign_by_key(path)
    objects = encode_objects((mirror, foreign.get(mirror.key, {})) for mirror in mirrors)
    write_private(path, objects + b"\n")


def _foreign_by_key(path: Path) -> dict[str, ForeignFields]:
    try:
        written = path.read_bytes()
        mirrors = msgspec.json.decode(written, type=list[MirrorSpec])
    except (OSError, ValueError):
        return {}  # a damaged file was told of when it was loaded
    fields = foreign_fields(written, MirrorSpec)
    return {mirror.key: of_it for mirror, of_it in zip(mirrors, fields, strict=True)}
