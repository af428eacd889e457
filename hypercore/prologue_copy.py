"""Filling a core whose manifest fixes its first blocks from another core that begins with them.

Nobody signs anything: the prologue's tree hash in the manifest proves the whole. So a log is
taken over under another key, with other signers, without fetching it again.

Source: hypercore 11.37.1 lib/copy-prologue.js; unlike there user data stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator

from hypercore import flat_tree
from hypercore.errors import UsageError
from hypercore.log import Changeset, Head
from hypercore.manifest import Prologue
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.replication.replicated_log import ReplicatedLog

_CHUNK_BYTES = 4 << 20
_CHUNK_BLOCKS = 4096
"""At most so much in one commit, as JavaScript does it."""

_READ_BLOCKS = 64


def prologue_changes(source: ReplicatedLog, target: ReplicatedLog) -> Iterator[Changeset]:
    """What to commit to `target`, piece by piece: its head, and the blocks that `source` holds.

    Each piece is proven by itself; what `target` holds already is left out.

    Raises: UsageError when the manifest of `target` fixes nothing, or fixes something else than
    `source` begins with.
    """
    verifier = target.verifier
    prologue = verifier.prologue if verifier is not None else None
    if prologue is None:
        raise UsageError("the manifest of the core to be filled fixes no blocks")
    roots = _roots(source, prologue)
    byte_length = sum(root.size for root in roots)
    changes = Changeset()
    if target.head.length == 0:
        changes.head = Head(0, prologue.length, byte_length, tuple(roots))
        changes.nodes += roots
    copied: set[int] = {root.index for root in roots}
    size = 0
    for index, block in _held_blocks(source, target, prologue.length):
        changes.nodes += _path(source, index, copied)
        changes.blocks.append((index, block))
        size += len(block)
        if size >= _CHUNK_BYTES or len(changes.blocks) == _CHUNK_BLOCKS:
            yield changes
            changes = Changeset()
            size = 0
    if changes.head is not None or changes.blocks:
        yield changes


def _roots(source: ReplicatedLog, prologue: Prologue) -> list[MerkleNode]:
    if source.head.length < prologue.length:
        raise UsageError(f"{source.head.length} blocks to fill a prologue of {prologue.length}")
    roots = [_node(source, index) for index in flat_tree.full_roots(prologue.length)]
    if tree_hash(roots) != prologue.hash:
        raise UsageError(f"the first {prologue.length} blocks are not those of the prologue")
    return roots


def _held_blocks(
    source: ReplicatedLog, target: ReplicatedLog, length: int
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


def _path(source: ReplicatedLog, block_index: int, copied: set[int]) -> Iterator[MerkleNode]:
    """The nodes from a block's leaf up to one that is copied, with their siblings."""
    index = 2 * block_index
    while index not in copied:
        for one in (index, flat_tree.sibling(index)):
            if one not in copied:
                copied.add(one)
                yield _node(source, one)
        index = flat_tree.parent(index)


def _node(source: ReplicatedLog, index: int) -> MerkleNode:
    node = source.read_node(index)
    if node is None:
        raise UsageError(f"tree node {index} of the core to copy from is not here")
    return node
