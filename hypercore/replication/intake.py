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
from hypercore.merkle import MerkleNode
from hypercore.proof import MAX_PATH_NODES, Proof, verify_proof
from hypercore.verifier import Verifier

_PREFIX = Struct("<BQ")
_COPIED_BYTES = 4096  # below it a copy costs less than a second call


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

    __slots__ = ("_changesets", "_fresh", "_log", "_open", "_read_stored", "_verifier", "head")

    def __init__(self, log: IntakeLog) -> None:
        self._log = log
        self._read_stored: NodeReader = log.read_node
        self._fresh: dict[int, MerkleNode] = {}
        self._changesets: list[Changeset] = []
        self._open = Changeset()
        self._verifier = log.verifier
        self.head = log.head
        """The head as it will be after the commit."""

    def read_node(self, index: int) -> MerkleNode | None:
        return self._fresh.get(index) or self._read_stored(index)

    def changesets(self) -> list[Changeset]:
        """All that was accepted, to be committed in this order, in one commit."""
        self._close_blocks()
        return self._changesets

    def _close_blocks(self) -> None:
        if self._open.nodes or self._open.blocks:
            self._changesets.append(self._open)
            self._open = Changeset()

    def accept_block(  # noqa: PLR0915  # 45 statements: as calls, 14 us for a block and not 8
        self, index: int, payload: bytes, offset: int
    ) -> int | None:
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
        new_node = tuple.__new__
        node_index = 2 * index
        if size < _COPIED_BYTES:
            digest = blake2b(_PREFIX.pack(0, size) + value, digest_size=32).digest()
        else:
            hasher = blake2b(_PREFIX.pack(0, size), digest_size=32)
            hasher.update(value)
            digest = hasher.digest()
        nodes = [new_node(MerkleNode, (node_index, size, digest))]
        step = 1
        for _ in range(count):
            sibling_index, offset = uint_at(payload, offset)
            sibling_size, offset = uint_at(payload, offset)
            stop = offset + 32
            sibling_digest = payload[offset:stop]
            offset = stop
            if len(sibling_digest) != 32:
                raise DecodeError("tree node cut off", offset)
            expected = node_index ^ (step << 1)
            if sibling_index != expected:
                raise InvalidProof(f"node {sibling_index} in place of a sibling", expected)
            nodes.append(new_node(MerkleNode, (expected, sibling_size, sibling_digest)))
            size += sibling_size
            both = digest + sibling_digest if node_index < expected else sibling_digest + digest
            digest = blake2b(_PREFIX.pack(1, size) + both, digest_size=32).digest()
            node_index = (node_index | step) & ~(step << 1)
            step <<= 1
            nodes.append(new_node(MerkleNode, (node_index, size, digest)))
        top = nodes[-1]
        anchor = self._fresh.get(node_index) or self._read_stored(node_index)
        if anchor is None:
            return None
        if anchor.hash != top.hash:
            raise InvalidProof("hashes differ", node_index, anchor.hash, top.hash)
        if anchor.size == top.size:
            nodes.pop()
        fresh = self._fresh
        for node in nodes:
            fresh[node[0]] = node
        self._open.nodes += nodes
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

        Until it is committed the tree that is stored is the old one: what comes behind it finds
        nothing there, else blocks of the old history would pass for some of the new one.
        """
        self._close_blocks()
        self._changesets.append(changes)
        self._fresh = {}
        self._read_stored = no_node
        if changes.head is not None:
            self.head = changes.head


def no_node(index: int) -> MerkleNode | None:
    """What is stored of a tree of which nothing is."""
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
    # Nothing hashes to a compat core's key: what else is in such a manifest is the peer's own.
    return compat if verifier.is_compat else verifier
