"""As hypercore's test/merkle-tree.js, one test for each of its tests, in its order.

Without a counterpart:

* "clone a batch": a changeset is a value; there is nothing that two holders could change.
* "prune nodes in a batch", "checkout nodes in a batch": a batch of the original may be cut back
  before it is written. Here an append is one changeset; what they assert of the indices that
  remain is asserted of `full_roots` and of the log that is made of fewer blocks.
* "roots get unslabbed", "buffer of cached nodes is copied to small slab" (skipped there): how
  JavaScript's buffers share memory. A hash here is a `bytes` of its own.
* "clear full tree" deletes rows of the storage by hand: here on the same rows, see there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hypercore import Durability, open_corestore
from hypercore.errors import OutOfRange
from hypercore.flat_tree import full_roots
from hypercore.fork_search import ForkSearch
from hypercore.inclusion_proof import roots_at
from hypercore.log import EMPTY_HEAD
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.proof import (
    BlockRequest,
    HashRequest,
    Proof,
    SeekRequest,
    UpgradeRequest,
    verify_proof,
)
from hypercore.seek import byte_offset, seek_from_roots
from hypercore.storage.memory import MemoryStorage
from tests.support.stored_logs import open_log
from tests.support.trees import VERIFIER, Tree
from tests.support.vector_log import NOTHING


def create(length: int = 0) -> Tree:
    """The blocks `#0`, `#1` ... of the original's tests."""
    tree = Tree()
    if length:
        tree.append([b"#%d" % index for index in range(length)])
    return tree


def indices(nodes: Sequence[MerkleNode]) -> list[int]:
    return [node.index for node in nodes]


def shape(proof: Proof) -> dict[str, object]:
    """Which tree nodes are in which part."""
    parts: dict[str, object] = {}
    if proof.block is not None:
        parts["block"] = (proof.block.index, indices(proof.block.nodes))
    if proof.seek is not None:
        parts["seek"] = indices(proof.seek.nodes)
    if proof.upgrade is not None:
        parts["upgrade"] = (proof.upgrade.start, proof.upgrade.length)
        parts["nodes"] = indices(proof.upgrade.nodes)
        parts["additional"] = indices(proof.upgrade.additional_nodes)
    return parts


def block(index: int, nodes: int) -> BlockRequest:
    return BlockRequest(index, nodes)


def test_nodes_outside_of_the_tree() -> None:
    tree = Tree()
    tree.append([bytes((index,)) for index in range(8)])
    # The original's `byteOffset` throws for a node outside of the tree.
    assert roots_at(8, tree.head, tree.nodes.get) == list(tree.head.roots)
    with pytest.raises(OutOfRange):
        roots_at(9, tree.head, tree.nodes.get)


def test_proof_only_block() -> None:
    assert shape(create(10).answer(block=block(4, 2))) == {"block": (4, [10, 13])}


def test_proof_with_upgrade() -> None:
    proof = create(10).answer(block=block(4, 0), upgrade=UpgradeRequest(0, 10))
    assert shape(proof) == {
        "block": (4, [10, 13, 3]),
        "upgrade": (0, 10),
        "nodes": [17],
        "additional": [],
    }


def test_proof_with_upgrade_and_additional() -> None:
    proof = create(10).answer(block=block(4, 0), upgrade=UpgradeRequest(0, 8))
    assert shape(proof) == {
        "block": (4, [10, 13, 3]),
        "upgrade": (0, 8),
        "nodes": [],
        "additional": [17],
    }


def test_proof_with_upgrade_from_existing_state() -> None:
    proof = create(10).answer(block=block(1, 0), upgrade=UpgradeRequest(1, 9))
    assert shape(proof) == {
        "block": (1, []),
        "upgrade": (1, 9),
        "nodes": [5, 11, 17],
        "additional": [],
    }


def test_proof_with_upgrade_from_existing_state_and_additional() -> None:
    proof = create(10).answer(block=block(1, 0), upgrade=UpgradeRequest(1, 5))
    assert shape(proof) == {
        "block": (1, []),
        "upgrade": (1, 5),
        "nodes": [5, 9],
        "additional": [13, 17],
    }


