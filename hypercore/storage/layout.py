"""Keys and records of a corestore's database, byte for byte those of the JavaScript original.

Keys are ordered: integers are u(n): n <= fb one byte, else `fc` + u16, `fd` + u32, `fe` + u64,
big endian; text is s(x): `00`, the bytes with 00 written as 00 02, then `00 01`. Records use
compact encoding.

| key                                     | record                                              |
|-----------------------------------------|-----------------------------------------------------|
| `00`                                    | `StoreHead`                                         |
| `01` discovery key                      | `CoreRecord`                                        |
| `02` namespace (32) s(name)             | discovery key                                       |
| `03` u(core pointer) `00`               | `AuthRecord`                                        |
| `03` u(core pointer) `01`               | named sessions: made by JavaScript only             |
| `03` u(core pointer) `02`               | group of the core: `CoreGroup`                      |
| `04` u(data pointer) `00`               | `HeadRecord`                                        |
| `04` u(data pointer) `01`               | dependency of a named session; not used here        |
| `04` u(data pointer) `02`               | `Hints`                                             |
| `04` u(data pointer) `03` u(index)      | a block as stored; may be empty                     |
| `04` u(data pointer) `04` u(tree index) | a tree node: `merkle.encode_node`                   |
| `04` u(data pointer) `05` u(page) `00`  | 4,096 bytes of bitfield, block i in bit i & 7       |
| `04` u(data pointer) `06` s(key)        | user data                                           |
| `04` u(data pointer) `07` key           | local row; the key is raw, at most 2,048 bytes      |
| `04` u(data pointer) `08` u(page)       | marks of blocks to keep, 4,096 bytes as of bitfield |
| `05` topic (32)                         | u(group pointer) as a record: uint                  |
| `06` u(group pointer) u64 u(core pointer) | key of a core that changed at that time (Unix ms) |

Worked example: block 300 of data pointer 5 is `04 05 03 fc 01 2c`.

Source: hypercore-storage 3.3.1 lib/keys.js and encoding/; index-encoder 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct
from typing import Self

from hypercore.crypto import KeyPair
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.encoding import (
    DecodeError,
    Reader,
    encode_buffer,
    encode_optional_buffer,
    encode_string,
    encode_uint,
    encode_uint64,
)
from hypercore.manifest import Manifest
from hypercore.storage.records import stored_key_pair

STORE_VERSION = 2
ROOT_NAMESPACE = bytes(32)
MAX_LOCAL_KEY_BYTES = 2048

PAGE_BYTES = 4096
"""One bitfield page, 32,768 blocks. Shorter ones read as if filled up with zeros."""

STORE_HEAD_KEY = b"\x00"
CORES = (b"\x01", b"\x02")
"""The keys of all core records: [start, stop)."""
ALIASES = (b"\x02", b"\x03")
"""The keys of all names, in every namespace."""

_ALIAS = b"\x02"
_CORE = b"\x03"
_DATA = b"\x04"
_GROUP = b"\x05"
_UPDATE = b"\x06"
_U16_KEY = Struct(">BH").pack
_U32_KEY = Struct(">BI").pack
_U64_KEY = Struct(">BQ").pack


def encode_number(value: int) -> bytes:
    """An integer whose encodings sort as the numbers do."""
    if value <= 0xFB:
        return value.to_bytes(1, "big")
    if value <= 0xFFFF:
        return _U16_KEY(0xFC, value)
    if value <= 0xFFFFFFFF:
        return _U32_KEY(0xFD, value)
    return _U64_KEY(0xFE, value)


def decode_number(reader: Reader) -> int:
    """Raises: DecodeError."""
    first = reader.uint8()
    if first <= 0xFB:
        return first
    if first == 0xFF:
        raise DecodeError("infinity is not a number", reader.offset)
    return int.from_bytes(reader.fixed(2 << (first - 0xFC)), "big")


def encode_text(text: bytes) -> bytes:
    """Text whose encodings sort as the texts do, whatever follows them in the key."""
    return b"\x00" + text.replace(b"\x00", b"\x00\x02") + b"\x00\x01"


def decode_text(reader: Reader) -> bytes:
    """Raises: DecodeError."""
    offset = reader.offset
    data = reader.rest()
    stop = data.find(b"\x00\x01", 1)
    if stop < 0 or data[0]:
        raise DecodeError("key text without its marks", offset)
    reader.offset = offset + stop + 2
    return data[1:stop].replace(b"\x00\x02", b"\x00")


def core_key(discovery_key: bytes) -> bytes:
    return b"\x01" + discovery_key


def alias_key(namespace: bytes, name: str) -> bytes:
    return _ALIAS + namespace + encode_text(str.encode(name))


def alias_range(namespace: bytes) -> tuple[bytes, bytes]:
    """The keys of all names of a namespace: [start, stop)."""
    prefix = _ALIAS + namespace
    return prefix + b"\x00", prefix + b"\x01"


def decode_alias_key(key: bytes) -> str:
    """The name in a key of `alias_range`. Raises: DecodeError."""
    try:
        return decode_text(Reader(key, 1 + len(ROOT_NAMESPACE))).decode()
    except UnicodeDecodeError:
        raise DecodeError("name is not UTF-8", 1 + len(ROOT_NAMESPACE)) from None


def auth_key(core_pointer: int) -> bytes:
    return _CORE + encode_number(core_pointer) + b"\x00"


def core_range(core_pointer: int) -> tuple[bytes, bytes]:
    """The keys of all that is kept for a core beside its data: [start, stop)."""
    return _CORE + encode_number(core_pointer), _CORE + encode_number(core_pointer + 1)


def sessions_key(core_pointer: int) -> bytes:
    return _CORE + encode_number(core_pointer) + b"\x01"


def core_group_key(core_pointer: int) -> bytes:
    return _CORE + encode_number(core_pointer) + b"\x02"


def group_key(topic: bytes) -> bytes:
    return _GROUP + topic


def group_updates(group_pointer: int) -> tuple[bytes, bytes]:
    """The keys of all updates of a group, oldest first: [start, stop)."""
    return _UPDATE + encode_number(group_pointer), _UPDATE + encode_number(group_pointer + 1)


def group_update_key(group_pointer: int, unix_ms: int, core_pointer: int) -> bytes:
    prefix = _UPDATE + encode_number(group_pointer)
    return prefix + unix_ms.to_bytes(8, "big") + encode_number(core_pointer)


def decode_sessions(data: bytes) -> dict[str, int]:
    """Data pointers of a core's named sessions. Raises: DecodeError."""
    reader = Reader(data)
    return {reader.string(): reader.uint() for _ in range(reader.uint())}


