"""The log as a value: its head, and what a change adds to it.

Nothing here touches a disk or a peer. A change returns a `Changeset`, and whoever holds the
storage makes it true in one commit.

Source: hypercore 11.37.1 lib/merkle-tree.js (append, truncate).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from struct import Struct

from hypercore import flat_tree
from hypercore.encoding import MAX_UINT
from hypercore.errors import CorruptStorage, OutOfRange, UsageError
from hypercore.flat_tree import TreeIndex
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, tree_hash

NodeReader = Callable[[int], MerkleNode | None]
"""Looks up a stored tree node, without waiting; None when it is not here."""

_PREFIX = Struct("<BQ")


@dataclass(frozen=True, slots=True)
class Head:
    """What a log is now: everything but `signature` is covered by the signature."""

    fork: int
    length: int
    byte_length: int
    roots: tuple[MerkleNode, ...]
    signature: bytes = b""
    tree_hash: bytes = field(default=b"", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.tree_hash:
            object.__setattr__(self, "tree_hash", tree_hash(self.roots))


EMPTY_HEAD = Head(0, 0, 0, ())

Sign = Callable[[Head], bytes]
"""Signs a head whose `signature` is still empty."""


@dataclass(slots=True)
class Changeset:
    """Everything that one commit changes. `truncated_to` is applied first."""

    head: Head | None = None
    """The new head; None when only blocks or nodes are added below the present one."""

    nodes: list[MerkleNode] = field(default_factory=list)
    blocks: list[tuple[int, bytes]] = field(default_factory=list)
    """(index, block as it is stored)."""

    manifest: Manifest | None = None
    """The manifest, when a peer sent it along; it is the one the core's key stands for."""

    truncated_to: int | None = None
    """What is kept of the old history, in blocks; None when nothing is lost."""

    staged: range = range(0)
    """Further blocks of this changeset, whose rows are in the batch already."""

    encoded_nodes: dict[int, bytes] = field(default_factory=dict)
    """Further nodes by their index, as they are stored."""


def shared_length(before: Head, after: Head, read_node: NodeReader) -> int:
    """How many first blocks of an earlier head the log still has, as far as its roots show it.

    `read_node` reads the log as it is now, at `after`.
    """
    if before.fork == after.fork:
        return min(before.length, after.length)
    shared = 0
    for root in before.roots:
        stop = flat_tree.right_span(root.index) // 2 + 1
        if stop > after.length or read_node(root.index) != root:
            break
        shared = stop
    return shared


def _signed(unsigned: Head, sign: Sign) -> Head:
    return Head(
        unsigned.fork,
        unsigned.length,
        unsigned.byte_length,
        unsigned.roots,
        sign(unsigned),
        unsigned.tree_hash,
    )


def append(head: Head, blocks: Sequence[bytes], sign: Sign) -> Changeset:
    """Put `blocks` (as they are stored) at the end and sign the new head once."""
    if not blocks:
        return Changeset()
    # Hot path, 3 us a block of 100 bytes: the hashing of merkle.py is written out here.
    new_node = tuple.__new__
    prefix = _PREFIX.pack
    length = head.length
    byte_length = head.byte_length
    roots = list(head.roots)
    nodes: list[MerkleNode] = []
    for block in blocks:
        size = len(block)
        byte_length += size
        index = 2 * length
        digest = blake2b(prefix(0, size) + block, digest_size=32).digest()
        node = new_node(MerkleNode, (index, size, digest))
        nodes.append(node)
        length += 1
        # One merge for each power of two that this block completes.
        merges = length
        while not merges & 1:
            left_index, left_size, left_digest = roots.pop()
            size += left_size
            index = (left_index + index) >> 1
            digest = blake2b(prefix(1, size) + left_digest + digest, digest_size=32).digest()
            node = new_node(MerkleNode, (index, size, digest))
            nodes.append(node)
            merges >>= 1
        roots.append(node)
    unsigned = Head(head.fork, length, byte_length, tuple(roots))
    return Changeset(
        head=_signed(unsigned, sign),
        nodes=nodes,
        blocks=list(enumerate(blocks, head.length)),
    )


def truncate(head: Head, length: int, fork: int, read_node: NodeReader, sign: Sign) -> Changeset:
    """Cut the log back to `length` blocks, as a new fork that is signed right away.

    Raises: OutOfRange for a length beyond the log, UsageError for a fork that is not newer or
    is above `MAX_UINT`, CorruptStorage when a root of the shorter log is not stored.
    """
    if not 0 <= length <= head.length:
        raise OutOfRange(length, head.length)
    if fork <= head.fork:
        raise UsageError(f"fork {fork} must be above the present one, {head.fork}")
    if fork > MAX_UINT:
        raise UsageError(f"fork {fork} is above {MAX_UINT}: it could be written and never read")
    present = {root.index: root for root in head.roots}
    roots = []
    for index in flat_tree.full_roots(length):
        root = present.get(index) or read_node(index)
        if root is None:
            raise CorruptStorage(f"tree node {index}", "missing, and needed to truncate")
        roots.append(root)
    byte_length = sum(root.size for root in roots)
    unsigned = Head(fork, length, byte_length, tuple(roots))
    return Changeset(head=_signed(unsigned, sign), truncated_to=length)


def earlier_head(head: Head, length: int, read_node: NodeReader) -> Head | None:
    """The head as it was at `length` blocks, without its signature; None if roots are missing."""
    if length == head.length:
        return head
    present = {root.index: root for root in head.roots}
    roots = []
    for index in flat_tree.full_roots(length):
        root = present.get(index) or read_node(index)
        if root is None:
            return None
        roots.append(root)
    return Head(head.fork, length, sum(root.size for root in roots), tuple(roots))


def stale_nodes(kept_length: int) -> list[TreeIndex]:
    """Tree nodes that a cut to `kept_length` blocks makes wrong, though they lie below it.

    They span the cut, and everything from index 2 * kept_length on is wrong as well. Left in
    place, they would be trusted as anchors of later proofs.
    """
    if kept_length == 0:
        return []
    stale = []
    stop = 2 * kept_length
    index = TreeIndex(stop - 2)
    while flat_tree.leaf_count(index) <= kept_length:
        index = flat_tree.parent(index)
        if index < stop <= flat_tree.right_span(index):
            stale.append(index)
    return stale
