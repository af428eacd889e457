"""Hashes of the Merkle tree: leaves, parents, and the tree hash over the roots.

Source: hypercore-crypto 3.7.0 `data`, `parent`, `tree`.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

from hypercore import flat_tree
from hypercore.encoding import DecodeError, Reader, encode_uint, uint_at
from hypercore.flat_tree import TreeIndex

_LEAF_PREFIX = Struct("<BQ")
_PARENT_PREFIX = Struct("<BQ")
_ROOT = Struct("<QQ")
_NODE, _FAR_NODE = Struct("<BHBH32s"), Struct("<BIBH32s")
_SMALL_NODE, _FAR_SMALL_NODE = Struct("<BHB32s"), Struct("<BIB32s")
# Nearly all encoded nodes: fd, u16 index, or far on fe, u32 index; then fd, u16 size, or a small
# size in one byte; and the hash. As a whole they take half the time of their three fields.
_pack_node, _unpack_node = _NODE.pack, _NODE.unpack_from
_pack_far_node, _unpack_far_node = _FAR_NODE.pack, _FAR_NODE.unpack_from
_pack_small_node, _unpack_small_node = _SMALL_NODE.pack, _SMALL_NODE.unpack_from
_pack_far_small_node, _unpack_far_small_node = _FAR_SMALL_NODE.pack, _FAR_SMALL_NODE.unpack_from
_UNCOPIED_BYTES = 4096  # a second call costs less than a copy of so many
_UINT_BYTES = bytes([1] * 0xFD + [3, 5, 9])  # how long an encoded uint is, by its first byte


class MerkleNode(NamedTuple):
    """A node of the tree: `size` is the bytes of all blocks below it."""

    index: TreeIndex  # type: ignore[assignment]  # the field's word wins over tuple.index
    size: int
    hash: bytes


def encode_node(node: MerkleNode) -> bytes:
    """A node on the wire, in signatures and on the disk: uint index, uint size, 32-byte hash."""
    return encode_node_parts(node.index, node.size, node.hash)


def encode_node_parts(index: int, size: int, digest: bytes) -> bytes:
    """As `encode_node`, for the fields of a node. Hot path; requires 32 bytes of `digest`."""
    if 0xFC < index <= 0xFFFF and size <= 0xFFFF:
        if size > 0xFC:
            return _pack_node(0xFD, index, 0xFD, size, digest)
        return _pack_small_node(0xFD, index, size, digest)
    if 0xFFFF < index <= 0xFFFFFFFF and size <= 0xFFFF:
        if size > 0xFC:
            return _pack_far_node(0xFE, index, 0xFD, size, digest)
        return _pack_far_small_node(0xFE, index, size, digest)
    return encode_uint(index) + encode_uint(size) + digest


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


def node_at(data: bytes, offset: int) -> tuple[int, int, bytes, bytes, int]:
    """Index, size, hash and encoding of the node at `offset`, and where the next field starts.

    The encoding is what `encode_node` makes, however a peer may have encoded it. Hot path.

    Raises: DecodeError.
    """
    left = len(data) - offset
    index: int
    size: int
    digest: bytes
    if left >= 38 and data[offset] == 0xFD:
        if data[offset + 3] == 0xFD:
            _, index, _, size, digest = _unpack_node(data, offset)
            if index > 0xFC and size > 0xFC:
                return index, size, digest, data[offset : offset + 38], offset + 38
        elif data[offset + 3] < 0xFD:
            _, index, size, digest = _unpack_small_node(data, offset)
            if index > 0xFC:
                return index, size, digest, data[offset : offset + 36], offset + 36
    elif left >= 40 and data[offset] == 0xFE:
        if data[offset + 5] == 0xFD:
            _, index, _, size, digest = _unpack_far_node(data, offset)
            if index > 0xFFFF and size > 0xFC:
                return index, size, digest, data[offset : offset + 40], offset + 40
        elif data[offset + 5] < 0xFD:
            _, index, size, digest = _unpack_far_small_node(data, offset)
            if index > 0xFFFF:
                return index, size, digest, data[offset : offset + 38], offset + 38
    index, offset = uint_at(data, offset)
    size, offset = uint_at(data, offset)
    stop = offset + 32
    digest = data[offset:stop]
    if len(digest) != 32:
        raise DecodeError(f"32 bytes wanted, {len(digest)} left", offset)
    return index, size, digest, encode_node_parts(index, size, digest), stop


def leaf_hash(block: bytes) -> bytes:
    if len(block) >= _UNCOPIED_BYTES:
        hasher = blake2b(_LEAF_PREFIX.pack(0, len(block)), digest_size=32)
        hasher.update(block)
        return hasher.digest()
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
