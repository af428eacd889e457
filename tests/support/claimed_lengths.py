"""Heads of logs of which next to nothing is there: writing one takes no more than a signature."""

from __future__ import annotations

from dataclasses import replace

from hypercore.crypto import KeyPair
from hypercore.flat_tree import TreeIndex, right_span, sibling
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, leaf_node, parent_node
from hypercore.verifier import Verifier


def claimed_length(key_pair: KeyPair, depth: int) -> Changeset:
    """A signed head of 2**`depth` blocks, for the empty log of that sole signer."""
    root = MerkleNode(TreeIndex((1 << depth) - 1), 1 << 50, bytes(32))
    return _signed(key_pair, root, Changeset(nodes=[root]))


def claimed_around(key_pair: KeyPair, depth: int, index: int, block: bytes) -> Changeset:
    """The same, with this one block."""
    node = leaf_node(index, block)
    changes = Changeset(nodes=[node], blocks=[(index, block)])
    for _ in range(depth):
        other = MerkleNode(sibling(node.index), 1, bytes(32))
        node = parent_node(node, other)
        changes.nodes += [other, node]
    return _signed(key_pair, node, changes)


def _signed(key_pair: KeyPair, root: MerkleNode, changes: Changeset) -> Changeset:
    manifest = Manifest.single_signer(key_pair.public_key)
    length = right_span(root.index) // 2 + 1
    unsigned = Head(0, length, root.size, (root,))
    signature = Verifier(manifest.key, manifest).sign(unsigned, key_pair)
    return replace(changes, head=replace(unsigned, signature=signature), manifest=manifest)
