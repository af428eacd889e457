"""What can be made anew of a core after damage, and what has to be fetched again.

Tree nodes follow from the blocks below them, and marks from the blocks. A block follows from
nothing: of somebody else's core it is forgotten, as if it had been cleared, and peers are asked
for it when it is wanted next. Of our own core it stays lost, until somebody brings a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, assert_never

from hypercore import flat_tree
from hypercore.audit import Damage, DamageKind
from hypercore.bitfield import Bitfield
from hypercore.errors import CorruptStorage
from hypercore.log import Head
from hypercore.merkle import MerkleNode, leaf_node, parent_node
from hypercore.storage.core_storage import CoreStorage


class DamagedLog(Protocol):
    """What is repaired; `StoredLog` is one."""

    rows: CoreStorage
    head: Head
    bitfield: Bitfield
    is_writable: bool

    def read_node(self, index: int) -> MerkleNode | None: ...
    def clear(self, runs: Sequence[tuple[int, int]]) -> None: ...
    def restore(self, nodes: Sequence[MerkleNode], blocks: Sequence[int]) -> None: ...
    def rewrite_marks(self, page: int) -> None: ...
    def forget_node(self, index: int) -> None: ...
    def prune(self, tops: Iterable[int]) -> None: ...


def rebuilt_node(log: DamagedLog, index: int) -> MerkleNode | None:
    """A tree node from what lies below it; None when not all of that is here."""
    for root in log.head.roots:
        if root.index == index:
            return root
    if index & 1:
        left, right = (log.read_node(child) for child in flat_tree.children(index))
        return None if left is None or right is None else parent_node(left, right)
    if not log.bitfield.get(index >> 1):
        return None
    try:
        block = log.rows.read_block(index >> 1)
    except CorruptStorage:
        return None
    return None if block is None else leaf_node(index >> 1, block)


def repair_log(log: DamagedLog, damage: Iterable[Damage]) -> list[tuple[int, int]]:
    """Mend what an audit has found; returns runs [start, stop) of blocks that were forgotten.

    Mending may bring hidden damage to light: audit again until nothing is found, or the same
    again.

    Raises: StorageFailed.
    """
    lost: list[tuple[int, int]] = []
    nodes: list[int] = []
    tops: list[int] = []
    """Subtrees of which nothing is to stay."""
    for item in damage:
        match item.kind:
            case DamageKind.BLOCK:
                lost.append((item.start, item.stop))
            case DamageKind.NODE:
                nodes.append(item.start)
            case DamageKind.SUBTREE:
                tops.append(item.start)
            case DamageKind.MARK:
                log.restore((), range(item.start, item.stop))
            case DamageKind.PAGE:
                log.rewrite_marks(item.start)
            case DamageKind.HEAD:
                pass  # nothing here says what it was
            case _:
                assert_never(item.kind)
    # Leaves first: what lies above follows from them, and the next audit compares it.
    for index in sorted(nodes, key=flat_tree.depth):
        node = rebuilt_node(log, index)
        if node is not None:
            log.restore((node,), ())
        else:
            log.forget_node(index)
            tops.append(flat_tree.parent(index))
    if log.is_writable or not (lost or tops):
        return []
    # No node may stay that is not proven by others up to a root: what is fetched relies on it.
    log.prune(tops)
    runs = merged([*lost, *map(_blocks_below, tops)])
    log.clear(runs)
    return runs


def _blocks_below(index: int) -> tuple[int, int]:
    return flat_tree.left_span(index) // 2, flat_tree.right_span(index) // 2 + 1


def merged(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers as runs that do not touch, in order."""
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(runs):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined
