"""Logs in memory: a writer that has everything, and readers that have what they verified."""

from __future__ import annotations

from collections.abc import Sequence

from hypercore import flat_tree
from hypercore.crypto import KeyPair
from hypercore.log import EMPTY_HEAD, Changeset, Head, append, stale_nodes, truncate
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.proof import (
    BlockRequest,
    HashRequest,
    Proof,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
    build_proof,
    verify_proof,
)
from hypercore.verifier import Verifier

KEY_PAIR = KeyPair.from_seed(bytes([20]) * 32)
MANIFEST = Manifest.single_signer(KEY_PAIR.public_key)
VERIFIER = Verifier(MANIFEST.key, MANIFEST)


def sign(head: Head) -> bytes:
    return VERIFIER.sign(head, KEY_PAIR)


class Tree:
    """One log: its head, tree nodes and blocks. Everything comes in as a changeset."""

    def __init__(self, verifier: Verifier = VERIFIER) -> None:
        self.verifier = verifier
        self.head = EMPTY_HEAD
        self.nodes: dict[int, MerkleNode] = {}
        self.blocks: dict[int, bytes] = {}

    def commit(self, changes: Changeset) -> None:
        kept = changes.truncated_to
        if kept is not None:
            stale = stale_nodes(kept)
            self.nodes = {
                index: node
                for index, node in self.nodes.items()
                if index < 2 * kept and index not in stale
            }
            self.blocks = {index: block for index, block in self.blocks.items() if index < kept}
        self.nodes.update((node.index, node) for node in changes.nodes)
        self.blocks.update(changes.blocks)
        if changes.head is not None:
            self.head = changes.head

    def append(self, blocks: Sequence[bytes]) -> None:
        self.commit(append(self.head, blocks, sign))

    def truncate(self, length: int, fork: int | None = None) -> None:
        fork = self.head.fork + 1 if fork is None else fork
        self.commit(truncate(self.head, length, fork, self.nodes.get, sign))

    def answer(
        self,
        *,
        block: BlockRequest | None = None,
        hash: HashRequest | None = None,
        seek: SeekRequest | None = None,
        upgrade: UpgradeRequest | None = None,
    ) -> Proof:
        value = None if block is None else self.blocks.get(block.index)
        request = ProofRequest(self.head.fork, block, hash, seek, upgrade)
        return build_proof(
            request, self.head, self.nodes.get, value, prologue=self.verifier.prologue
        )

    def receive(self, proof: Proof) -> Changeset:
        changes = verify_proof(proof, self.head, self.nodes.get, self.verifier)
        self.commit(changes)
        return changes

    def missing(self, index: int) -> int:
        """Levels to climb from a tree node to one that is here; 0 beyond the tree.

        What is beyond it an upgrade will prove.
        """
        levels = 0
        if any(flat_tree.contains(root.index, index) for root in self.head.roots):
            while index not in self.nodes:
                index = flat_tree.parent(index)
                levels += 1
        return levels


def writer_of(blocks: Sequence[bytes]) -> Tree:
    tree = Tree()
    tree.append(blocks)
    return tree


def reader_of(writer: Tree, length: int) -> Tree:
    """A reader that knows the head of a writer's first `length` blocks, and no more."""
    tree = Tree(writer.verifier)
    if length:
        earlier = writer_of([writer.blocks[index] for index in range(length)])
        tree.receive(earlier.answer(upgrade=UpgradeRequest(0, length)))
    return tree