class DataKeys:
    """The keys of one log's data."""

    __slots__ = (
        "_block",
        "_local",
        "_mark",
        "_node",
        "_page",
        "_user",
        "dependency",
        "everything",
        "head",
        "hints",
    )

    def __init__(self, data_pointer: int) -> None:
        prefix = _DATA + encode_number(data_pointer)
        self.everything = prefix, _DATA + encode_number(data_pointer + 1)
        self.head = prefix + b"\x00"
        self.dependency = prefix + b"\x01"
        self.hints = prefix + b"\x02"
        self._block = prefix + b"\x03"
        self._node = prefix + b"\x04"
        self._page = prefix + b"\x05"
        self._user = prefix + b"\x06"
        self._local = prefix + b"\x07"
        self._mark = prefix + b"\x08"

    def block(self, index: int) -> bytes:
        if 0xFFFF < index <= 0xFFFFFFFF:  # hot path: nearly all of a long log
            return self._block + _U32_KEY(0xFD, index)
        return self._block + encode_number(index)

    def node(self, index: int) -> bytes:
        return self._node + encode_number(index)

    def page(self, page: int) -> bytes:
        return self._page + encode_number(page) + b"\x00"

    def user_data(self, key: str) -> bytes:
        return self._user + encode_text(key.encode())

    def local(self, key: bytes) -> bytes:
        return self._local + key

    def mark(self, page: int) -> bytes:
        return self._mark + encode_number(page)

    def blocks(self) -> tuple[bytes, bytes]:
        """The keys of all blocks: [start, stop)."""
        return self._block, self._node

    def nodes(self) -> tuple[bytes, bytes]:
        return self._node, self._page

    def pages(self) -> tuple[bytes, bytes]:
        return self._page, self._user

    def marks(self) -> tuple[bytes, bytes]:
        return self._mark, self.everything[1]

    def block_index(self, key: bytes) -> int:
        """The block's number in one of these keys. Raises: DecodeError."""
        return decode_number(Reader(key, len(self._block)))

    def node_index(self, key: bytes) -> int:
        return decode_number(Reader(key, len(self._node)))

    def page_number(self, key: bytes) -> int:
        return decode_number(Reader(key, len(self._page)))

    def mark_number(self, key: bytes) -> int:
        return decode_number(Reader(key, len(self._mark)))

    def local_key(self, key: bytes) -> bytes:
        return key[len(self._local) :]


