"""Hashes of the Merkle tree: leaves, parents, and the tree hash over the roots.

Source: hypercore-crypto 3.7.0 `data`, `parent`, `tree`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from hypercore import flat_tree
from hypercore.encoding import Reader, encode_uint
from hypercore.flat_tree import TreeIndex

_LEAF_PREFIX = Struct("<BQ")
_PARENT_PREFIX = Struct("<BQ")
_ROOT = Struct("<QQ")
_UINT_BYTES = bytes([1] * 0xFD + [3, 5, 9])  # of an encoded uint, by its first byte


class MerkleNode(NamedTuple):
    """A node of the tree: `size` is the bytes of all blocks below it."""

    index: TreeIndex  # type: ignore[assignment]  # the field's word wins over tuple.index
    size: int
    hash: bytes


def encode_node(node: MerkleNode) -> bytes:
    """A node on the wire, in signatures and on the disk: uint index, uint size, 32-byte hash."""
    return encode_uint(node.index) + encode_uint(node.size) + node.hash


def is_encoded_node(data: bytes, index: int) -> bool:
    """Whether this is what `encode_node` makes of some node with that index."""
    start = encode_uint(index)
    size_at = len(start)
    return (
        data.startswith(start)
        and size_at < len(data)
        and len(data) == size_at + _UINT_BYTES[data[size_at]] + 32
    )


def decode_node(reader: Reader) -> MerkleNode:
    return MerkleNode(TreeIndex(reader.uint()), reader.uint(), reader.fixed32())


def leaf_hash(block: bytes) -> bytes:
    return blake2b(_LEAF_PREFIX.pack(0, len(block)) + block, digest_size=32).digest()


def parent_hash(size: int, left_hash: bytes, right_hash: bytes) -> bytes:
    """`size` is the sum of both children's."""
    return blake2b(_PARENT_PREFIX.pack(1, size) + left_hash + right_hash, digest_size=32).digest()


def leaf_node(index: int, block: bytes) -> MerkleNode:
    """The leaf of block number `index`; `block` as it is stored."""
    return MerkleNode(TreeIndex(2 * index), len(block), leaf_hash(block))


def parent_node(one: MerkleNode, other: MerkleNode) -> MerkleNode:
    """The parent of two siblings, given in any order."""
    left, right = (one, other) if one.index < other.index else (other, one)
    size = left.size + right.size
    return MerkleNode(
        TreeIndex((left.index + right.index) >> 1), size, parent_hash(size, left.hash, right.hash)
    )


def tree_hash(roots: Iterable[MerkleNode]) -> bytes:
    """The hash that is signed; of the empty tree, H(02)."""
    hasher = blake2b(b"\x02", digest_size=32)
    for index, size, node_hash in roots:
        hasher.update(node_hash + _ROOT.pack(index, size))
    return hasher.digest()


def append_root(roots: list[MerkleNode], node: MerkleNode, created: list[MerkleNode]) -> None:
    """Put a subtree at the right end, merging while the last two roots are siblings.

    `roots` is changed in place; `node` and every parent made are added to `created`.
    """
    created.append(node)
    while roots and flat_tree.sibling(node.index) == roots[-1].index:
        node = parent_node(roots.pop(), node)
        created.append(node)
    roots.append(node)
