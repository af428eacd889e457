"""Index arithmetic of the flat tree: a binary tree numbered in order, leaf i at 2i.

          3
      1       5
    0   2   4   6   ...

Leaves have depth 0; the subtree of depth d with o others to its left has the index
(1 + 2o) * 2**d - 1.

Source: flat-tree 1.13.0.
"""

from __future__ import annotations

from typing import NewType

TreeIndex = NewType("TreeIndex", int)
"""Number of a node in the flat tree; block i is the leaf 2i."""


def depth(index: int) -> int:
    return (~index & (index + 1)).bit_length() - 1


def parent(index: int) -> TreeIndex:
    step = ~index & (index + 1)
    return TreeIndex((index | step) & ~(step << 1))


def sibling(index: int) -> TreeIndex:
    return TreeIndex(index ^ ((~index & (index + 1)) << 1))


def children(index: int) -> tuple[TreeIndex, TreeIndex]:
    """Left and right child; requires an odd index (a leaf has none)."""
    half = (~index & (index + 1)) >> 1
    return TreeIndex(index - half), TreeIndex(index + half)


def left_span(index: int) -> TreeIndex:
    """The leftmost leaf below."""
    return TreeIndex(index - (~index & (index + 1)) + 1)


def right_span(index: int) -> TreeIndex:
    """The rightmost leaf below."""
    return TreeIndex(index + (~index & (index + 1)) - 1)


def leaf_count(index: int) -> int:
    """How many blocks the subtree covers."""
    return ~index & (index + 1)


def contains(index: int, other: int) -> bool:
    """Whether `other` lies in the subtree of `index`.

    Source: flat-tree iterator `contains`: the two odd indices just outside count as outside,
    and a position is compared, not a node.
    """
    half = ~index & (index + 1)
    return index - half < other < index + half


def full_roots(length: int) -> list[TreeIndex]:
    """Roots of the perfect subtrees that cover blocks [0, length), left to right.

    At most 64 of them; none when length == 0.

    Source: flat-tree 1.13.0 fullRoots (there the argument is 2 * length).
    """
    roots = []
    start = 0
    while length:
        leaves = 1 << (length.bit_length() - 1)
        roots.append(TreeIndex(start + leaves - 1))
        start += 2 * leaves
        length -= leaves
    return roots


def growth(start: int, stop: int) -> list[TreeIndex]:
    """Subtrees that take a tree of `start` blocks to one of `stop`, left to right.

    At most 128 of them; none when stop <= start. From the last block of the smaller tree up,
    every sibling to the right; then the roots of the larger tree that lie wholly beyond.

    Source: the walk of hypercore 11.37.1 lib/merkle-tree.js upgradeProof.
    """
    grown = []
    for root in full_roots(stop):
        if right_span(root) < 2 * start:
            continue
        if left_span(root) >= 2 * start:
            grown.append(root)
            continue
        index = TreeIndex(2 * start - 2)
        while index != root:
            other = sibling(index)
            if other > index:
                grown.append(other)
            index = parent(index)
    return grown
