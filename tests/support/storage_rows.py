"""Rows of a store as they are on the disk, and a complete check of one core's rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from hypercore import flat_tree
from hypercore.bitfield import PAGE_BITS
from hypercore.merkle import leaf_node, parent_node
from hypercore.storage import Durability, Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage, decode_stored_node
from hypercore.storage.layout import HeadRecord
from hypercore.storage.rocks import RocksStorage


def all_rows(storage: Storage) -> dict[bytes, bytes]:
    return dict(storage.items(b"", b"\xff" * 8))


def lose_blocks(storage: Storage, discovery_key: bytes, indices: Iterable[int]) -> None:
    """Take the bytes of these blocks from a core, as a bad disk does: it takes them for held."""
    record = Catalog(storage).find(discovery_key)
    assert record is not None
    keys = CoreStorage(storage, discovery_key, record).keys
    batch = storage.batch()
    for index in indices:
        batch.delete(keys.block(index))
    storage.commit(batch)


def rows_of_directory(path: Path) -> dict[bytes, bytes]:
    """Every row, with the times of heads masked."""
    storage = RocksStorage(path, Durability.OS, read_only=True)
    try:
        return {key: _masked(key, value) for key, value in all_rows(storage).items()}
    finally:
        storage.close()


def _masked(key: bytes, value: bytes) -> bytes:
    is_head = key[:1] == b"\x04" and key[1] < 0xFC and key[2:] == b"\x00"
    if not is_head:
        return value
    head = HeadRecord.decode(value)
    return replace(head, unix_ms=1 if head.unix_ms else 0).encode()


def verify_core(storage: Storage, discovery_key: bytes, *, may_have_gaps: bool = False) -> int:
    """Check every block, bit, tree node and hint against the signed head; returns the length.

    Opening checks keys, roots and signature. Unless it `may_have_gaps` all blocks must be held; of
    blocks that were cleared the leaf must be there.
    """
    record = Catalog(storage).find(discovery_key)
    assert record is not None
    rows = CoreStorage(storage, discovery_key, record)
    stored = rows.load()
    length = stored.head.length
    blocks = dict(rows.blocks(0, 2**40))
    if not may_have_gaps:
        assert list(blocks) == list(range(length)), "blocks without gaps and none beyond the end"
    assert [index for index in range(length) if stored.bitfield.get(index)] == list(blocks)
    first_gap = next((index for index in range(length) if index not in blocks), length)
    assert stored.hints.contiguous_length == first_gap
    assert stored.bitfield.first_set(length, length + 2 * PAGE_BITS) is None
    expected = {2 * index: leaf_node(index, block) for index, block in blocks.items()}
    for index in range(length):
        if index not in blocks:
            leaf = rows.read_node(2 * index)
            assert leaf is not None, f"the leaf of block {index}, which was cleared"
            expected[2 * index] = leaf
    level = [expected[2 * index] for index in range(length)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [parent_node(left, right) for left, right in pairs]
        expected.update({node.index: node for node in level})
    for index, node in expected.items():
        assert rows.read_node(index) == node
    keys = [key for key, _ in storage.items(*rows.keys.nodes())]
    assert len(keys) == len(expected), "no tree node too many"
    assert [root.index for root in stored.head.roots] == flat_tree.full_roots(length)
    return length


def verify_sparse_core(storage: Storage, discovery_key: bytes) -> int:
    """The same for a core of which parts were fetched; returns how many blocks are held.

    Of each block that is held the way up to a root must be there and fit; of other tree nodes
    all must fit that can be compared.
    """
    record = Catalog(storage).find(discovery_key)
    assert record is not None
    rows = CoreStorage(storage, discovery_key, record)
    stored = rows.load()
    length = stored.head.length
    blocks = dict(rows.blocks(0, 2**40))
    assert all(index < length for index in blocks), "blocks beyond the end"
    assert [index for index in range(length) if stored.bitfield.get(index)] == list(blocks)
    first_gap = next((index for index in range(length) if index not in blocks), length)
    assert stored.hints.contiguous_length == first_gap
    assert stored.bitfield.first_set(length, length + 2 * PAGE_BITS) is None
    nodes = {}
    for _, value in storage.items(*rows.keys.nodes()):
        node = decode_stored_node(value)
        nodes[node.index] = node
    roots = {root.index for root in stored.head.roots}
    for node in nodes.values():
        assert flat_tree.right_span(node.index) < 2 * length, "tree nodes beyond the end"
        parent, sibling = flat_tree.parent(node.index), flat_tree.sibling(node.index)
        if node.index not in roots and sibling in nodes and parent in nodes:
            pair = sorted((node, nodes[sibling]))
            assert parent_node(*pair) == nodes[parent]
    for index, block in blocks.items():
        leaf = leaf_node(index, block)
        number = leaf.index
        assert nodes[number] == leaf
        while number not in roots:
            assert flat_tree.sibling(number) in nodes, f"the way up from block {index}"
            number = flat_tree.parent(number)
            assert number in nodes, f"the way up from block {index}"
    return len(blocks)
