"""Appending and truncating: JS vectors, and the slow tree at every size up to 70."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore import flat_tree
from hypercore.crypto import KeyPair
from hypercore.encoding import MAX_UINT, Reader
from hypercore.errors import CorruptStorage, OutOfRange, UsageError
from hypercore.log import (
    EMPTY_HEAD,
    Changeset,
    Head,
    append,
    earlier_head,
    shared_length,
    stale_nodes,
    truncate,
)
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.verifier import Verifier
from tests.reference import merkle as slow

VECTORS = Path(__file__).parent.parent / "vectors" / "hypercore"
TREES = json.loads((VECTORS / "trees.json").read_text())
FORKS = json.loads((VECTORS / "forks.json").read_text())
KEY_PAIR = KeyPair.from_seed(bytes.fromhex(TREES["seed"]))
MANIFEST = Manifest.decode(Reader(bytes.fromhex(TREES["manifest"])))
VERIFIER = Verifier(bytes.fromhex(TREES["key"]), MANIFEST)
BLOCKS = [bytes([i]) * (i % 7) for i in range(70)]


def sign(head: Head) -> bytes:
    assert head.signature == b""
    return VERIFIER.sign(head, KEY_PAIR)


def appended(head: Head, blocks: list[bytes]) -> tuple[Head, Changeset]:
    changes = append(head, blocks, sign)
    assert changes.head is not None
    return changes.head, changes


def nodes_of(changes: Changeset) -> dict[int, MerkleNode]:
    return {node.index: node for node in changes.nodes}


def test_the_empty_head() -> None:
    assert EMPTY_HEAD.tree_hash == slow.tree_hash([])
    assert (EMPTY_HEAD.length, EMPTY_HEAD.byte_length, EMPTY_HEAD.signature) == (0, 0, b"")


def test_heads_are_those_of_js_block_by_block() -> None:
    head = EMPTY_HEAD
    for block, vector in zip(TREES["blocks"], TREES["trees"], strict=True):
        head, changes = appended(head, [bytes.fromhex(block)])
        assert changes.blocks == [(head.length - 1, bytes.fromhex(block))]
        assert (head.length, head.fork, head.byte_length) == (
            vector["length"],
            vector["fork"],
            vector["byteLength"],
        )
        assert head.tree_hash.hex() == vector["treeHash"]
        assert head.signature.hex() == vector["signature"]
        assert [(root.index, root.size, root.hash.hex()) for root in head.roots] == [
            (root["index"], root["size"], root["hash"]) for root in vector["roots"]
        ]
        assert VERIFIER.verify(head, head.signature)


def test_forks_are_those_of_js() -> None:
    head, changes = appended(EMPTY_HEAD, [bytes.fromhex(block) for block in TREES["blocks"]])
    nodes = nodes_of(changes)
    for vector in FORKS["steps"]:
        kind, *arguments = vector["op"]
        if kind == "truncate":
            fork = arguments[1] if len(arguments) > 1 else head.fork + 1
            changes = truncate(head, arguments[0], fork, nodes.get, sign)
            assert changes.truncated_to == arguments[0]
            assert changes.head is not None
            head = changes.head
        else:
            head, changes = appended(head, [bytes.fromhex(block) for block in arguments])
            nodes |= nodes_of(changes)
        assert (head.length, head.fork) == (vector["length"], vector["fork"])
        assert head.tree_hash.hex() == vector["treeHash"]
        assert head.signature.hex() == vector["signature"]
        assert [(root.index, root.size, root.hash.hex()) for root in head.roots] == [
            (root["index"], root["size"], root["hash"]) for root in vector["roots"]
        ]


def test_appending_nothing_changes_nothing() -> None:
    assert append(EMPTY_HEAD, [], sign) == Changeset()


@pytest.mark.parametrize("length", range(1, 71))
def test_one_batch_makes_the_slow_tree(length: int) -> None:
    head, changes = appended(EMPTY_HEAD, BLOCKS[:length])
    expected = slow.nodes(BLOCKS[:length])
    assert {index: tuple(node) for index, node in nodes_of(changes).items()} == expected
    assert len(changes.nodes) == len(expected)
    assert head.tree_hash == slow.tree_hash(BLOCKS[:length])
    assert head.byte_length == sum(map(len, BLOCKS[:length]))
    assert changes.blocks == list(enumerate(BLOCKS[:length]))


@given(st.lists(st.integers(1, 70), min_size=2, max_size=2, unique=True).map(sorted))
def test_two_batches_make_the_same_log_as_one(lengths: list[int]) -> None:
    _, changes = appended(EMPTY_HEAD, BLOCKS)
    middle, stop = lengths
    one, before = appended(EMPTY_HEAD, BLOCKS[:middle])
    two, after = appended(one, BLOCKS[middle:stop])
    both = nodes_of(before) | nodes_of(after)
    assert both == {index: node for index, node in nodes_of(changes).items() if index in both}
    assert set(both) == set(slow.nodes(BLOCKS[:stop]))
    assert two.tree_hash == slow.tree_hash(BLOCKS[:stop])
    assert after.blocks[0] == (middle, BLOCKS[middle])


@pytest.mark.parametrize("length", range(71))
def test_truncation_leaves_the_shorter_log(length: int) -> None:
    head, changes = appended(EMPTY_HEAD, BLOCKS)
    nodes = nodes_of(changes)
    cut = truncate(head, length, 5, nodes.get, sign)
    assert cut.head is not None
    assert cut.truncated_to == length
    assert cut.head.tree_hash == slow.tree_hash(BLOCKS[:length])
    assert cut.head.byte_length == sum(map(len, BLOCKS[:length]))
    assert VERIFIER.verify(cut.head, cut.head.signature)
    stale = stale_nodes(length)
    kept = {index for index in nodes if index < 2 * length and index not in stale}
    assert kept == set(slow.nodes(BLOCKS[:length]))


@pytest.mark.parametrize("length", range(71))
def test_stale_nodes_are_all_that_a_longer_log_could_have_left(length: int) -> None:
    left = set(slow.nodes(BLOCKS[:length]))
    longer = {slow.index_of(subtree) for subtree in slow.subtrees(256)}
    expected = {index for index in longer if index < 2 * length and index not in left}
    assert set(stale_nodes(length)) == expected


def test_a_fork_is_one_that_can_be_read_again() -> None:
    head, changes = appended(EMPTY_HEAD, BLOCKS[:9])
    read = nodes_of(changes).get
    last = truncate(head, 3, MAX_UINT, read, sign).head
    assert last is not None
    assert last.fork == MAX_UINT
    with pytest.raises(UsageError, match="could be written and never read"):
        truncate(head, 3, MAX_UINT + 1, read, sign)


def test_an_earlier_head_is_made_of_roots_that_are_here() -> None:
    head, changes = appended(EMPTY_HEAD, BLOCKS[:13])
    nodes = nodes_of(changes)
    for length in range(14):
        earlier = earlier_head(head, length, nodes.get)
        assert earlier is not None
        assert (earlier.length, earlier.fork) == (length, head.fork)
        assert earlier.tree_hash == slow.tree_hash(BLOCKS[:length])
        assert earlier.byte_length == sum(map(len, BLOCKS[:length]))
    assert earlier_head(head, 13, lambda _: None) is head
    # Of 12 blocks the roots are those of our head, but for the last; of 10 one more is not.
    known = {index: nodes[index] for index in (17,)}
    assert earlier_head(head, 12, known.get) is not None
    assert earlier_head(head, 10, known.get) is not None
    assert earlier_head(head, 10, lambda _: None) is None


def test_what_cannot_be_truncated() -> None:
    head, changes = appended(EMPTY_HEAD, BLOCKS[:9])
    nodes = nodes_of(changes)
    with pytest.raises(OutOfRange):
        truncate(head, 10, 1, nodes.get, sign)
    with pytest.raises(OutOfRange):
        truncate(head, -1, 1, nodes.get, sign)
    with pytest.raises(UsageError, match="above the present one"):
        truncate(head, 3, 0, nodes.get, sign)
    with pytest.raises(CorruptStorage, match="tree node 9"):
        truncate(head, 6, 1, lambda index: None if index == 9 else nodes[index], sign)


@pytest.mark.parametrize("length", [1, 4, 7, 8, 13])
@pytest.mark.parametrize("kept", range(14))
def test_what_two_forks_share_is_found_at_the_roots(length: int, kept: int) -> None:
    """As far as these tell: never more than is the same."""
    before, first = appended(EMPTY_HEAD, BLOCKS[:length])
    nodes: dict[int, MerkleNode] = {node.index: node for node in first.nodes}
    kept = min(kept, length)
    cut = truncate(before, kept, 1, nodes.get, sign).head
    assert cut is not None
    for index in [index for index in nodes if flat_tree.right_span(index) >= 2 * kept]:
        del nodes[index]
    after, second = appended(cut, [b"of another history"] * 9)
    nodes.update((node.index, node) for node in second.nodes)
    stops = [flat_tree.right_span(root) // 2 + 1 for root in flat_tree.full_roots(length)]
    assert shared_length(before, after, nodes.get) == max(
        (stop for stop in stops if stop <= kept), default=0
    )


def test_of_one_fork_all_is_shared() -> None:
    before, _ = appended(EMPTY_HEAD, BLOCKS[:5])
    after, _ = appended(before, BLOCKS[5:8])
    assert shared_length(before, after, lambda _: None) == 5
    assert shared_length(after, before, lambda _: None) == 5
