"""Finding the block at a byte offset, as far down the tree as nodes are stored.

`padding` bytes of every stored block do not count: those that encryption adds. Offsets are in
the bytes that do.

Source: hypercore 11.37.1 lib/merkle-tree.js (seekFromHead, seekUntrustedTree, seekTrustedTree,
getByteOffset), ByteSeeker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypercore import flat_tree
from hypercore.flat_tree import TreeIndex
from hypercore.log import NodeReader
from hypercore.merkle import MerkleNode


class BytePosition(NamedTuple):
    """Where a byte of a log is: the block, and how many bytes of the block come before it."""

    block: int
    offset: int


def locate(
    roots: Sequence[MerkleNode], offset: int, padding: int, read_node: NodeReader
) -> BytePosition | TreeIndex | None:
    """The block at an offset; the subtree below which nodes are missing; None outside the roots.

    The offset at the end is that of the block which would come next.
    """
    if offset <= 0:
        return None if offset else BytePosition(0, 0)
    left = offset
    for root in roots:
        size = _unpadded(root, padding)
        if left == size:
            return BytePosition(flat_tree.right_span(root.index) // 2 + 1, 0)
        if left < size:
            return _locate_below(root.index, left, padding, read_node)
        left -= size
    return None


def _locate_below(
    top: TreeIndex, left: int, padding: int, read_node: NodeReader
) -> BytePosition | TreeIndex:
    index = top
    while index & 1:
        left_child, right_child = flat_tree.children(index)
        child = read_node(left_child)
        if child is None:
            return index
        size = _unpadded(child, padding)
        if left == size:  # the next block, be it empty
            return BytePosition(flat_tree.left_span(right_child) // 2, 0)
        if left < size:
            index = left_child
        else:
            left -= size
            index = right_child
    return BytePosition(index // 2, left)


def byte_offset(roots: Sequence[MerkleNode], block_index: int, read_node: NodeReader) -> int | None:
    """Stored bytes before a block; None when a node on the way is not stored."""
    target = 2 * block_index
    before = 0
    for root in roots:
        if flat_tree.right_span(root.index) < target:
            before += root.size
            continue
        index = root.index
        while index & 1:
            left_child, right_child = flat_tree.children(index)
            if target < index:
                index = left_child
                continue
            left = read_node(left_child)
            if left is None:
                return None
            before += left.size
            index = right_child
        break
    return before


def seek_within(
    roots: Sequence[MerkleNode], top: int, offset: int, padding: int, read_node: NodeReader
) -> TreeIndex | None:
    """The lowest known subtree of `top` where the offset falls; None when it is not inside.

    An offset where `top` begins gives `top`.
    """
    first_block = flat_tree.left_span(top) // 2
    before = byte_offset(roots, first_block, read_node)
    node = read_node(top)
    if before is None or node is None:
        return None
    left = offset - (before - padding * first_block)
    if left == 0:
        return TreeIndex(top)
    if not 0 < left < _unpadded(node, padding):
        return None
    return _descend(top, left, padding, read_node)


def seek_from_roots(
    length: int, offset: int, padding: int, read_node: NodeReader
) -> TreeIndex | None:
    """As `seek_within`, in a log of `length` blocks; None when the offset lies beyond."""
    left = offset
    for root in flat_tree.full_roots(length):
        node = read_node(root)
        if node is None:
            return None
        size = _unpadded(node, padding)
        if left == size:
            return root
        if left < size:
            return _descend(root, left, padding, read_node)
        left -= size
    return None


def _descend(top: int, left: int, padding: int, read_node: NodeReader) -> TreeIndex:
    """The subtree `left` bytes into `top`; stops early at one that ends there, as JS does."""
    index = TreeIndex(top)
    if left == 0:
        return index
    while index & 1:
        left_child, right_child = flat_tree.children(index)
        child = read_node(left_child)
        if child is None:
            return index
        size = _unpadded(child, padding)
        if size == left:
            return left_child
        if size > left:
            index = left_child
        else:
            left -= size
            index = right_child
    return index


def _unpadded(node: MerkleNode, padding: int) -> int:
    return node.size - padding * flat_tree.leaf_count(node.index)
