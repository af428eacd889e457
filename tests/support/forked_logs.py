"""Logs of one writer that signed two histories, and reports of it, true and false."""

from __future__ import annotations

from collections.abc import Sequence

from hypercore.crypto import KeyPair
from hypercore.fork_proof import ForkProof, make_fork_proof
from hypercore.log import append
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.proof import Proof, UpgradeProof, UpgradeRequest
from hypercore.verifier import Verifier
from tests.support.memory_log import MemoryLog
from tests.support.trees import KEY_PAIR, VERIFIER, Tree

SHARED = [b"a", b"b", b"c", b"d"]
ONE = [*SHARED, b"e"]
OTHER = [*SHARED, b"f", b"e"]


def log_with(blocks: Sequence[bytes]) -> MemoryLog:
    """A log in the hands of the writer's, or of a copy of the writer."""
    log = MemoryLog(KEY_PAIR)
    log.append(blocks)
    return log


def tree_with(blocks: Sequence[bytes]) -> Tree:
    tree = Tree()
    if blocks:
        tree.append(blocks)
    return tree


def statement(blocks: Sequence[bytes], split: int) -> Proof:
    """The head of these blocks, as an upgrade from nothing to `split` blocks and on to it."""
    return tree_with(blocks).answer(upgrade=UpgradeRequest(0, split))


def fork_proof(one: Sequence[bytes] = ONE, other: Sequence[bytes] = OTHER) -> ForkProof:
    split = min(len(one), len(other))
    proof = make_fork_proof(VERIFIER, statement(one, split), statement(other, split))
    assert proof is not None
    return proof


def fork_proof_of(key_pair: KeyPair) -> tuple[bytes, ForkProof]:
    """The key of another writer's core, and evidence that the writer signed two histories."""
    manifest = Manifest.single_signer(key_pair.public_key)
    verifier = Verifier(manifest.key, manifest)

    def signed(blocks: Sequence[bytes]) -> Proof:
        tree = Tree(verifier)
        tree.commit(append(tree.head, blocks, lambda head: verifier.sign(head, key_pair)))
        return tree.answer(upgrade=UpgradeRequest(0, 1))

    proof = make_fork_proof(verifier, signed([b"one"]), signed([b"other"]))
    assert proof is not None
    return manifest.key, proof


def with_other_sizes(proof: Proof) -> Proof:
    """The same signed head, with bytes shifted between two siblings that their parent covers."""
    upgrade = proof.upgrade
    assert upgrade is not None
    *before, left = upgrade.nodes
    right, *after = upgrade.additional_nodes
    return Proof(
        proof.fork,
        upgrade=UpgradeProof(
            upgrade.start,
            upgrade.length,
            [*before, left._replace(size=left.size + 1)],
            [_shrunk(right), *after],
            upgrade.signature,
        ),
    )


def _shrunk(node: MerkleNode) -> MerkleNode:
    return node._replace(size=node.size - 1)


def reader_with(blocks: Sequence[bytes]) -> MemoryLog:
    """A log that somebody read from the writer."""
    source = log_with(blocks)
    reader = MemoryLog(key=source.key)
    reader.head, reader.nodes, reader.blocks = source.head, source.nodes, source.blocks
    reader.bitfield, reader.durable_length = source.bitfield, source.durable_length
    reader.manifest, reader.verifier = source.manifest, source.verifier
    return reader
