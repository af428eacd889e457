"""The tree nodes of one log: read once, and made anew where they are damaged or missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice

from hypercore import flat_tree
from hypercore.errors import CorruptStorage
from hypercore.merkle import MerkleNode, encode_node, parent_node
from hypercore.repair import DamagedLog, rebuilt_node

_CACHED_NODES = 4096
"""Tree nodes kept decoded, about 1.2 MB a log."""

_HIGH = 31
"""The last bits of the index of a node over 32 blocks or more."""


class StoredTree:
    """What `StoredLog.read_node` reads; the nodes that were read last are kept."""

    def __init__(self, log: DamagedLog) -> None:
        """`log` has what damaged nodes are made anew of."""
        self._log = log
        self._nodes: dict[int, MerkleNode] = {}

    def forget(self) -> None:
        """Rows were removed or mended: keep nothing that was read before."""
        self._nodes.clear()

    def begin_with(self, nodes: Iterable[MerkleNode]) -> None:
        """The log was read anew: keep these nodes alone, which may not be stored."""
        self._nodes = {node.index: node for node in nodes}

    def read_node(self, index: int) -> MerkleNode | None:
        """A stored tree node, or one made anew from what lies below it; None where neither is here.

        Raises: CorruptStorage for blocks that are not those that were signed.
        """
        node = self._nodes.get(index)
        if node is None:
            try:
                node = self._log.rows.read_node(index)
            except CorruptStorage:
                node = rebuilt_node(self._log, index)
            node = node or self._rebuild(index)
            if node is not None:
                if len(self._nodes) >= _CACHED_NODES:
                    for oldest in list(islice(self._nodes, _CACHED_NODES // 4)):
                        del self._nodes[oldest]
                self._nodes[index] = node
        return node

    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]:
        """Nodes as `read_node` reads them, as they are sent. Raises: as `read_node`.

        Those further down, which paths hardly ever share, are read together and not kept.
        """
        kept = self._nodes
        unread = [index for index in indices if index & _HIGH != _HIGH and index not in kept]
        low: dict[int, bytes | None] = {}
        if unread:
            with suppress(CorruptStorage):  # then one by one
                low = dict(zip(unread, self._log.rows.encoded_nodes(unread), strict=True))
        return [low.get(index) or self._encoded(index) for index in indices]

    def _encoded(self, index: int) -> bytes | None:
        node = self.read_node(index)
        return None if node is None else encode_node(node)

    def _rebuild(self, index: int) -> MerkleNode | None:
        # JavaScript, clearing a block, deletes its neighbor's leaf as well, or larger subtrees,
        # and can then no longer prove the neighbor.
        # Nearly always asked for where blocks are still to come: a look at the first one tells.
        bitfield, rows = self._log.bitfield, self._log.rows
        start = (index & (index + 1)) >> 1
        if not bitfield.get(start):
            return None
        stop = flat_tree.right_span(index) // 2 + 1
        if not bitfield.has_range(start, stop):
            return None
        try:
            node = rows.rebuild(index)
            parent = rows.read_node(flat_tree.parent(index))
            sibling = rows.read_node(flat_tree.sibling(index))
        except CorruptStorage:
            return None
        if node is not None and parent is not None and sibling is not None:
            left, right = sorted((node, sibling))
            if parent_node(left, right) != parent:
                where = f"blocks [{start}, {stop}) of core {rows.discovery_key.hex()}"
                raise CorruptStorage(where, "not what was signed")
        return node
