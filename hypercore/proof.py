"""Proofs: which tree nodes convince a peer, and whether those that a peer sent convince us.

A block or a tree node is proven by the siblings on its way up to a node that the receiver
already has; an upgrade by the subtrees that grow the receiver's tree to the length asked for,
then (`additional_nodes`) to the sender's signed head. Where a subtree of an upgrade holds the
block, it is left out, since the receiver computes it from the block.

Sizes: a parent's hash covers the sum of its children's sizes, and a leaf's size is its block's
length, so every size on the way up from a block is proven. The first two nodes of a hash or
seek path could shift bytes between them; the block, when it comes, sets that right.

Source: hypercore 11.37.1 lib/merkle-tree.js (generateProof, verifyTree, verifyUpgrade).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hypercore import flat_tree
from hypercore.encoding import MAX_UINT
from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.flat_tree import TreeIndex
from hypercore.log import Changeset, Head, NodeReader
from hypercore.manifest import Manifest, Prologue
from hypercore.merkle import MerkleNode, append_root, leaf_hash, parent_hash, tree_hash
from hypercore.proof_request import (
    BlockRequest,
    HashRequest,
    InvalidRequest,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
    answered_upgrade,
    plan_parts,
)
from hypercore.verifier import Verifier

__all__ = [
    "BlockProof",
    "BlockRequest",
    "HashProof",
    "HashRequest",
    "InvalidRequest",
    "Proof",
    "ProofRequest",
    "SeekProof",
    "SeekRequest",
    "UpgradeProof",
    "UpgradeRequest",
    "build_proof",
    "verify_hash_path",
    "verify_proof",
]

_MAX_UNREAD_BYTES = 4096
"""How long a signature may be that does not matter, because the prologue fixes the log."""

MAX_PATH_NODES = 64
"""More levels than a tree of 2**53 blocks has; longer paths are refused before any hashing."""


@dataclass(frozen=True, slots=True)
class BlockProof:
    """A block as it is stored, and the siblings on its way up."""

    index: int
    value: bytes | None
    nodes: Sequence[MerkleNode]


@dataclass(frozen=True, slots=True)
class HashProof:
    """A tree node (the first of `nodes`), and the siblings on its way up."""

    index: int
    nodes: Sequence[MerkleNode]


@dataclass(frozen=True, slots=True)
class SeekProof:
    """The subtree where a byte offset falls, and the siblings on its way up."""

    bytes: int
    nodes: Sequence[MerkleNode]


@dataclass(frozen=True, slots=True)
class UpgradeProof:
    """Subtrees from `start` to `start + length` blocks, then on to the signed head."""

    start: int
    length: int
    nodes: Sequence[MerkleNode]
    additional_nodes: Sequence[MerkleNode]
    signature: bytes


@dataclass(frozen=True, slots=True)
class Proof:
    """One answer; all parts are of the same fork and verified together."""

    fork: int
    block: BlockProof | None = None
    hash: HashProof | None = None
    seek: SeekProof | None = None
    upgrade: UpgradeProof | None = None
    manifest: Manifest | None = None


def build_proof(
    request: ProofRequest,
    head: Head,
    read_node: NodeReader,
    block: bytes | None = None,
    prologue: Prologue | None = None,
) -> Proof:
    """Answer a request; `block` is the stored value of the block asked for.

    Raises: InvalidRequest for one that cannot be answered from this head and these nodes.
    """
    wanted = request.block
    if wanted is not None and request.upgrade is None and request.seek is None:
        return _build_block_proof(wanted, head, read_node, block)
    upgrade = answered_upgrade(request, prologue)
    if head.length == 0:
        return Proof(head.fork)
    plan = plan_parts(request, head, read_node, upgrade)
    block_proof = hash_proof = seek_proof = upgrade_proof = None
    if wanted is not None:
        block_proof = BlockProof(wanted.index, _present(block, wanted), _read(plan.node, read_node))
    elif request.hash is not None:
        hash_proof = HashProof(request.hash.index, _read(plan.node, read_node))
    if request.seek is not None and plan.seek is not None:
        seek_proof = SeekProof(request.seek.bytes, _read(plan.seek, read_node))
    if upgrade is not None:
        upgrade_proof = UpgradeProof(
            upgrade.start,
            upgrade.length,
            _read(plan.upgrade, read_node),
            _read(plan.additional, read_node),
            head.signature,
        )
    return Proof(head.fork, block_proof, hash_proof, seek_proof, upgrade_proof)


def _build_block_proof(
    request: BlockRequest, head: Head, read_node: NodeReader, block: bytes | None
) -> Proof:
    """Answer what nearly every request asks for: one block and its way up."""
    if head.length == 0:
        return Proof(head.fork)
    if request.index >= head.length:
        raise InvalidRequest(f"block {request.index} is not in a log of {head.length}")
    nodes = _read(path_siblings(request.index, request.nodes, head), read_node)
    return Proof(head.fork, BlockProof(request.index, _present(block, request), nodes))


def path_siblings(block: int, levels: int, head: Head) -> list[TreeIndex]:
    """The siblings on the lowest `levels` of a block's way up. Hot path.

    Raises: InvalidRequest where one is not in the tree.
    """
    siblings = []
    stop, index = 2 * head.length, 2 * block
    half = 1
    for _ in range(levels):
        # sibling, then parent, without a function call for each
        siblings.append(TreeIndex(index ^ (half << 1)))
        index = (index | half) & ~(half << 1)
        half <<= 1
        if index + half > stop:
            raise InvalidRequest(f"{levels} levels above block {block} are too many")
    return siblings


def _present(block: bytes | None, request: BlockRequest) -> bytes:
    if block is None:
        raise InvalidRequest(f"block {request.index} is not here")
    return block


def _read(indices: Sequence[TreeIndex] | None, read_node: NodeReader) -> list[MerkleNode]:
    if indices is None:
        raise InvalidRequest("the node asked for is not in the part of the tree that is proven")
    nodes = []
    for index in indices:
        node = read_node(index)
        if node is None:
            raise InvalidRequest(f"tree node {index} is not here")
        nodes.append(node)
    return nodes


def verify_proof(
    proof: Proof, head: Head, read_node: NodeReader, verifier: Verifier | None
) -> Changeset:
    """Check a proof against what we have; returns what it adds, all of it proven.

    An upgrade must start at `head.length`: one that was asked for at another length is stale,
    and the caller must drop it. Over an empty log an upgrade of a later fork is accepted too.

    Raises: InvalidProof, InvalidSignature.
    """
    upgrade = proof.upgrade
    if proof.fork != head.fork and not (
        upgrade is not None and head.length == 0 and proof.fork > head.fork
    ):
        raise InvalidProof(f"a proof of fork {proof.fork}, ours is {head.fork}")
    changes = Changeset()
    if verifier is not None and proof.manifest is not None:
        if proof.manifest != verifier.manifest:
            raise InvalidProof("a manifest that is not the core's")
        changes.manifest = proof.manifest
    top, is_computed = _verify_paths(proof, changes)
    if upgrade is None:
        if top is not None:
            _anchor(top, is_computed, head, read_node, changes)
        return changes
    if verifier is None:
        raise InvalidSignature("an upgrade of a core whose manifest is not known")
    growth = _plan_growth(upgrade, head, verifier.prologue)
    if top is not None and top.index not in growth:
        _anchor(top, is_computed, head, read_node, changes)
        top = None
    new = _grow(proof.fork, upgrade, head, growth, top, changes, verifier.prologue)
    if not verifier.verify(new, new.signature):
        raise InvalidSignature(f"the head of {new.length} blocks, fork {new.fork}, is not signed")
    changes.head = _with_signature_trimmed(new, verifier)
    return changes


def _with_signature_trimmed(head: Head, verifier: Verifier) -> Head:
    """What a peer added to a signature is neither kept nor passed on."""
    prologue = verifier.prologue
    if prologue is not None and head.length <= prologue.length:
        # Nobody looks at the signature of a prologue.
        return head if len(head.signature) <= _MAX_UNREAD_BYTES else replace(head, signature=b"")
    signature = verifier.trimmed(head, head.signature)
    return head if signature == head.signature else replace(head, signature=signature)


def verify_hash_path(proof: HashProof, top: MerkleNode) -> list[MerkleNode]:
    """Check that a hash proof leads up to `top`, which is trusted; returns every node on it.

    Raises: InvalidProof.
    """
    nodes = proof.nodes
    if not nodes or nodes[0].index != proof.index:
        raise InvalidProof("not the node asked for", proof.index)
    passed = [nodes[0]]
    reached = _climb(nodes[0], nodes, 1, None, passed)
    if reached != top:
        raise InvalidProof("a path that leads elsewhere", top.index, top.hash, reached.hash)
    return passed


def is_root(index: int, head: Head) -> bool:
    """Whether the node is a root of the head, whose signature covers the sizes of roots alone."""
    return any(root.index == index for root in head.roots)


def _anchor(
    top: MerkleNode, is_computed: bool, head: Head, read_node: NodeReader, changes: Changeset
) -> None:
    """The end of a path must be the node that we have; then it is not stored again."""
    stored = read_node(top.index)
    if stored is None:
        raise InvalidProof("a path that ends beside our tree", top.index)
    if stored.hash != top.hash:
        raise InvalidProof("hashes differ", top.index, stored.hash, top.hash)
    if stored.size == top.size:
        changes.nodes.pop()
    elif not is_computed or is_root(top.index, head):
        raise InvalidProof(f"size {top.size}, ours is {stored.size}", top.index)


def _verify_paths(proof: Proof, changes: Changeset) -> tuple[MerkleNode | None, bool]:
    """Climb seek, block and hash paths; returns the topmost node, and whether it was computed.

    A node that a peer only states has a size that nothing proves yet.
    """
    block = proof.block
    seek_root: MerkleNode | None = None
    is_computed = False
    if proof.seek is not None and proof.seek.nodes:
        nodes = proof.seek.nodes
        seek_root = nodes[0]
        changes.nodes.append(seek_root)
        is_computed = len(nodes) > 1
        seek_root = _climb(seek_root, nodes, 1, None, changes.nodes)
    if block is not None:
        if proof.hash is not None:
            raise InvalidProof("a block and a hash in one proof")
        value = block.value
        if value is None:
            raise InvalidProof("a block without its value", 2 * block.index)
        leaf = MerkleNode(TreeIndex(2 * block.index), len(value), leaf_hash(value))
        changes.nodes.append(leaf)
        changes.blocks.append((block.index, value))
        return _climb(leaf, block.nodes, 0, seek_root, changes.nodes), True
    if proof.hash is not None:
        nodes = proof.hash.nodes
        if seek_root is not None and seek_root.index == proof.hash.index:
            raise InvalidProof("a seek path to the very node asked for", proof.hash.index)
        if not nodes or nodes[0].index != proof.hash.index:
            raise InvalidProof("not the node asked for", proof.hash.index)
        changes.nodes.append(nodes[0])
        is_computed = len(nodes) > 1 or seek_root is not None
        return _climb(nodes[0], nodes, 1, seek_root, changes.nodes), is_computed
    return seek_root, is_computed


def _climb(
    node: MerkleNode,
    siblings: Sequence[MerkleNode],
    start: int,
    extra: MerkleNode | None,
    passed: list[MerkleNode],
) -> MerkleNode:
    """Hash upward through `siblings[start:]`, and through `extra` where it fits.

    Every node met is added to `passed`, the topmost last. Each must be the sibling due.
    """
    count = len(siblings)
    if count > MAX_PATH_NODES:
        raise InvalidProof(f"a path of {count} nodes", node.index)
    # Hot path, 1.5 us a level: index arithmetic and node building are written out here.
    new_node = tuple.__new__
    index: int
    index, size, digest = node
    leaves = ~index & (index + 1)
    position = start
    while position < count or extra is not None:
        expected = index ^ (leaves << 1)
        if extra is not None and extra.index == expected:
            sibling = extra
            extra = None
        elif position < count:
            sibling = siblings[position]
            position += 1
            if sibling.index != expected:
                raise InvalidProof(f"node {sibling.index} in place of a sibling", expected)
        else:
            raise InvalidProof("a seek path that leads elsewhere", expected)
        size += sibling.size
        if expected < index:
            digest = parent_hash(size, sibling.hash, digest)
        else:
            digest = parent_hash(size, digest, sibling.hash)
        index = (index + expected) >> 1
        leaves <<= 1
        node = new_node(MerkleNode, (index, size, digest))
        passed.append(sibling)
        passed.append(node)
    return node


def _plan_growth(upgrade: UpgradeProof, head: Head, prologue: Prologue | None) -> list[TreeIndex]:
    """The subtrees that an upgrade must bring, in their order."""
    if upgrade.start != head.length or upgrade.length < 1:
        raise InvalidProof(
            f"an upgrade of {upgrade.length} blocks from {upgrade.start}, ours are {head.length}"
        )
    if (
        prologue is not None
        and upgrade.start < prologue.length
        and (upgrade.start != 0 or upgrade.length < prologue.length)
    ):
        raise InvalidProof(f"an upgrade that splits the prologue of {prologue.length} blocks")
    return flat_tree.growth(head.length, upgrade.start + upgrade.length)


def _grow(
    fork: int,
    upgrade: UpgradeProof,
    head: Head,
    growth: Sequence[TreeIndex],
    top: MerkleNode | None,
    changes: Changeset,
    prologue: Prologue | None,
) -> Head:
    """Our tree grown by the upgrade's nodes, `top` among them; the signature is not checked yet."""
    nodes = list(upgrade.nodes[: len(growth)])
    if top is not None:
        changes.nodes.pop()  # append_root puts it back
        nodes.insert(growth.index(top.index), top)
    if len(upgrade.nodes) > len(growth) or [node.index for node in nodes] != growth:
        raise InvalidProof("an upgrade with other nodes than it needs")
    roots = list(head.roots)
    for node in nodes:
        append_root(roots, node, changes.nodes)
    length = upgrade.start + upgrade.length
    if prologue is not None and length == prologue.length and tree_hash(roots) != prologue.hash:
        raise InvalidProof("a log that does not begin with its prologue")
    additional = upgrade.additional_nodes
    if additional:
        stop = flat_tree.right_span(additional[-1].index) // 2 + 1
        if [node.index for node in additional] != flat_tree.growth(length, stop):
            raise InvalidProof(f"additional nodes that do not lead from {length} to {stop}")
        for node in additional:
            append_root(roots, node, changes.nodes)
        length = stop
    byte_length = sum(root.size for root in roots)
    if 2 * length > MAX_UINT or byte_length > MAX_UINT:
        raise InvalidProof(f"a log of {length} blocks and {byte_length} bytes")
    return Head(fork, length, byte_length, tuple(roots), upgrade.signature)
