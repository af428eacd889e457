"""Seeking against counting bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.merkle import MerkleNode
from hypercore.seek import byte_offset, seek_from_roots, seek_within
from tests.reference import merkle as slow
from tests.support.trees import Tree, writer_of

PADDING = 2
SIZES = [2 + (7 * index) % 11 for index in range(40)]
BLOCKS = [bytes([index]) * size for index, size in enumerate(SIZES)]


def starts(padding: int) -> list[int]:
    """Where each block begins, in unpadded bytes, and where the log ends."""
    offsets = [0]
    for size in SIZES:
        offsets.append(offsets[-1] + size - padding)
    return offsets


def block_at(offset: int, padding: int) -> int:
    return next(index for index, stop in enumerate(starts(padding)[1:]) if offset < stop)


def blocks_of(index: int) -> range:
    (subtree,) = (part for part in slow.subtrees(40) if slow.index_of(part) == index)
    return range(subtree[0], sum(subtree))


@pytest.mark.parametrize("length", range(1, 41))
def test_byte_offsets_are_sums(length: int) -> None:
    tree = writer_of(BLOCKS[:length])
    for index in range(length):
        assert byte_offset(tree.head.roots, index, tree.nodes.get) == sum(SIZES[:index])
    assert byte_offset(tree.head.roots, length, tree.nodes.get) == tree.head.byte_length


def test_a_missing_node_hides_the_offset() -> None:
    tree = writer_of(BLOCKS)
    nothing: dict[int, MerkleNode] = {}
    assert byte_offset(tree.head.roots, 0, nothing.get) == 0
    assert byte_offset(tree.head.roots, 1, nothing.get) is None
    assert byte_offset(tree.head.roots, 32, nothing.get) == sum(SIZES[:32])
    assert seek_within(tree.head.roots, 31, 50, 0, nothing.get) is None
    assert seek_from_roots(40, 50, 0, nothing.get) is None


def assert_found(index: int | None, offset: int, padding: int, among: Sequence[int]) -> None:
    """The subtree begins or ends at the offset, or is the very block that holds it."""
    assert index is not None
    found = blocks_of(index)
    offsets = starts(padding)
    assert found.start in among
    if offset not in (offsets[found.start], offsets[found.stop]):
        assert list(found) == [block_at(offset, padding)]


@given(st.integers(0, 400), st.sampled_from([0, PADDING]))
def test_a_seek_over_the_whole_log(offset: int, padding: int) -> None:
    tree = writer_of(BLOCKS)
    index = seek_from_roots(40, offset, padding, tree.nodes.get)
    if offset > starts(padding)[-1]:
        assert index is None
    else:
        assert_found(index, offset, padding, range(40))


@given(st.integers(0, 400), st.sampled_from([0, PADDING]), st.sampled_from(slow.subtrees(40)))
def test_a_seek_within_a_subtree(offset: int, padding: int, subtree: slow.Subtree) -> None:
    tree = writer_of(BLOCKS)
    first, count = subtree
    offsets = starts(padding)
    index = seek_within(tree.head.roots, slow.index_of(subtree), offset, padding, tree.nodes.get)
    if offset != offsets[first] and not offsets[first] <= offset < offsets[first + count]:
        assert index is None
    else:
        assert_found(index, offset, padding, range(first, first + count))


def test_a_sparse_tree_is_searched_as_far_as_it_is_known() -> None:
    tree = Tree()
    tree.append(BLOCKS)
    known = {index: tree.nodes[index] for index in (31, 71, 15, 47)}
    assert seek_from_roots(40, sum(SIZES[:3]), 0, known.get) == 15
    assert seek_from_roots(40, sum(SIZES[:16]) + 1, 0, known.get) == 47


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1))
def test_any_offset_and_padding_end_somewhere(offset: int, padding: int) -> None:
    tree = writer_of(BLOCKS)
    for index in (
        seek_from_roots(40, offset, padding, tree.nodes.get),
        seek_within(tree.head.roots, 31, offset, padding, tree.nodes.get),
    ):
        assert index is None or index in tree.nodes