@pytest.mark.parametrize("bytes_", [8, 10], ids=["block and seek", "block and seek #2"])
def test_proof_block_and_seek_no_upgrade(bytes_: int) -> None:
    proof = create(10).answer(seek=SeekRequest(bytes_, 0), block=block(4, 2))
    assert shape(proof) == {"block": (4, [10, 13])}, "the seek is included in the block"


def test_proof_block_and_seek_3_no_upgrade() -> None:
    proof = create(10).answer(seek=SeekRequest(13, 0), block=block(4, 2))
    assert shape(proof) == {"block": (4, [10]), "seek": [12, 14]}


def test_proof_seek_with_padding_no_upgrade() -> None:
    proof = create(16).answer(seek=SeekRequest(7, 1), block=block(0, 4))
    assert shape(proof) == {"block": (0, [2, 5, 23]), "seek": [12, 14, 9]}


def test_proof_block_and_seek_that_results_in_tree_no_upgrade() -> None:
    proof = create(16).answer(seek=SeekRequest(26, 0), block=block(0, 4))
    assert shape(proof) == {"block": (0, [2, 5, 11]), "seek": [19, 27]}


def test_proof_block_and_seek_with_upgrade() -> None:
    proof = create(10).answer(
        seek=SeekRequest(13, 0), block=block(4, 2), upgrade=UpgradeRequest(8, 2)
    )
    assert shape(proof) == {
        "block": (4, [10]),
        "seek": [12, 14],
        "upgrade": (8, 2),
        "nodes": [17],
        "additional": [],
    }


def test_proof_seek_with_upgrade() -> None:
    proof = create(10).answer(seek=SeekRequest(13, 0), upgrade=UpgradeRequest(0, 10))
    assert shape(proof) == {
        "seek": [12, 14, 9, 3],
        "upgrade": (0, 10),
        "nodes": [17],
        "additional": [],
    }


def test_verify_proof_1() -> None:
    tree, clone = create(10), create()
    clone.receive(tree.answer(hash=HashRequest(6, 0), upgrade=UpgradeRequest(0, 10)))
    expected = byte_offset(tree.head.roots, 3, tree.nodes.get)
    assert expected == 6
    assert byte_offset(clone.head.roots, 3, clone.nodes.get) == expected
    assert clone.nodes[6] == tree.nodes[6]


def test_verify_proof_2() -> None:
    tree, clone = create(10), create()
    clone.receive(tree.answer(seek=SeekRequest(10, 0), upgrade=UpgradeRequest(0, 10)))
    assert clone.head == tree.head
    assert byte_offset(clone.head.roots, 5, clone.nodes.get) == 10
    assert clone.nodes[10].size == tree.nodes[10].size


def test_upgrade_edge_case_when_no_roots_need_upgrade() -> None:
    tree, clone = create(4), create()
    clone.receive(tree.answer(upgrade=UpgradeRequest(0, 4)))
    tree.append([b"#5"])
    clone.receive(tree.answer(upgrade=UpgradeRequest(4, 1)))
    assert (tree.head.length, clone.head.length) == (5, 5)
    assert clone.head == tree.head


def reorg(local: Tree, remote: Tree) -> int:
    """Follow the remote's history; how much of the local one is kept."""
    proof = remote.answer(upgrade=UpgradeRequest(0, remote.head.length))
    proven = verify_proof(proof, EMPTY_HEAD, NOTHING.get, VERIFIER)
    search = ForkSearch(proven, local.head, local.nodes.get)
    while not search.is_finished:
        answer = remote.answer(hash=search.request(search.wanted[-1])).hash
        assert answer is not None
        search.receive(answer)
    local.commit(search.changeset())
    return search.common_length


def audit(tree: Tree) -> bool:
    """Whether every node that is there is the hash of its children that are there."""
    grown = Tree()
    grown.append([tree.blocks[index] for index in range(len(tree.blocks))])
    return (
        indices(tree.head.roots) == full_roots(tree.head.length)
        and tree.head.tree_hash == tree_hash(tree.head.roots)
        and all(
            grown.nodes[index] == node
            for index, node in tree.nodes.items()
            if index in grown.nodes and 2 * len(tree.blocks) > index
        )
    )