@dataclass(frozen=True, slots=True)
class StoreHead:
    """The store's counters: the next free pointers, and the seed of all named cores' keys."""

    cores: int = 0
    datas: int = 0
    groups: int = 0
    seed: bytes | None = None
    """The primary key."""
    default_discovery_key: bytes | None = None
    """The first core ever created."""

    def encode(self) -> bytes:
        flags = (self.seed is not None) | (self.default_discovery_key is not None) << 1
        return (
            encode_uint(STORE_VERSION)
            + encode_uint(self.cores)
            + encode_uint(self.datas)
            + encode_uint(self.groups)
            + encode_uint(flags)
            + (self.seed or b"")
            + (self.default_discovery_key or b"")
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads versions 1 and 2. Raises: DecodeError."""
        reader = Reader(data)
        version = reader.uint()
        if version == 1:
            flags = reader.uint()
            cores, datas = (reader.uint(), reader.uint()) if flags & 1 else (0, 0)
            groups, flags = 0, flags >> 1
        elif version == STORE_VERSION:
            cores, datas, groups, flags = (reader.uint() for _ in range(4))
        else:
            raise DecodeError(f"store of version {version}", 0)
        return cls(
            cores,
            datas,
            groups,
            reader.fixed32() if flags & 1 else None,
            reader.fixed32() if flags & 2 else None,
        )


@dataclass(frozen=True, slots=True)
class Alias:
    """The name of a core within a namespace (32 bytes)."""

    namespace: bytes
    name: str


@dataclass(frozen=True, slots=True)
class CoreRecord:
    """Where a core's records are. Two cores may share pointers."""

    core_pointer: int
    data_pointer: int
    alias: Alias | None = None

    def encode(self) -> bytes:
        alias = self.alias
        return (
            encode_uint(STORE_VERSION)
            + encode_uint(self.core_pointer)
            + encode_uint(self.data_pointer)
            + (b"\x01" + encode_string(alias.name) + alias.namespace if alias else b"\x00")
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Reads versions 1 and 2, which have the same bytes. Raises: DecodeError."""
        reader = Reader(data)
        version = reader.uint()
        if version not in (1, STORE_VERSION):
            raise DecodeError(f"core record of version {version}", 0)
        core_pointer, data_pointer, flags = reader.uint(), reader.uint(), reader.uint()
        alias = None
        if flags & 1:
            name = reader.string()
            alias = Alias(reader.fixed32(), name)
        return cls(core_pointer, data_pointer, alias)


def _encode_manifest(manifest: Manifest) -> bytes:
    """As on the wire, but with one order of fields: that of version 1, for version 0 as well."""
    if manifest.version:
        return manifest.encode()
    return b"\x00" + replace(manifest, version=1).encode()[1:]


def _decode_manifest(data: bytes) -> Manifest:
    if data[:1] != b"\x00":
        return Manifest.decode(Reader(data))
    return replace(Manifest.decode(Reader(b"\x01" + data[1:])), version=0)


@dataclass(frozen=True, slots=True)
class AuthRecord:
    """Who may sign, and our own keys, the secret one in clear text."""

    key: bytes
    discovery_key: bytes
    manifest: Manifest | None = None
    public_key: bytes | None = None
    secret_key: bytes | None = None
    encryption_key: bytes | None = None

    @classmethod
    def of(cls, key: bytes, manifest: Manifest | None, key_pair: KeyPair | None) -> Self:
        """What is known of a core that is about to be made."""
        public_key, secret_key = (
            (key_pair.public_key, key_pair.secret_key) if key_pair else (None, None)
        )
        return cls(key, derive_discovery_key(key), manifest, public_key, secret_key)

    @property
    def key_pair(self) -> KeyPair | None:
        if self.public_key is None or self.secret_key is None:
            return None
        return KeyPair(self.public_key, self.secret_key)

    def encode(self) -> bytes:
        flags = (
            (self.manifest is not None)
            | (self.public_key is not None) << 1
            | (self.encryption_key is not None) << 2
        )
        encoded = self.key + self.discovery_key + encode_uint(flags)
        if self.manifest is not None:
            encoded += encode_buffer(_encode_manifest(self.manifest))
        if self.public_key is not None:
            encoded += encode_buffer(self.public_key) + encode_optional_buffer(self.secret_key)
        if self.encryption_key is not None:
            encoded += encode_buffer(self.encryption_key)
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: DecodeError."""
        reader = Reader(data)
        key, discovery_key, flags = reader.fixed32(), reader.fixed32(), reader.uint()
        manifest = _decode_manifest(reader.buffer()) if flags & 1 else None
        public_key = reader.buffer() if flags & 2 else None
        secret_key = reader.optional_buffer() if flags & 2 else None
        encryption_key = reader.buffer() if flags & 4 else None
        if public_key is not None:
            stored_key_pair(public_key, secret_key, reader.offset)
        return cls(key, discovery_key, manifest, public_key, secret_key, encryption_key)


@dataclass(frozen=True, slots=True)
class CoreGroup:
    """The group whose members are told of a core's changes."""

    topic: bytes | None = None
    pointer: int = 0
    """Left out when it is 0."""

    def encode(self) -> bytes:
        flags = (self.topic is not None) | (self.pointer > 0) << 1
        return (
            encode_uint(flags)
            + (self.topic or b"")
            + (encode_uint(self.pointer) if self.pointer else b"")
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags = reader.uint()
        topic = reader.fixed32() if flags & 1 else None
        return cls(topic, reader.uint() if flags & 2 else 0)


@dataclass(frozen=True, slots=True)
class HeadRecord:
    """A log's head; its roots are tree nodes, stored as such."""

    fork: int
    length: int
    tree_hash: bytes
    signature: bytes = b""
    unix_ms: int = 0
    """When it was written; 0 for unknown."""

    def encode(self) -> bytes:
        return (
            encode_uint(self.fork)
            + encode_uint(self.length)
            + self.tree_hash
            + encode_buffer(self.signature)
            + (b"\x01" + encode_uint64(self.unix_ms) if self.unix_ms else b"\x00")
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Old records end before the flags. Raises: DecodeError."""
        reader = Reader(data)
        fork, length = reader.uint(), reader.uint()
        tree_hash, signature = reader.fixed32(), reader.buffer()
        flags = reader.uint() if reader.remaining else 0
        return cls(fork, length, tree_hash, signature, reader.uint64() if flags & 1 else 0)


@dataclass(frozen=True, slots=True)
class Hints:
    """What can be recomputed, and `recovering`; numbers that are 0 are left out."""

    contiguous_length: int = 0
    remote_contiguous_length: int = 0
    recovering: int = 0
    """Since when (Unix ms) the newest blocks are in doubt after damage to the store, or 0."""

    def moved(self, contiguous_length: int) -> Hints:
        return Hints(contiguous_length, self.remote_contiguous_length, self.recovering)

    def encode(self) -> bytes:
        if self.contiguous_length and not self.remote_contiguous_length and not self.recovering:
            return b"\x01" + encode_uint(self.contiguous_length)  # the usual one, written often
        numbers = (self.contiguous_length, self.remote_contiguous_length, self.recovering)
        flags = sum(1 << bit for bit, number in enumerate(numbers) if number)
        return encode_uint(flags) + b"".join(encode_uint(number) for number in numbers if number)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises: DecodeError."""
        reader = Reader(data)
        flags = reader.uint()
        return cls(*(reader.uint() if flags & bit else 0 for bit in (1, 2, 4)))

    @classmethod
    def of_unreadable(cls, data: bytes) -> Self:
        """What is left of a record that does not decode: whether the core is recovering.

        It is, unless the flags say otherwise: nobody can take back an append that came too early.
        JavaScript opens no core with such a record.
        """
        return cls(recovering=int(data[:1] not in (b"\x01", b"\x02", b"\x03")))
