"""The records of one core: reading them, checking them when it is opened, staging changes.

Source: hypercore-storage 3.3.1 lib/tx.js; which records an operation writes: hypercore 11.37.1
lib/core.js, lib/session-state.js.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hypercore import flat_tree
from hypercore.bitfield import PAGE_BYTES, Bitfield
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.encoding import DecodeError
from hypercore.errors import CorruptStorage, InvalidProof, StorageError
from hypercore.flat_tree import TreeIndex
from hypercore.fork_proof import ForkProof, ProvenFork, verify_fork_proof
from hypercore.log import Changeset, Head, stale_nodes
from hypercore.manifest import Manifest
from hypercore.merkle import (
    MerkleNode,
    encode_node,
    encode_node_parts,
    is_encoded_node,
    leaf_node,
    node_at,
    parent_node,
)
from hypercore.storage import RowBatch, RowSink, Storage, WriteBatch
from hypercore.storage.layout import (
    AuthRecord,
    CoreGroup,
    CoreRecord,
    DataKeys,
    HeadRecord,
    Hints,
    auth_key,
    core_group_key,
    encode_number,
    group_update_key,
)
from hypercore.storage.records import decode_record
from hypercore.verifier import Verifier

FORK_PROOF_KEY = "hypercore/fork-proof"
"""User data that holds the evidence of a frozen core; JavaScript leaves it alone."""

_SINGLE_DELETES = 16
"""Runs of up to so many blocks are deleted one by one.

RocksDB looks at every deleted range at every read until it has rewritten its files: with 5,000
of one block each a read took 4.6 us, with 5,000 single deletions 1.6 us.
"""


_FEWEST_IN_RUN = 32
"""From so many neighbors on, an iterator is cheaper than looking up each."""


@dataclass(slots=True)
class StoredCore:
    """What is on the disk, checked."""

    auth: AuthRecord
    verifier: Verifier | None
    """None while the manifest is unknown."""
    head: Head
    hints: Hints
    are_hints_lost: bool
    """Whether their record could not be read; a new one is to be written."""

    bitfield: Bitfield
    rebuilt: list[MerkleNode]
    """Roots that were missing and hashed anew; head and signature confirm them."""


def make_verifier(key: bytes, manifest: Manifest | None, length: int) -> Verifier | None:
    """Raises: ValueError when the manifest is another core's."""
    if manifest is not None:
        return Verifier(key, manifest)
    # Only a core whose key is its signer's public key has blocks and no manifest.
    return Verifier(key, Manifest.single_signer(key, version=0)) if length else None


def decode_stored_node(data: bytes) -> MerkleNode:
    """Raises: DecodeError."""
    index, size, digest, _, _ = node_at(data, 0)
    return MerkleNode(TreeIndex(index), size, digest)