@pytest.mark.parametrize(
    ("remote", "local", "kept"),
    [(10, 8, 8), (20, 1, 1), (5, 10, 5)],
    ids=["small gap", "bigger gap", "remote is shorter than local"],
)
def test_lowest_common_ancestor(remote: int, local: int, kept: int) -> None:
    core, clone = create(remote), create(local)
    assert reorg(clone, core) == kept
    assert clone.head == core.head


def test_lowest_common_ancestor_simple_fork() -> None:
    core, clone = create(5), create(5)
    core.append([b"fork #1"])
    clone.append([b"fork #2"])
    assert reorg(clone, core) == 5
    assert clone.head == core.head


def test_lowest_common_ancestor_long_fork() -> None:
    core, clone = create(5), create(5)
    core.append([b"fork #1"])
    clone.append([b"fork #2"])
    for tree in (core, clone):
        tree.append([b"#%d" % index for index in range(100)])
    assert reorg(clone, core) == 5
    assert clone.head == core.head
    assert audit(core)
    assert audit(clone)
    assert all(core.nodes[index] == node for index, node in clone.nodes.items())


def test_tree_hash() -> None:
    one, other = create(5), create(5)
    assert one.head.tree_hash == other.head.tree_hash
    before = one.head.tree_hash
    for tree in (one, other):
        tree.append([b"hi"])
    assert one.head.tree_hash == other.head.tree_hash != before


def test_basic_tree_seeks() -> None:
    tree = create(5)
    tree.append([b"bigger", b"block", b"tiny", b"s", b"another"])
    assert (tree.head.length, tree.head.byte_length) == (10, 33)
    offset = 0
    for index in range(10):
        size = len(tree.blocks[index])
        assert byte_offset(tree.head.roots, index, tree.nodes.get) == offset
        for within in range(1, size):
            assert seek_from_roots(10, offset + within, 0, tree.nodes.get) == 2 * index
        offset += size
    assert seek_from_roots(10, 34, 0, tree.nodes.get) is None


def test_clear_full_tree() -> None:
    storage = MemoryStorage()
    log = open_log(storage)
    log.append([b"#%d" % index for index in range(5)])
    assert all(log.rows.read_node(2 * index) for index in range(5))
    batch = storage.batch()
    batch.delete_range(*log.rows.keys.nodes())
    storage.commit(batch)
    assert not any(log.rows.read_node(2 * index) for index in range(5))


def test_get_older_roots() -> None:
    tree = create(5)
    roots = list(tree.head.roots)
    assert roots_at(5, tree.head, tree.nodes.get) == roots
    tree.append([b"next"] * 3)
    assert roots_at(5, tree.head, tree.nodes.get) == roots
    expected = []
    length = tree.head.length
    for _ in range(40):
        expected.append(list(tree.head.roots))
        tree.append([b"tick"])
    actual = [roots_at(length + more, tree.head, tree.nodes.get) for more in range(40)]
    assert actual == expected


def test_check_if_a_length_is_upgradeable() -> None:
    tree, clone = create(5), create()
    assert all(roots_at(length, tree.head, tree.nodes.get) is not None for length in range(6))
    clone.receive(tree.answer(upgrade=UpgradeRequest(0, 5)))
    upgradeable = [
        length for length in range(6) if roots_at(length, clone.head, clone.nodes.get) is not None
    ]
    assert upgradeable == [0, 4, 5]


def test_checkout_nodes_in_a_batch() -> None:
    tree = Tree()
    tree.append([b"tick tock"] * 15)
    assert (tree.head.length, tree.head.byte_length) == (15, 135)
    assert indices(tree.head.roots) == [7, 19, 25, 28]
    missing = {15, 23, 27}  # those above that the original, too, does not keep
    assert sorted(tree.nodes) == [index for index in range(29) if index not in missing]


async def test_reopen_a_tree(tmp_path: Path) -> None:
    blocks = [b"#%d" % index for index in range(16)]
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append(blocks)
        await core.append(blocks)
        head = core.head
        assert (head.length, indices(head.roots)) == (32, [31])
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        assert core.head == head
        assert core.tree_hash(32) == head.tree_hash
        assert indices(roots_at(32, core.head, core.read_node) or []) == [31]
