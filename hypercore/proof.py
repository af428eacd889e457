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
from dataclasses import dataclass, field

from hypercore import flat_tree
from hypercore.encoding import MAX_UINT
from hypercore.errors import InvalidProof, InvalidSignature, UsageError
from hypercore.flat_tree import TreeIndex
from hypercore.log import Changeset, Head, NodeReader
from hypercore.manifest import Manifest, Prologue, Verifier
from hypercore.merkle import MerkleNode, append_root, leaf_hash, parent_node, tree_hash

MAX_PATH_NODES = 64
"""More levels than a tree of 2**53 blocks has; longer paths are refused before any hashing."""


class InvalidRequest(UsageError, ValueError):
    """A proof was asked for that cannot be built; a peer's request is answered with noData."""


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Block `index`, with the siblings of `nodes` levels above its leaf."""

    index: int
    nodes: int


@dataclass(frozen=True, slots=True)
class HashRequest:
    """Tree node `index`, with the siblings of `nodes` levels from it up."""

    index: int
    nodes: int


@dataclass(frozen=True, slots=True)
class SeekRequest:
    """The block at a byte offset; `padding` bytes of every stored block do not count."""

    bytes: int
    padding: int


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """From a log of `start` blocks, `length` blocks more."""

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """What one peer asks for at once; at most one of block and hash."""

    fork: int
    block: BlockRequest | None = None
    hash: HashRequest | None = None
    seek: SeekRequest | None = None
    upgrade: UpgradeRequest | None = None


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


# --- building ---------------------------------------------------------------------------


@dataclass(slots=True)
class _Plan:
    """Tree indices of each part of a proof; None for a part that is not in it."""

    node: list[TreeIndex] | None = None
    seek: list[TreeIndex] | None = None
    upgrade: list[TreeIndex] = field(default_factory=list)
    additional: list[TreeIndex] = field(default_factory=list)

    def indices(self) -> list[TreeIndex]:
        return [*(self.node or ()), *(self.seek or ()), *self.upgrade, *self.additional]


def plan_proof(
    request: ProofRequest, head: Head, prologue: Prologue | None = None
) -> list[TreeIndex]:
    """The tree nodes that `build_proof` will read, to fetch them ahead in one go.

    Without the few that a seek also reads on its way down, which depend on sizes.

    Raises: InvalidRequest.
    """
    if request.seek is not None:
        request = ProofRequest(request.fork, request.block, request.hash, upgrade=request.upgrade)
    return _plan(request, head, _no_nodes, _effective_upgrade(request, prologue)).indices()


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
    upgrade = _effective_upgrade(request, prologue)
    if head.length == 0:
        return Proof(head.fork)
    plan = _plan(request, head, read_node, upgrade)
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
    """What nearly every request is: one block and its way up. Hot path."""
    stop = 2 * head.length
    index = 2 * request.index
    if stop == 0:
        return Proof(head.fork)
    if index >= stop:
        raise InvalidRequest(f"block {request.index} is not in a log of {head.length}")
    nodes = []
    half = 1
    for _ in range(request.nodes):
        # sibling, then parent, without a function call for each
        sibling = index ^ (half << 1)
        index = (index | half) & ~(half << 1)
        half <<= 1
        if index + half > stop:
            raise InvalidRequest(f"{request.nodes} levels above block {request.index} are too many")
        node = read_node(sibling)
        if node is None:
            raise InvalidRequest(f"tree node {sibling} is not here")
        nodes.append(node)
    return Proof(head.fork, BlockProof(request.index, _present(block, request), nodes))


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


def _no_nodes(index: int) -> None:
    return None


def _effective_upgrade(request: ProofRequest, prologue: Prologue | None) -> UpgradeRequest | None:
    """The upgrade that is answered: whoever lacks a part of the prologue gets it from 0."""
    upgrade = request.upgrade
    if upgrade is None or prologue is None or upgrade.start >= prologue.length:
        return upgrade
    return UpgradeRequest(0, prologue.length)


def _plan(
    request: ProofRequest, head: Head, read_node: NodeReader, upgrade: UpgradeRequest | None
) -> _Plan:
    plan = _Plan()
    if head.length == 0:
        return plan
    start = upgrade.start if upgrade else 0
    stop = start + upgrade.length if upgrade else head.length
    if not start < stop <= head.length:
        raise InvalidRequest(f"upgrade [{start}, {stop}) of a log of {head.length}")
    node = request.block or request.hash
    seek = request.seek
    index = last = -1
    if request.block is not None:
        index, last = 2 * request.block.index, request.block.index
    elif request.hash is not None:
        index, last = request.hash.index, flat_tree.right_span(request.hash.index) // 2
    if seek and upgrade and node and index >= 2 * start:
        raise InvalidRequest("a seek and a node beyond the upgrade's start in one request")

    subtree: int | None = None
    if node is not None and (upgrade is None or last < start):
        root = _raised(index, node.nodes, stop)
        _plan_path(
            plan,
            request,
            index,
            None if seek is None else _seek_within(head, root, seek, read_node),
            root,
        )
    elif upgrade is not None:
        subtree = index if node else None
        if seek is not None:
            subtree = _seek_from_roots(stop, seek, read_node)
    if upgrade is None:
        return plan
    for grown in flat_tree.growth(start, stop):
        if subtree is not None and flat_tree.contains(grown, subtree):
            _plan_path(plan, request, index, None if seek is None else subtree, grown)
            subtree = None
        else:
            plan.upgrade.append(grown)
    plan.additional = flat_tree.growth(stop, head.length)
    return plan


def _raised(index: int, levels: int, stop: int) -> TreeIndex:
    """The ancestor that many levels up, which must not reach to block `stop`."""
    if flat_tree.right_span(index) >= 2 * stop:
        raise InvalidRequest(f"tree node {index} is not in a log of {stop}")
    raised = TreeIndex(index)
    for _ in range(levels):
        raised = flat_tree.parent(raised)
        if flat_tree.contains(raised, 2 * stop):
            raise InvalidRequest(f"{levels} levels above tree node {index} are too many")
    return raised


def _plan_path(
    plan: _Plan, request: ProofRequest, index: int, seek_root: int | None, root: int
) -> None:
    """The way from the node asked for, or else from the seek's, up to `root`."""
    if index < 0:
        plan.seek = _path(seek_root if seek_root is not None else root, root)
        return
    if not flat_tree.left_span(root) <= index <= flat_tree.right_span(root):
        raise InvalidRequest(f"tree node {index} and the seek are in different subtrees")
    plan.node = [] if request.block is not None else [TreeIndex(index)]
    while index != root:
        sibling = flat_tree.sibling(index)
        if (
            seek_root is not None
            and seek_root != sibling
            and flat_tree.contains(sibling, seek_root)
        ):
            plan.seek = _path(seek_root, sibling)
        else:
            plan.node.append(sibling)
        index = flat_tree.parent(index)


