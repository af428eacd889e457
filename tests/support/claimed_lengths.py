"""Heads of logs of which nobody has a block: who writes one needs no more than a signature."""

from __future__ import annotations

from dataclasses import replace

from hypercore.crypto import KeyPair
from hypercore.flat_tree import node_at
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.verifier import Verifier


def claimed_length(key_pair: KeyPair, depth: int) -> Changeset:
    """A signed head of 2**`depth` blocks, for the empty log of that sole signer."""
    manifest = Manifest.single_signer(key_pair.public_key)
    root = MerkleNode(node_at(depth, 0), 1 << 50, bytes(32))
    unsigned = Head(0, 1 << depth, root.size, (root,))
    signature = Verifier(manifest.key, manifest).sign(unsigned, key_pair)
    return Changeset(replace(unsigned, signature=signature), nodes=[root], manifest=manifest)
