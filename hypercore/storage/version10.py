"""[disk] Reads what Hypercore 10 wrote of a core: `oplog`, `data`, `tree` and `bitfield`.

| file       | holds                                                                             |
|------------|-----------------------------------------------------------------------------------|
| `oplog`    | two headers, at 0 and 4096, of which one counts; from 8192 on what happened since  |
| `header`   | a header that was too large for its place                                         |
| `tree`     | node i at 40 * i: u64 size, 32 bytes of hash; zeros where there is none           |
| `bitfield` | block i in bit i, lowest bit of a byte first                                      |
| `data`     | the blocks one after the other, with room for those that are not here             |

A record of the oplog is u32 CRC-32 (of all that follows), u32 (length * 4 + 2 if more entries
belong to the same change + the bit that tells which header it belongs to), then its bytes. The
first header counts when both headers have the same bit, else the second one. A last record that
is cut off or spoiled was never acknowledged.

Header, version 1: uint 1, uint flags (1 external: uint start, uint length in `header`; 2 manifest;
4 key pair), key, [manifest], [key pair], array of (string, buffer) user data, tree (uint fork,
uint length, buffer hash, buffer signature), hints. Version 0: uint 0, three strings, user data,
tree, key pair, hints. Entry: uint flags (1 user data, 2 nodes, 4 uint fork, uint ancestors, uint
length, buffer signature, 8 uint drop, uint start, uint length), in this order.

Worked example: a bit set for block 5 is an entry `08 00 05 01`.

Source: hypercore-storage 3.3.1 migrations/0 (which looks at no checksum and refuses a log that
was truncated since its last header); hypercore 10 lib/oplog.js.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import BinaryIO

from hypercore import flat_tree
from hypercore.bitfield import PAGE_BYTES, Bitfield
from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError, Reader
from hypercore.errors import CorruptStorage
from hypercore.flat_tree import TreeIndex
from hypercore.log import Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, decode_node
from hypercore.seek import byte_offset
from hypercore.storage.records import stored_key_pair
from hypercore.verifier import Verifier

_HEADER_BYTES = 4096
_ENTRIES_OFFSET = 2 * _HEADER_BYTES
_NODE_BYTES = 40
_RECORD = Struct("<II")
_SIZE = Struct("<Q")


@dataclass(slots=True)
class _State:
    """What the header says, brought up to date by the entries after it."""

    key: bytes
    manifest: Manifest
    key_pair: KeyPair | None
    user_data: dict[str, bytes]
    fork: int
    length: int
    signature: bytes
    nodes: dict[int, MerkleNode] = field(default_factory=dict)
    bits: list[tuple[int, int, bool]] = field(default_factory=list)
    """(start, stop, whether they are here), in the order in which it happened."""


class Version10Core:
    """The files of one core, for reading; to be closed.

    The head is checked here against its signature, blocks and nodes are not: `log_copy` does.

    Raises: CorruptStorage, OSError.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._files: list[BinaryIO] = []
        state = _read_oplog(directory)
        self._state = state
        self._tree = self._open("tree")
        self._data = self._open("data")
        self._offset = (0, 0)  # of the block after the one read last
        try:
            self.head = self._load_head()
            self.bitfield = self._load_bitfield()
        except BaseException:
            self.close()
            raise

    def _open(self, name: str) -> BinaryIO | None:
        path = self.directory / name
        if not path.exists():
            return None
        file = path.open("rb")
        self._files.append(file)
        return file

    def close(self) -> None:
        for file in self._files:
            file.close()

    @property
    def key(self) -> bytes:
        return self._state.key

    @property
    def manifest(self) -> Manifest:
        return self._state.manifest

    @property
    def key_pair(self) -> KeyPair | None:
        return self._state.key_pair

    @property
    def user_data(self) -> dict[str, bytes]:
        return dict(self._state.user_data)

    def _load_head(self) -> Head:
        state = self._state
        where = str(self.directory)
        roots = []
        for index in flat_tree.full_roots(state.length):
            root = self.read_node(index)
            if root is None:
                raise CorruptStorage(where, f"tree node {index}, a root, is missing")
            roots.append(root)
        byte_length = sum(root.size for root in roots)
        head = Head(state.fork, state.length, byte_length, tuple(roots), state.signature)
        try:
            verifier = Verifier(state.key, state.manifest)
        except ValueError as error:
            raise CorruptStorage(where, str(error)) from error
        if head.length and not verifier.verify(head, head.signature):
            raise CorruptStorage(where, f"nobody signed its head of length {head.length}")
        return head

    def _load_bitfield(self) -> Bitfield:
        bitfield = Bitfield()
        path = self.directory / "bitfield"
        data = path.read_bytes() if path.exists() else b""
        for start in range(0, len(data), PAGE_BYTES):
            page = data[start : start + PAGE_BYTES]
            bitfield.load_page(start // PAGE_BYTES, page.ljust(PAGE_BYTES, b"\x00"))
        length = self._state.length
        for first, stop, is_here in self._state.bits:
            # What was cut off later does not count.
            bitfield.set_range(min(first, length), min(stop, length), is_here)
        return bitfield

    def read_node(self, index: int) -> MerkleNode | None:
        node = self._state.nodes.get(index)
        if node is not None or self._tree is None:
            return node
        self._tree.seek(_NODE_BYTES * index)
        data = self._tree.read(_NODE_BYTES)
        if len(data) < _NODE_BYTES or not any(data):
            return None
        return MerkleNode(TreeIndex(index), _SIZE.unpack_from(data)[0], data[8:])

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        return [self._read_block(index) for index in indices]

    def _read_block(self, index: int) -> bytes | None:
        if not self.bitfield.get(index):
            return None
        leaf = self.read_node(2 * index)
        if leaf is None or self._data is None:
            raise CorruptStorage(str(self.directory), f"no tree node or data of block {index}")
        known, offset = self._offset
        if known != index:
            before = byte_offset(self.head.roots, index, self.read_node)
            if before is None:
                raise CorruptStorage(str(self.directory), f"no way to the place of block {index}")
            offset = before
        self._offset = (index + 1, offset + leaf.size)
        self._data.seek(offset)
        block = self._data.read(leaf.size)
        if len(block) < leaf.size:
            raise CorruptStorage(str(self.directory / "data"), f"ends within block {index}")
        return block


def version10_directories(path: Path) -> list[Path]:
    """Directories of the cores in `path`, which may be one, or the directory of a Corestore 6."""
    return sorted(oplog.parent for oplog in path.rglob("oplog"))


def _read_oplog(directory: Path) -> _State:
    path = directory / "oplog"
    if not path.is_file():
        raise CorruptStorage(str(directory), "no oplog: not a core of Hypercore 10")
    data = path.read_bytes()
    first = _record_at(data, 0)
    second = _record_at(data, _HEADER_BYTES)
    if first is None and second is None:
        raise CorruptStorage(str(path), "both headers are damaged")
    bits = [0 if one is None else one.header_bit for one in (first, second)]
    if first is None:
        bits[0] = 1 - bits[1]
    elif second is None:
        bits[1] = bits[0]
    current = bits[0] ^ bits[1]
    chosen = second if current else first
    assert chosen is not None
    try:
        state = _decode_header(chosen.payload) or _read_external_header(chosen.payload, directory)
        for entry in _entries(data, current):
            _apply_entry(state, Reader(entry))
    except DecodeError as error:
        raise CorruptStorage(str(path), str(error)) from error
    return state


@dataclass(frozen=True, slots=True)
class _OplogRecord:
    header_bit: int
    is_partial: bool
    payload: bytes
    stop: int


def _record_at(data: bytes, offset: int) -> _OplogRecord | None:
    """None for a record that is cut off or spoiled."""
    if offset + _RECORD.size > len(data):
        return None
    checksum, word = _RECORD.unpack_from(data, offset)
    start = offset + _RECORD.size
    stop = start + (word >> 2)
    if stop == start or stop > len(data) or zlib.crc32(data[offset + 4 : stop]) != checksum:
        return None
    return _OplogRecord(word & 1, bool(word & 2), data[start:stop], stop)


def _entries(data: bytes, header_bit: int) -> list[bytes]:
    entries: list[bytes] = []
    complete = 0
    offset = _ENTRIES_OFFSET
    while (record := _record_at(data, offset)) is not None and record.header_bit == header_bit:
        entries.append(record.payload)
        offset = record.stop
        if not record.is_partial:
            complete = len(entries)
    return entries[:complete]


def _read_external_header(data: bytes, directory: Path) -> _State:
    """The header to which this one points."""
    reader = Reader(data, 2)
    start, length = reader.uint(), reader.uint()
    path = directory / "header"
    content = path.read_bytes()[start : start + length] if path.is_file() else b""
    state = _decode_header(content)
    if state is None:
        raise DecodeError("a header that points to a header that points on", 0)
    return state


def _decode_header(data: bytes) -> _State | None:
    """None for a header that only points to another."""
    reader = Reader(data)
    version = reader.uint()
    if version == 0:
        return _decode_header_version_0(reader)
    if version != 1:
        raise DecodeError(f"header of version {version}", 0)
    flags = reader.uint()
    if flags & 1:
        return None
    key = reader.fixed32()
    manifest = Manifest.decode(reader) if flags & 2 else Manifest.single_signer(key)
    key_pair = _decode_key_pair(reader)[1] if flags & 4 else None
    user_data = _decode_user_data(reader)
    return _State(key, manifest, key_pair, user_data, *_decode_tree(reader))


def _decode_header_version_0(reader: Reader) -> _State:
    for _ in range(3):
        reader.string()  # the kinds of tree, bitfield and signer: there was only one of each
    user_data = _decode_user_data(reader)
    tree = _decode_tree(reader)
    key, key_pair = _decode_key_pair(reader)
    return _State(key, Manifest.single_signer(key), key_pair, user_data, *tree)


def _decode_tree(reader: Reader) -> tuple[int, int, bytes]:
    fork, length = reader.uint(), reader.uint()
    reader.optional_buffer()  # the hash, which is computed from the roots
    return fork, length, reader.optional_buffer() or b""


def _decode_key_pair(reader: Reader) -> tuple[bytes, KeyPair | None]:
    public_key, secret_key = reader.optional_buffer(), reader.optional_buffer()
    public_key = public_key or b""
    return public_key, stored_key_pair(public_key, secret_key, reader.offset)


def _decode_user_data(reader: Reader) -> dict[str, bytes]:
    return dict(reader.array(lambda item: (item.string(), item.optional_buffer() or b"")))


def _apply_entry(state: _State, reader: Reader) -> None:
    flags = reader.uint()
    if flags & 1:
        key = reader.string()
        state.user_data[key] = reader.optional_buffer() or b""
    if flags & 2:
        state.nodes.update((node.index, node) for node in reader.array(decode_node))
    if flags & 4:
        state.fork, ancestors, state.length = reader.uint(), reader.uint(), reader.uint()
        state.signature = reader.optional_buffer() or b""
        if ancestors > state.length:
            raise DecodeError(f"{ancestors} blocks kept of {state.length}", reader.offset)
    if flags & 8:
        is_here = not reader.uint() & 1
        start = reader.uint()
        state.bits.append((start, start + reader.uint(), is_here))