def _path(index: int, root: int) -> list[TreeIndex]:
    """A node and the siblings on its way up to `root`, which must be above it."""
    path = [TreeIndex(index)]
    while index != root:
        path.append(flat_tree.sibling(index))
        index = flat_tree.parent(index)
    return path


# --- seeking ----------------------------------------------------------------------------


def _stored(index: int, read_node: NodeReader) -> MerkleNode:
    node = read_node(index)
    if node is None:
        raise InvalidRequest(f"tree node {index} is not here")
    return node


def _seek_within(head: Head, root: TreeIndex, seek: SeekRequest, read_node: NodeReader) -> int:
    """The lowest stored subtree of `root` where the offset falls; it must fall inside."""
    first_block = flat_tree.left_span(root) // 2
    offset = _byte_offset(head, first_block, read_node) - seek.padding * first_block
    if offset == seek.bytes:
        return root
    size = _unpadded(_stored(root, read_node), seek.padding)
    if not offset < seek.bytes < offset + size:
        raise InvalidRequest(f"byte {seek.bytes} is not below tree node {root}")
    return _seek_below(root, seek.bytes - offset, seek.padding, read_node)


def _seek_from_roots(stop: int, seek: SeekRequest, read_node: NodeReader) -> int | None:
    """The same over the roots of a log of `stop` blocks; None when the offset is beyond."""
    left = seek.bytes
    for root in flat_tree.full_roots(stop):
        size = _unpadded(_stored(root, read_node), seek.padding)
        if left == size:
            return root
        if left < size:
            return _seek_below(root, left, seek.padding, read_node)
        left -= size
    return None


