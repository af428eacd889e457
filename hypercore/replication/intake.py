"""Verifying what arrived together, so that it can be committed together.

Proofs build on one another: the nodes that one brings are what the next one is anchored to. An
`Intake` lives for one wake-up of the receiver. It checks each answer against what is stored
and what it has accepted before, and in the end gives everything as a few changesets for one
commit. What fails is not kept, and nothing that was built on it can pass.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from struct import Struct
from typing import Protocol

from hypercore.encoding import DecodeError, uint_at
from hypercore.errors import InvalidProof
from hypercore.log import Changeset, Head, NodeReader
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, encode_node_parts, leaf_hash, node_at
from hypercore.proof import MAX_PATH_NODES, Proof, is_root, verify_proof
from hypercore.verifier import Verifier

_pack_parent = Struct("<BQ32s32s").pack


class IntakeLog(Protocol):
    """What is stored already."""

    @property
    def key(self) -> bytes: ...
    @property
    def head(self) -> Head: ...
    @property
    def verifier(self) -> Verifier | None: ...
    def read_node(self, index: int) -> MerkleNode | None: ...


class Intake:
    """Verified answers on their way to one commit."""

    __slots__ = (
        "_changesets",
        "_encoded",
        "_fresh",
        "_log",
        "_open",
        "_read_stored",
        "_verifier",
        "head",
    )

    def __init__(self, log: IntakeLog) -> None:
        self._log = log
        self._read_stored: NodeReader = log.read_node
        self._fresh: dict[int, MerkleNode] = {}
        self._encoded: dict[int, bytes] = {}
        """Nodes that blocks have brought, as they were sent: they are hardly ever decoded."""

        self._changesets: list[Changeset] = []
        self._open = Changeset()
        self._verifier = log.verifier
        self.head = log.head
        """The head as it will be after the commit."""

    def read_node(self, index: int) -> MerkleNode | None:
        encoded = self._open.encoded_nodes.get(index) or self._encoded.get(index)
        if encoded is not None:
            _, size, digest, _, _ = node_at(encoded, 0)
            # As MerkleNode(index, size, digest), in half of the time.
            return tuple.__new__(MerkleNode, (index, size, digest))
        return self._fresh.get(index) or self._read_stored(index)

    def changesets(self) -> list[Changeset]:
        """All that was accepted, to be committed in this order, in one commit."""
        self._close_blocks()
        return self._changesets

    def _close_blocks(self) -> None:
        if self._open.blocks:
            self._changesets.append(self._open)
            self._encoded.update(self._open.encoded_nodes)
            self._open = Changeset()

    def accept_block(self, index: int, payload: bytes, offset: int) -> int | None:
        """Verify the block part of a data message that holds nothing else.

        Returns the size of the block, or None when the node that its path leads to is not
        known (yet). The hot path of every download, about 8 us for a block of 100 bytes:
        decoding and climbing are one loop, and the calls of flat_tree and merkle written out.

        Raises: InvalidProof, DecodeError.
        """
        given, offset = uint_at(payload, offset)
        if given != index:
            raise InvalidProof(f"block {given} in place of block {index}")
        size, offset = uint_at(payload, offset)
        stop = offset + size
        value = payload[offset:stop]
        if len(value) != size:
            raise DecodeError(f"block of {size} bytes cut off", offset)
        count, offset = uint_at(payload, stop)
        if count > MAX_PATH_NODES:
            raise InvalidProof(f"a path of {count} nodes", 2 * index)
        node_index = 2 * index
        digest = leaf_hash(value)
        nodes = {node_index: encode_node_parts(node_index, size, digest)}
        step = 1
        for _ in range(count):
            sibling_index, sibling_size, sibling_digest, encoded, offset = node_at(payload, offset)
            expected = node_index ^ (step << 1)
            if sibling_index != expected:
                raise InvalidProof(f"node {sibling_index} in place of a sibling", expected)
            nodes[expected] = encoded
            size += sibling_size
            if node_index < expected:
                both = _pack_parent(1, size, digest, sibling_digest)
            else:
                both = _pack_parent(1, size, sibling_digest, digest)
            digest = blake2b(both, digest_size=32).digest()
            node_index = (node_index | step) & ~(step << 1)
            step <<= 1
            nodes[node_index] = encode_node_parts(node_index, size, digest)
        anchor = self.read_node(node_index)
        if anchor is None:
            return None
        if anchor.hash != digest:
            raise InvalidProof("hashes differ", node_index, anchor.hash, digest)
        if anchor.size == size:
            del nodes[node_index]
        elif is_root(node_index, self.head):
            raise InvalidProof(f"size {size}, ours is {anchor.size}", node_index)
        self._open.encoded_nodes.update(nodes)
        self._open.blocks.append((index, value))
        return len(value)

    def accept_proof(self, proof: Proof) -> Changeset:
        """Verify any other answer; an upgrade changes `head`.

        Raises: InvalidProof, InvalidSignature.
        """
        verifier = self._verifier
        if verifier is None and (proof.upgrade is not None or proof.manifest is not None):
            verifier = verifier_of(self._log, proof)
        if verifier is not None and verifier.is_compat and proof.manifest is not None:
            proof = replace(proof, manifest=None)
        changes = verify_proof(proof, self.head, self.read_node, verifier)
        if self._verifier is None and verifier is not None and changes.head is not None:
            # A head without a manifest: then it is a compat core, and that is noted for good.
            changes.manifest = verifier.manifest
        self._close_blocks()
        if changes.nodes or changes.blocks or changes.head or changes.manifest:
            self._changesets.append(changes)
            self._verifier = verifier
        for node in changes.nodes:
            self._fresh[node.index] = node
        if changes.head is not None:
            self.head = changes.head
            for node in changes.head.roots:
                self._fresh[node.index] = node
        return changes

    def replace_history(self, changes: Changeset) -> None:
        """Take over another fork, which was proven elsewhere.

        Until it is committed, the tree that is stored is the old one: what comes after it finds
        nothing there, else blocks of the old history would pass for those of the new one.
        """
        self._close_blocks()
        self._changesets.append(changes)
        self._fresh = {}
        self._encoded = {}
        self._read_stored = no_node
        if changes.head is not None:
            self.head = changes.head


def no_node(index: int) -> MerkleNode | None:
    """Reads a tree of which nothing is stored."""
    return None


def verifier_of(log: IntakeLog, proof: Proof) -> Verifier:
    """The log's verifier, or one for the manifest that came with the proof.

    Raises: InvalidProof for the manifest of another core.
    """
    if log.verifier is not None:
        return log.verifier
    # Without a manifest of its own a core is a compat core, whose key is its signer's.
    compat = Verifier(log.key, Manifest.single_signer(log.key))
    if proof.manifest is None:
        return compat
    try:
        verifier = Verifier(log.key, proof.manifest)
    except ValueError as error:
        raise InvalidProof(f"a manifest of another core: {error}") from None
    # Nothing hashes to a compat core's key: what else such a manifest says, the peer made up.
    return compat if verifier.is_compat else verifier
