"""Writes what Hypercore 10 would have left of a core: `oplog`, `tree`, `bitfield` and `data`.

Source: hypercore 10 lib/oplog.js, lib/messages.js; read by hypercore-storage 3.3.1 migrations/0.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import pack

from hypercore.bitfield import PAGE_BYTES
from hypercore.crypto import KeyPair, discovery_key
from hypercore.encoding import encode_array, encode_buffer, encode_string, encode_uint
from hypercore.log import EMPTY_HEAD, Head, append
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, encode_node
from hypercore.verifier import Verifier


def record(payload: bytes, header_bit: int, *, is_partial: bool = False) -> bytes:
    body = pack("<I", len(payload) << 2 | is_partial << 1 | header_bit) + payload
    return pack("<I", zlib.crc32(body)) + body


@dataclass
class Version10Writer:
    """A core of one signer; what is flushed is in the header and the files, the rest in entries."""

    key_pair: KeyPair
    is_compat: bool = True
    header_version: int = 0
    user_data: Mapping[str, bytes] = field(default_factory=dict)
    has_secret_key: bool = True
    is_header_external: bool = False

    def __post_init__(self) -> None:
        public_key = self.key_pair.public_key
        self.manifest = Manifest.single_signer(public_key, 0 if self.header_version == 0 else 1)
        self.key = public_key if self.is_compat else self.manifest.key
        self.verifier = Verifier(self.key, self.manifest)
        self.head: Head = EMPTY_HEAD
        self.nodes: dict[int, MerkleNode] = {}
        self.blocks: list[bytes] = []
        self.header_bit = 0
        self.entries: list[bytes] = []
        self._flushed = (self._header(), b"", b"")

    def append(self, *blocks: bytes) -> None:
        start = self.head.length
        changes = append(self.head, blocks, lambda head: self.verifier.sign(head, self.key_pair))
        assert changes.head is not None
        self.head = changes.head
        self.nodes.update((node.index, node) for node in changes.nodes)
        self.blocks += blocks
        entry = b"\x0e" + encode_array(map(encode_node, changes.nodes))
        entry += encode_uint(self.head.fork) + encode_uint(start) + encode_uint(self.head.length)
        entry += encode_buffer(self.head.signature)
        entry += b"\x00" + encode_uint(start) + encode_uint(len(blocks))
        self.entries.append(record(entry, self.header_bit))

    def truncate(self, length: int) -> None:
        """As a new fork; the nodes beyond stay behind, as they do in the files."""
        kept = (
            append(EMPTY_HEAD, self.blocks[:length], lambda _: b"").head if length else EMPTY_HEAD
        )
        assert kept is not None
        head = Head(self.head.fork + 1, length, kept.byte_length, kept.roots)
        signature = self.verifier.sign(head, self.key_pair)
        dropped = self.head.length - length
        self.head = Head(head.fork, length, head.byte_length, head.roots, signature)
        del self.blocks[length:]
        entry = b"\x0c" + encode_uint(self.head.fork) + encode_uint(length) + encode_uint(length)
        entry += encode_buffer(signature)
        entry += b"\x01" + encode_uint(length) + encode_uint(dropped)
        self.entries.append(record(entry, self.header_bit))

    def note(self, key: str, value: bytes) -> None:
        """User data that came after the header."""
        entry = b"\x01" + encode_string(key) + encode_buffer(value)
        self.entries.append(record(entry, self.header_bit))

    def flush(self, without: Collection[int] = ()) -> None:
        """Bring header and files up to date; blocks `without` are as if they never came."""
        self.entries.clear()
        self.header_bit ^= 1
        tree = bytearray(40 * (2 * len(self.blocks) + 1))
        for node in self.nodes.values():
            place = 40 * node.index
            if place + 40 <= len(tree):
                tree[place : place + 40] = pack("<Q", node.size) + node.hash
        bits = bytearray(-(-len(self.blocks) // (8 * PAGE_BYTES)) * PAGE_BYTES)
        for index in range(len(self.blocks)):
            if index not in without:
                bits[index >> 3] |= 1 << (index & 7)
        self._flushed = (self._header(), bytes(tree), bytes(bits))

    @property
    def flushed_header(self) -> bytes:
        return self._flushed[0]

    def _header(self) -> bytes:
        secret_key = self.key_pair.secret_key if self.has_secret_key else b""
        pair = encode_buffer(self.key_pair.public_key) + encode_buffer(secret_key)
        user_data = encode_array(
            encode_string(key) + encode_buffer(value) for key, value in self.user_data.items()
        )
        tree = encode_uint(self.head.fork) + encode_uint(self.head.length)
        tree += encode_buffer(self.head.tree_hash) + encode_buffer(self.head.signature)
        hints = b"\x00" + encode_uint(self.head.length)
        if self.header_version == 0:
            types = b"".join(map(encode_string, ("blake2b", "raw", "ed25519")))
            return b"\x00" + types + user_data + tree + pair + hints
        return b"\x01\x06" + self.key + self.manifest.encode() + pair + user_data + tree + hints

    def oplog(self) -> bytes:
        """Both headers (one of an earlier time), then the entries."""
        # The two bits differ when the second header counts.
        header, spare = self._flushed[0], b"spoiled"
        if self.is_header_external:
            header = b"\x01\x01" + encode_uint(5) + encode_uint(len(header))
        bit = self.header_bit
        slots = (record(spare, 0), record(header, bit)) if bit else (record(header, bit), b"")
        padded = b"".join(slot.ljust(4096, b"\x00") for slot in slots)
        return padded + b"".join(self.entries)

    def write(self, directory: Path, gaps: Sequence[int] = ()) -> None:
        """Bytes of the blocks in `gaps` are zeros, as in a file that was never written there."""
        directory.mkdir(parents=True)
        _, tree, bits = self._flushed
        data = b"".join(
            bytes(len(block)) if index in gaps else block for index, block in enumerate(self.blocks)
        )
        files = {"oplog": self.oplog(), "tree": tree, "bitfield": bits, "data": data}
        if self.is_header_external:
            files["header"] = b"older" + self._flushed[0]
        for name, content in files.items():
            (directory / name).write_bytes(content)

    def place_in(self, store: Path) -> Path:
        """Where a Corestore 6 in `store` keeps this core."""
        name = discovery_key(self.key).hex()
        return store / "cores" / name[:2] / name[2:4] / name
