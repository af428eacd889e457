"""Tree nodes are read once, and a damaged one is made of what lies below it."""

from __future__ import annotations

from collections import Counter

import pytest

from hypercore.crypto import discovery_key
from hypercore.errors import CorruptStorage
from hypercore.merkle import MerkleNode, encode_node
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage
from hypercore.storage.memory import MemoryStorage
from hypercore.stored_log import StoredLog
from hypercore.stored_tree import StoredTree
from tests.support.stored_logs import MANIFEST, open_log

BLOCKS = [b"block %d" % index for index in range(16)]


class CountingRows(CoreStorage):
    """Tells how often each node was read."""

    def __init__(self, storage: MemoryStorage) -> None:
        key = discovery_key(MANIFEST.key)
        record = Catalog(storage, bytes(32)).find(key)
        assert record is not None
        super().__init__(storage, key, record)
        self.reads: Counter[int] = Counter()

    def read_node(self, index: int) -> MerkleNode | None:
        self.reads[index] += 1
        return super().read_node(index)


def log_of(blocks: list[bytes]) -> StoredLog:
    """A log of which nothing was read but its head."""
    storage = MemoryStorage()
    open_log(storage).append(blocks)
    return StoredLog(CountingRows(storage))


def put(log: StoredLog, key: bytes, value: bytes) -> None:
    batch = log.rows.storage.batch()
    batch.put(key, value)
    log.rows.storage.commit(batch)


def test_a_node_is_read_once_until_it_is_forgotten() -> None:
    log = log_of(BLOCKS)
    tree = StoredTree(log)
    assert isinstance(log.rows, CountingRows)
    node = tree.read_node(3)
    assert tree.read_node(3) == node is not None
    assert log.rows.reads[3] == 1
    tree.forget()
    assert tree.read_node(3) == node
    assert log.rows.reads[3] == 2


def test_the_nodes_read_last_are_kept_and_not_all_of_them() -> None:
    log = log_of([b""] * 4096)
    tree = StoredTree(log)
    assert isinstance(log.rows, CountingRows)
    log.rows.reads.clear()
    for _ in range(2):
        for index in range(5000):
            assert tree.read_node(index) is not None
    assert max(log.rows.reads.values()) == 2  # the first ones had to go
    for index in range(4000, 5000):
        tree.read_node(index)
    assert all(log.rows.reads[index] <= 2 for index in range(4000, 5000))


def test_nodes_to_begin_with_need_no_row() -> None:
    log = log_of(BLOCKS)
    tree = StoredTree(log)
    (root,) = log.head.roots
    assert isinstance(log.rows, CountingRows)
    log.rows.reads.clear()
    tree.begin_with([root])
    assert tree.read_node(root.index) is root
    assert not log.rows.reads


@pytest.mark.parametrize("index", [6, 5, 3, 15])
def test_a_damaged_node_follows_from_what_is_below_it(index: int) -> None:
    log = log_of(BLOCKS)
    expected = log.read_node(index)
    put(log, log.rows.keys.node(index), b"\x00 damaged")
    assert StoredTree(log).read_node(index) == expected is not None


def test_nodes_are_sent_as_they_are_stored() -> None:
    log = log_of(BLOCKS)
    wanted = [7, 0, 15, 2, 2]
    expected = []
    for index in wanted:
        node = log.read_node(index)
        assert node is not None
        expected.append(encode_node(node))
    assert isinstance(log.rows, CountingRows)
    log.rows.reads.clear()
    assert StoredTree(log).encoded_nodes(wanted) == expected
    assert not log.rows.reads  # one by one
    assert StoredTree(log).encoded_nodes([4, 32, 31]) == [*log.rows.encoded_nodes([4]), None, None]


@pytest.mark.parametrize("row", [b"", b"\x00 damaged", bytes(34), b"\x06\xfd" + bytes(33)])
def test_a_damaged_node_is_not_sent_as_it_is_stored(row: bytes) -> None:
    log = log_of(BLOCKS)
    (expected,) = StoredTree(log).encoded_nodes([6])
    put(log, log.rows.keys.node(6), row)
    assert StoredTree(log).encoded_nodes([4, 6])[1] == expected is not None


def test_a_missing_node_over_other_blocks_than_were_signed_is_damage() -> None:
    log = log_of(BLOCKS)
    put(log, log.rows.keys.block(3), b"another block")
    batch = log.rows.storage.batch()
    batch.delete(log.rows.keys.node(6))
    log.rows.storage.commit(batch)
    with pytest.raises(CorruptStorage, match=r"blocks \[3, 4\)"):
        StoredTree(log).read_node(6)
