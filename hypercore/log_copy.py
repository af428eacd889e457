"""Filling a core from another log with the same first blocks, without any peer or signature.

* A core whose manifest fixes its first blocks (a prologue) is filled from any core that begins
  with them: so a log is taken over under another key, with other signers.
* A log that Hypercore 10 wrote is taken into a store, with its head as it was signed.

Every block is hashed on its way, up to a root: what is damaged is not copied.

Source: hypercore 11.37.1 lib/copy-prologue.js, which also copies user data, and hashes nothing but
the roots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.errors import CorruptStorage, UsageError
from hypercore.log import Changeset, Head
from hypercore.manifest import Prologue
from hypercore.merkle import MerkleNode, leaf_node, parent_node, tree_hash
from hypercore.verifier import Verifier

_CHUNK_BYTES = 4 << 20
_CHUNK_BLOCKS = 4096
"""At most so much in one commit, as JavaScript does it."""

_READ_BLOCKS = 64


class CopySource(Protocol):
    """A log with some of its blocks; a core is one."""

    @property
    def head(self) -> Head: ...
    @property
    def bitfield(self) -> Bitfield: ...
    def read_node(self, index: int) -> MerkleNode | None: ...
    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]: ...


class CopyTarget(Protocol):
    """The log that is filled; what it holds already is left out."""

    @property
    def head(self) -> Head: ...
    @property
    def bitfield(self) -> Bitfield: ...
    @property
    def verifier(self) -> Verifier | None: ...
    def read_node(self, index: int) -> MerkleNode | None: ...


def prologue_changes(source: CopySource, target: CopyTarget) -> Iterator[Changeset]:
    """What to commit to `target`, piece by piece: its prologue as far as `source` holds it.

    Raises: UsageError when the manifest of `target` fixes nothing, or fixes something else than
    `source` begins with; CorruptStorage for a block that does not hash to its tree.
    """
    prologue = target.verifier.prologue if target.verifier is not None else None
    if prologue is None:
        raise UsageError("the manifest of the core to be filled fixes no blocks")
    roots = _roots(source, prologue)
    head = Head(0, prologue.length, sum(root.size for root in roots), tuple(roots))
    return copy_changes(source, target, head)


def copy_changes(source: CopySource, target: CopyTarget, head: Head) -> Iterator[Changeset]:
    """What to commit to `target`, piece by piece: `head` if it is empty, and the blocks below it.

    Each piece is to be committed before the next one is asked for.

    Raises: CorruptStorage for a block that does not hash to its tree.
    """
    changes = Changeset()
    fresh: dict[int, MerkleNode] = {root.index: root for root in head.roots}
    if target.head.length == 0:
        changes.head = head
        changes.nodes += head.roots
    size = 0
    for index, block in _held_blocks(source, target, head.length):
        _climb(source, target, leaf_node(index, block), fresh, changes.nodes)
        changes.blocks.append((index, block))
        size += len(block)
        if size >= _CHUNK_BYTES or len(changes.blocks) == _CHUNK_BLOCKS:
            yield changes
            changes, fresh, size = Changeset(), {}, 0
    if changes.head is not None or changes.blocks:
        yield changes


def _roots(source: CopySource, prologue: Prologue) -> list[MerkleNode]:
    if source.head.length < prologue.length:
        raise UsageError(f"{source.head.length} blocks to fill a prologue of {prologue.length}")
    roots = [_node(source, index) for index in flat_tree.full_roots(prologue.length)]
    if tree_hash(roots) != prologue.hash:
        raise UsageError(f"the first {prologue.length} blocks are not those of the prologue")
    return roots


def _held_blocks(
    source: CopySource, target: CopyTarget, length: int
) -> Iterator[tuple[int, bytes]]:
    for start in range(0, length, _READ_BLOCKS):
        indices = [
            index
            for index in range(start, min(start + _READ_BLOCKS, length))
            if source.bitfield.get(index) and not target.bitfield.get(index)
        ]
        for index, block in zip(indices, source.read_blocks(indices), strict=True):
            if block is not None:
                yield index, block


def _climb(
    source: CopySource,
    target: CopyTarget,
    node: MerkleNode,
    fresh: dict[int, MerkleNode],
    passed: list[MerkleNode],
) -> None:
    """Hash from a leaf up to a node that is known, adding every node on the way to `passed`."""
    leaf = node.index
    while True:
        known = fresh.get(node.index) or target.read_node(node.index)
        if known is not None:
            if known != node:
                raise CorruptStorage(f"block {leaf >> 1}", "it does not hash to its tree")
            return
        fresh[node.index] = node
        passed.append(node)
        beside = flat_tree.sibling(node.index)
        sibling = fresh.get(beside) or target.read_node(beside)
        if sibling is None:
            sibling = _node(source, beside)
            fresh[beside] = sibling
            passed.append(sibling)
        node = parent_node(node, sibling)


def _node(source: CopySource, index: int) -> MerkleNode:
    node = source.read_node(index)
    if node is None:
        raise CorruptStorage(f"tree node {index}", "missing in the log to be copied")
    return node
