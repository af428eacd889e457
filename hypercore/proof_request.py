"""What peers ask for, and which tree nodes answer it: index arithmetic only.

A path leads from a node up to a subtree's root and lists the siblings on the way. Where a
request also seeks, the sibling that holds the byte offset is replaced by the path to it.

Source: hypercore 11.37.1 lib/merkle-tree.js (generateProof, blockAndSeekProof, upgradeProof).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypercore import flat_tree
from hypercore.errors import UsageError
from hypercore.flat_tree import TreeIndex
from hypercore.log import Head, NodeReader
from hypercore.manifest import Prologue
from hypercore.seek import seek_from_roots, seek_within


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


@dataclass(slots=True)
class ProofPlan:
    """Tree indices of each part of a proof; None for a path that is not in it."""

    node: list[TreeIndex] | None = None
    seek: list[TreeIndex] | None = None
    upgrade: list[TreeIndex] = field(default_factory=list)
    additional: list[TreeIndex] = field(default_factory=list)


def answered_upgrade(request: ProofRequest, prologue: Prologue | None) -> UpgradeRequest | None:
    """The upgrade to answer: a peer that lacks a part of the prologue gets all of it, from 0."""
    upgrade = request.upgrade
    if upgrade is None or prologue is None or upgrade.start >= prologue.length:
        return upgrade
    return UpgradeRequest(0, prologue.length)


def plan_parts(
    request: ProofRequest, head: Head, read_node: NodeReader, upgrade: UpgradeRequest | None
) -> ProofPlan:
    """Which nodes go where; `read_node` serves the seek, `upgrade` replaces the request's.

    Raises: InvalidRequest.
    """
    plan = ProofPlan()
    if head.length == 0:
        return plan
    start, stop = 0, head.length
    if upgrade is not None:
        start, stop = upgrade.start, upgrade.start + upgrade.length
    if not start < stop <= head.length:
        raise InvalidRequest(f"upgrade [{start}, {stop}) of a log of {head.length}")
    node = _wanted_node(request)
    if node is not None and (upgrade is None or flat_tree.right_span(node.index) < 2 * start):
        _plan_below(plan, node, request.seek, head, stop, read_node)
        node = None
    elif node is not None and request.seek is not None and node.index >= 2 * start:
        raise InvalidRequest("a seek and a node beyond the upgrade's start in one request")
    if upgrade is not None:
        _plan_upgrade(plan, node, request.seek, start, stop, read_node)
        plan.additional = flat_tree.growth(stop, head.length)
    return plan


@dataclass(frozen=True, slots=True)
class _WantedNode:
    index: int
    levels: int
    is_block: bool


def _wanted_node(request: ProofRequest) -> _WantedNode | None:
    if request.block is not None:
        return _WantedNode(2 * request.block.index, request.block.nodes, True)
    if request.hash is not None:
        return _WantedNode(request.hash.index, request.hash.nodes, False)
    return None


def _plan_below(
    plan: ProofPlan,
    node: _WantedNode,
    seek: SeekRequest | None,
    head: Head,
    stop: int,
    read_node: NodeReader,
) -> None:
    """The path of a node within the requester's tree: as many levels as it asked for."""
    if flat_tree.right_span(node.index) >= 2 * stop:
        raise InvalidRequest(f"tree node {node.index} is not in a log of {stop}")
    top = TreeIndex(node.index)
    for _ in range(node.levels):
        top = flat_tree.parent(top)
        if flat_tree.contains(top, 2 * stop):
            raise InvalidRequest(f"{node.levels} levels above tree node {node.index} are too many")
    seek_root = None
    if seek is not None:
        seek_root = seek_within(head.roots, top, seek.bytes, seek.padding, read_node)
        if seek_root is None:
            raise InvalidRequest(f"byte {seek.bytes} is not below tree node {top}")
    _plan_paths(plan, node, seek_root, top)


def _plan_upgrade(
    plan: ProofPlan,
    node: _WantedNode | None,
    seek: SeekRequest | None,
    start: int,
    stop: int,
    read_node: NodeReader,
) -> None:
    """The subtrees that grow the tree; one that holds the node or the offset gets a path."""
    seek_root = None
    if seek is not None and plan.node is None:
        seek_root = seek_from_roots(stop, seek.bytes, seek.padding, read_node)
    target = node.index if node is not None and seek is None else seek_root
    for grown in flat_tree.growth(start, stop):
        if target is not None and flat_tree.contains(grown, target):
            _plan_paths(plan, node, seek_root, grown)
            target = None
        else:
            plan.upgrade.append(grown)


def _plan_paths(plan: ProofPlan, node: _WantedNode | None, seek_root: int | None, top: int) -> None:
    """From the node, or else from where the seek ended, up to `top`."""
    if node is None:
        plan.seek = None if seek_root is None else _path(seek_root, top)
        return
    index = node.index
    if not flat_tree.left_span(top) <= index <= flat_tree.right_span(top):
        raise InvalidRequest(f"tree node {index} and the seek are in different subtrees")
    plan.node = [] if node.is_block else [TreeIndex(index)]
    while index != top:
        sibling = flat_tree.sibling(index)
        if seek_root is None or seek_root == sibling or not flat_tree.contains(sibling, seek_root):
            plan.node.append(sibling)
        else:
            plan.seek = _path(seek_root, sibling)
        index = flat_tree.parent(index)


def _path(index: int, top: int) -> list[TreeIndex]:
    """A node and the siblings on its way up to `top`, which must be above it."""
    path = [TreeIndex(index)]
    while index != top:
        path.append(flat_tree.sibling(index))
        index = flat_tree.parent(index)
    return path