def _seek_below(root: TreeIndex, left: int, padding: int, read_node: NodeReader) -> TreeIndex:
    index = root
    if left == 0:
        return root
    while index & 1:
        left_child, right_child = flat_tree.children(index)
        child = read_node(left_child)
        if child is None:
            return index
        size = _unpadded(child, padding)
        if size == left:
            return left_child
        if size > left:
            index = left_child
        else:
            left -= size
            index = right_child
    return index


def _unpadded(node: MerkleNode, padding: int) -> int:
    return node.size - padding * flat_tree.leaf_count(node.index)


def _byte_offset(head: Head, block_index: int, read_node: NodeReader) -> int:
    """Bytes, as stored, before a block."""
    target = 2 * block_index
    before = 0
    for root in head.roots:
        if flat_tree.right_span(root.index) < target:
            before += root.size
            continue
        index = root.index
        while index & 1:
            left_child, right_child = flat_tree.children(index)
            if target < index:
                index = left_child
            else:
                before += _stored(left_child, read_node).size
                index = right_child
        break
    return before


# --- verifying --------------------------------------------------------------------------


def missing_nodes(index: TreeIndex, head: Head, read_node: NodeReader) -> int:
    """How many levels to climb from `index` to a stored node: the `nodes` of a request.

    0 when the index is beyond our tree: then an upgrade brings it, and proves it.
    """
    stop = 2 * head.length
    half = ~index & (index + 1)
    if index + half > stop:
        return 0
    levels = 0
    while index + half <= stop and read_node(index) is None:
        levels += 1
        index = TreeIndex((index | half) & ~(half << 1))
        half <<= 1
    return levels


def verify_proof(
    proof: Proof, head: Head, read_node: NodeReader, verifier: Verifier | None
) -> Changeset:
    """Check a proof against what we have; returns what it adds, all of it proven.

    An upgrade must start at `head.length`: one that was asked for at another length is stale,
    and for the caller to drop. Over an empty log an upgrade of a later fork is accepted too.

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
            _anchor(top, is_computed, read_node, changes)
        return changes
    if verifier is None:
        raise InvalidSignature("an upgrade of a core whose manifest is not known")
    growth = _plan_growth(upgrade, head, verifier.prologue)
    if top is not None and top.index not in growth:
        _anchor(top, is_computed, read_node, changes)
        top = None
    new = _grow(proof.fork, upgrade, head, growth, top, changes, verifier.prologue)
    if not verifier.verify(new, new.signature):
        raise InvalidSignature(f"the head of {new.length} blocks, fork {new.fork}, is not signed")
    changes.head = new
    return changes


def _anchor(top: MerkleNode, is_computed: bool, read_node: NodeReader, changes: Changeset) -> None:
    """What a path leads to must be what we have; then it is not stored again."""
    stored = read_node(top.index)
    if stored is None:
        raise InvalidProof("a path that ends beside our tree", top.index)
    if stored.hash != top.hash:
        raise InvalidProof("hashes differ", top.index, stored.hash, top.hash)
    if stored.size == top.size:
        changes.nodes.pop()
    elif not is_computed:
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
    """Hash upwards through `siblings[start:]`, and through `extra` where it fits.

    Every node met is added to `passed`, the topmost last. Each must be the very sibling.
    """
    count = len(siblings)
    if count > MAX_PATH_NODES:
        raise InvalidProof(f"a path of {count} nodes", node.index)
    position = start
    while position < count or extra is not None:
        expected = flat_tree.sibling(node.index)
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
        passed.append(sibling)
        node = parent_node(node, sibling)
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
    """Our tree with the upgrade's nodes, and `top` among them; not signed for yet."""
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
