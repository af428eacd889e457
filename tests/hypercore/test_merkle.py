"""Merkle hashes: JS vectors and the slow tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import DecodeError, Reader, encode_uint
from hypercore.flat_tree import TreeIndex
from hypercore.merkle import (
    MerkleNode,
    append_root,
    decode_node,
    encode_node,
    is_encoded_node,
    leaf_hash,
    leaf_node,
    node_at,
    parent_node,
    tree_hash,
)
from tests.reference import merkle as slow

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hypercore" / "keys.json").read_text()
)
BLOCKS = [bytes([i]) * (i % 7) for i in range(70)]


def test_leaves_and_parents_are_those_of_js() -> None:
    for vector in VECTORS["leaf"]:
        assert leaf_hash(bytes.fromhex(vector["data"])).hex() == vector["hash"]

    def node(fields: dict[str, Any]) -> MerkleNode:
        return MerkleNode(TreeIndex(fields["index"]), fields["size"], bytes.fromhex(fields["hash"]))

    for vector in VECTORS["parent"]:
        one, other = node(vector["a"]), node(vector["b"])
        assert parent_node(one, other).hash.hex() == vector["hash"]
        assert parent_node(one, other) == parent_node(other, one)


@pytest.mark.parametrize("length", range(71))
def test_growing_leaf_by_leaf_makes_the_slow_tree(length: int) -> None:
    roots: list[MerkleNode] = []
    created: list[MerkleNode] = []
    for index, block in enumerate(BLOCKS[:length]):
        append_root(roots, leaf_node(index, block), created)
    assert {node.index: tuple(node) for node in created} == slow.nodes(BLOCKS[:length])
    assert [tuple(root) for root in roots] == [
        slow.node(BLOCKS, root) for root in slow.roots(length)
    ]
    assert tree_hash(roots) == slow.tree_hash(BLOCKS[:length])


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_an_encoded_node_is_told_from_other_bytes(index: int, size: int, digest: bytes) -> None:
    encoded = encode_node(MerkleNode(TreeIndex(index), size, digest))
    assert is_encoded_node(encoded, index)
    assert not is_encoded_node(encoded, index + 1)
    assert not any(is_encoded_node(encoded[:stop], index) for stop in range(len(encoded)))
    assert not is_encoded_node(encoded + b"\x00", index)


@given(st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), st.binary(min_size=32, max_size=32))
def test_nodes_round_trip(index: int, size: int, digest: bytes) -> None:
    node = MerkleNode(TreeIndex(index), size, digest)
    reader = Reader(encode_node(node) + b"x")
    assert decode_node(reader) == node
    assert reader.rest() == b"x"


_SIZES = st.integers(0, 2**53 - 1) | st.sampled_from((0xFC, 0xFD, 0xFFFF, 2**16, 2**32 - 1, 2**32))


@given(_SIZES, _SIZES, st.binary(min_size=32, max_size=32), st.binary(max_size=3))
def test_a_node_within_bytes_is_that_node(
    index: int, size: int, digest: bytes, around: bytes
) -> None:
    encoded = encode_node(MerkleNode(TreeIndex(index), size, digest))
    assert encoded == encode_uint(index) + encode_uint(size) + digest
    start = len(around)
    found = node_at(around + encoded + around, start)
    assert found == (index, size, digest, encoded, start + len(encoded))
    for stop in range(len(encoded)):
        with pytest.raises(DecodeError):
            node_at(around + encoded[:stop], start)


_SMALL = st.integers(0, 2**16) | st.sampled_from((0xFB, 0xFC, 0xFD, 0xFE, 0xFFFE, 0xFFFF, 2**16))


@given(_SMALL, _SMALL, st.sampled_from((2, 4, 8)))
def test_a_node_is_stored_in_the_same_bytes_however_it_was_sent(
    index: int, size: int, width: int
) -> None:
    """Else a peer could have us keep, and pass on, what nobody else writes like that."""
    if max(index, size) >> (8 * width):
        return
    tag = {2: b"\xfd", 4: b"\xfe", 8: b"\xff"}[width]
    wide = [tag + number.to_bytes(width, "little") for number in (index, size)]
    usual = [encode_uint(index), encode_uint(size)]
    encoded = encode_node(MerkleNode(TreeIndex(index), size, bytes(32)))
    for numbers in (wide, [wide[0], usual[1]], [usual[0], wide[1]]):
        sent = b"".join(numbers) + bytes(32)
        assert node_at(sent + b"more", 0) == (index, size, bytes(32), encoded, len(sent))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_node_or_a_decode_error(data: bytes) -> None:
    try:
        decode_node(Reader(data))
    except DecodeError:
        return
