"""Index arithmetic, compared with subtrees counted by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore import flat_tree
from tests.reference import merkle as slow

SUBTREES = slow.subtrees(128)
INDICES = [slow.index_of(subtree) for subtree in SUBTREES]


def test_a_subtree_of_128_blocks_has_every_index_once() -> None:
    assert sorted(INDICES) == list(range(255))


def test_depth_and_spans() -> None:
    for first, count in SUBTREES:
        index = slow.index_of((first, count))
        assert 1 << flat_tree.depth(index) == count == flat_tree.leaf_count(index)
        assert flat_tree.left_span(index) == 2 * first
        assert flat_tree.right_span(index) == 2 * (first + count - 1)


def test_families() -> None:
    for subtree in SUBTREES:
        if subtree[1] > 1:
            index = slow.index_of(subtree)
            left, right = map(slow.index_of, slow.halves(subtree))
            assert flat_tree.children(index) == (left, right)
            assert flat_tree.parent(left) == flat_tree.parent(right) == index
            assert flat_tree.sibling(left) == right
            assert flat_tree.sibling(right) == left


def test_contains_is_being_below() -> None:
    for subtree in SUBTREES:
        index = slow.index_of(subtree)
        inside = {slow.index_of(part) for part in slow.below(subtree)}
        assert {other for other in range(255) if flat_tree.contains(index, other)} == inside


@pytest.mark.parametrize("length", range(71))
def test_roots_and_growth_are_those_of_the_slow_tree(length: int) -> None:
    assert flat_tree.full_roots(length) == [slow.index_of(root) for root in slow.roots(length)]
    for start in range(length + 3):
        assert flat_tree.growth(start, length) == slow.growth(start, length)


@given(st.integers(0, 2**53), st.integers(0, 2**53))
def test_huge_logs_have_few_roots(start: int, stop: int) -> None:
    roots = flat_tree.full_roots(stop)
    assert len(roots) <= 64
    assert sum(map(flat_tree.leaf_count, roots)) == stop
    grown = flat_tree.growth(start, stop)
    assert len(grown) <= 128
    assert sum(map(flat_tree.leaf_count, grown)) == max(stop - start, 0)


@given(st.integers(0, 2**54))
def test_parents_double(index: int) -> None:
    for _ in range(60):
        parent = flat_tree.parent(index)
        assert flat_tree.leaf_count(parent) == 2 * flat_tree.leaf_count(index)
        assert flat_tree.contains(parent, index)
        index = parent