class CoreStorage:
    """One core's rows in a storage. Everything is a plain, short call."""

    def __init__(self, storage: Storage, discovery_key: bytes, record: CoreRecord) -> None:
        self.storage = storage
        self.discovery_key = discovery_key
        self.record = record
        self.keys = DataKeys(record.data_pointer)
        self._auth_key = auth_key(record.core_pointer)
        self.group: CoreGroup | None = None
        """The group in which changes of the head are noted."""
        self._key = b""
        self._head_unix_ms = 0
        self._name = f"core {discovery_key.hex()[:16]}"
        self._get = storage.get
        self._block_key = self.keys.block
        self._node_key = self.keys.node

    def load(self) -> StoredCore:
        """Read everything but blocks and inner nodes, and check that it belongs together.

        Raises: CorruptStorage when keys, head, roots and signature do not belong together,
        StorageError for what this package cannot read.
        """
        auth = self._load_auth()
        self._key = auth.key
        data = self.storage.get(core_group_key(self.record.core_pointer))
        if data is not None:
            self.group = decode_record(self._name, CoreGroup.decode, data)
        if self.storage.get(self.keys.dependency) is not None:
            raise StorageError(f"{self._name} is made of named sessions, which are not supported")
        rebuilt: list[MerkleNode] = []
        head, verifier = self._load_head(auth, rebuilt)
        hints, are_lost = self._load_hints()
        return StoredCore(auth, verifier, head, hints, are_lost, self.load_bitfield(), rebuilt)

    def _load_hints(self) -> tuple[Hints, bool]:
        """The hints, and whether they are lost, which must not keep the core from opening."""
        data = self.storage.get(self.keys.hints)
        if data is None:
            return Hints(), False
        try:
            return Hints.decode(data), False
        except DecodeError:
            return Hints.of_unreadable(data), True

    def _load_auth(self) -> AuthRecord:
        data = self.storage.get(self._auth_key)
        if data is None:
            raise CorruptStorage(self._name, "its keys are missing")
        auth = decode_record(self._name, AuthRecord.decode, data)
        if derive_discovery_key(auth.key) != self.discovery_key:
            raise CorruptStorage(self._name, "its keys are another core's")
        return auth

    def _load_head(
        self, auth: AuthRecord, rebuilt: list[MerkleNode]
    ) -> tuple[Head, Verifier | None]:
        data = self.storage.get(self.keys.head)
        if data is None:
            if any(True for _ in self.storage.items(*self.keys.nodes())):
                raise CorruptStorage(self._name, "its head is missing, though it has tree nodes")
            record = HeadRecord(0, 0, Head(0, 0, 0, ()).tree_hash)
        else:
            record = decode_record(self._name, HeadRecord.decode, data)
        self._head_unix_ms = record.unix_ms
        roots = []
        for index in flat_tree.full_roots(record.length):
            root = self.read_node(index) or self.rebuild(index, rebuilt)
            if root is None:
                raise CorruptStorage(self._name, f"tree node {index}, a root, is missing")
            roots.append(root)
        byte_length = sum(root.size for root in roots)
        head = Head(record.fork, record.length, byte_length, tuple(roots), record.signature)
        if head.tree_hash != record.tree_hash:
            raise CorruptStorage(self._name, "head and tree do not belong together")
        try:
            verifier = make_verifier(auth.key, auth.manifest, record.length)
        except ValueError as error:
            raise CorruptStorage(self._name, str(error)) from error
        if head.length and (verifier is None or not verifier.verify(head, head.signature)):
            raise CorruptStorage(self._name, f"nobody signed its head of length {head.length}")
        return head, verifier

    def has_nodes_beyond(self, length: int) -> bool:
        """Whether there are tree nodes of blocks at or beyond `length`."""
        rows = self.storage.items(self._node_key(2 * length), self.keys.nodes()[1])
        return next(rows, None) is not None

    def rebuild(self, index: int, rebuilt: list[MerkleNode] | None = None) -> MerkleNode | None:
        """A missing node, hashed from what is below it; None where too little of that is here.

        `rebuilt` gets it and others on the way. They are unverified, as the blocks are.
        """
        node: MerkleNode | None
        if not index & 1:
            block = self.read_block(index >> 1)
            node = None if block is None else leaf_node(index >> 1, block)
        else:
            first, second = flat_tree.children(index)
            # One by one: in a log of which little is here, looking into both would never end.
            left = self.read_node(first) or self.rebuild(first, rebuilt)
            right = left and (self.read_node(second) or self.rebuild(second, rebuilt))
            node = None if left is None or right is None else parent_node(left, right)
        if node is not None and rebuilt is not None:
            rebuilt.append(node)
        return node

    def load_bitfield(self) -> Bitfield:
        """Which blocks are here. Raises: CorruptStorage."""
        bitfield = Bitfield()
        for key, data in self.storage.items(*self.keys.pages()):
            number = decode_record(self._name, self.keys.page_number, key)
            bitfield.load_page(number, data[:PAGE_BYTES])
        return bitfield

    def load_fork_proof(self, key: bytes) -> tuple[ForkProof, ProvenFork] | None:
        """The evidence that froze the core, if it is frozen; checked.

        Raises: CorruptStorage.
        """
        data = self.storage.get(self.keys.user_data(FORK_PROOF_KEY))
        if data is None:
            return None
        try:
            return ForkProof.decode(data), verify_fork_proof(data, key)
        except InvalidProof as error:
            raise CorruptStorage(self._name, f"its fork proof: {error}") from error

    def read_block(self, index: int) -> bytes | None:
        """The block as it is stored."""
        return self._get(self._block_key(index))

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        """Blocks as they are stored; neighbors in a row cost a fifth of scattered ones."""
        block_key = self._block_key
        keys = [block_key(index) for index in indices]
        if len(keys) >= _FEWEST_IN_RUN:
            first, last = min(indices), max(indices)
            if last - first < len(keys):
                found = dict(self.storage.items(block_key(first), block_key(last + 1), len(keys)))
                return [found.get(key) for key in keys]
        return self.storage.get_many(keys)

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """(index, block as stored) of those in [start, stop) that are here, in order."""
        keys = self.keys
        for key, block in self.storage.items(keys.block(start), keys.block(stop)):
            yield decode_record(self._name, keys.block_index, key), block

    def nodes(self, start: int, stop: int) -> Iterator[MerkleNode]:
        """Tree nodes with start <= index < stop that are here, in order."""
        keys = self.keys
        for key, data in self.storage.items(keys.node(start), keys.node(stop)):
            yield self._checked_node(decode_record(self._name, keys.node_index, key), data)

    def read_node(self, index: int) -> MerkleNode | None:
        data = self._get(self._node_key(index))
        if data is None:
            return None
        return self._checked_node(index, data)

    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]:
        """Tree nodes as they are stored, which is as they are sent; None for a damaged one, too."""
        prefix, number = self.keys.nodes()[0], encode_number
        rows = self.storage.get_many([prefix + number(index) for index in indices])
        return [
            row if row is not None and is_encoded_node(row, index) else None
            for index, row in zip(indices, rows, strict=True)
        ]

    def _checked_node(self, index: int, data: bytes) -> MerkleNode:
        node = decode_record(self._name, decode_stored_node, data)
        if node.index != index:
            raise CorruptStorage(self._name, f"tree node {index} says that it is {node.index}")
        return node

    def stage_auth(self, batch: WriteBatch, auth: AuthRecord) -> None:
        batch.put(self._auth_key, auth.encode())

    def stage_truncation(self, batch: WriteBatch, length: int, stop: int) -> None:
        """Remove blocks [length, stop) and every tree node that covers one of them."""
        keys = self.keys
        batch.delete_range(keys.block(length), keys.block(stop))
        batch.delete_range(keys.node(2 * length), keys.node(2 * stop))
        for index in stale_nodes(length):
            batch.delete(keys.node(index))

    def stage_clearing(self, batch: WriteBatch, start: int, stop: int) -> None:
        """Remove blocks [start, stop)."""
        if stop - start > _SINGLE_DELETES:
            batch.delete_range(self._block_key(start), self._block_key(stop))
            return
        for index in range(start, stop):
            batch.delete(self._block_key(index))

    def stage_pruning(self, batch: WriteBatch, top: int) -> None:
        """Remove all tree nodes below `top`."""
        node_key = self.keys.node
        first, last = flat_tree.left_span(top), flat_tree.right_span(top)
        if last - first > 2 * _SINGLE_DELETES:
            batch.delete_range(node_key(first), node_key(top))
            batch.delete_range(node_key(top + 1), node_key(last + 1))
            return
        for index in range(first, last + 1):
            if index != top:
                batch.delete(node_key(index))

    def stage_nodes(self, batch: WriteBatch, nodes: Iterable[MerkleNode]) -> None:
        for node in nodes:
            batch.put(self._node_key(node.index), encode_node(node))

    def stage_changes(self, batch: RowSink, changes: Changeset) -> None:
        """Put nodes and blocks."""
        # Hot path: 3 rows a block.
        put = batch.put
        number = encode_number
        prefix = self.keys.nodes()[0]
        for index, size, digest in changes.nodes:
            put(prefix + number(index), encode_node_parts(index, size, digest))
        encoded = changes.encoded_nodes
        for node_index in sorted(encoded):  # in order RocksDB takes them in half the time
            put(prefix + number(node_index), encoded[node_index])
        prefix = self.keys.blocks()[0]
        for block_index, block in changes.blocks:
            put(prefix + number(block_index), block)

    def stage_head(self, batch: RowBatch, head: Head) -> None:
        unix_ms = time.time_ns() // 1_000_000
        record = HeadRecord(head.fork, head.length, head.tree_hash, head.signature, unix_ms)
        batch.put(self.keys.head, record.encode())
        if self.group is not None:
            # One row for each core, found by the time in its head.
            group, core = self.group.pointer, self.record.core_pointer
            batch.delete(group_update_key(group, self._head_unix_ms, core))
            batch.put(group_update_key(group, unix_ms, core), self._key)
        self._head_unix_ms = unix_ms

    def stage_hints(self, batch: RowSink, hints: Hints) -> None:
        batch.put(self.keys.hints, hints.encode())

    def stage_page(self, batch: RowSink, bitfield: Bitfield, page: int) -> None:
        batch.put(self.keys.page(page), bitfield.page_bytes(page))
