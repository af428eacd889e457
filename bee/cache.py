"""Decoded tree nodes, kept within a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bee.btree import BTreeNode

DEFAULT_CACHE_BYTES = 32 << 20
"""Holds the hot part of a tree of some 150,000 keys of 100 bytes."""


Span = tuple[bytes, bytes]
"""The first and the last of some keys that are in a node or below it."""

MAX_SPANS = 1 << 14
"""Some 3 MB; at that all are forgotten, and found anew."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    nodes: int
    size_bytes: int
    limit_bytes: int


class NodeCache:
    """Tree nodes by their encoded reference (seq, offset), the unused ones dropped first.

    Two generations instead of a list in order of use: what is asked for moves to the young
    one; when that is full (half of the budget) it becomes the old one, and what is left in
    the former old one goes. A hit costs one dictionary look-up and writes nothing.

    Sizes are estimates of what CPython takes for the node, its lists and its strings.
    """

    __slots__ = ("_half_bytes", "_old", "_old_bytes", "_young_bytes", "spans", "young")

    def __init__(self, limit_bytes: int) -> None:
        self._half_bytes = limit_bytes // 2
        self.young: dict[bytes, BTreeNode] = {}
        """Where `get` looks first; so may callers that look often, until a node is added."""
        self._old: dict[bytes, BTreeNode] = {}
        self._young_bytes = 0
        self._old_bytes = 0
        self.spans: dict[bytes, Span] = {}
        """By the ref of a node; they stand in for keys that are not here."""

    def remember_span(self, ref: bytes, span: Span) -> None:
        if len(self.spans) >= MAX_SPANS:
            self.spans.clear()
        self.spans[ref] = span

    def get(self, ref: bytes) -> BTreeNode | None:
        node = self.young.get(ref)
        if node is None:
            node = self._old.pop(ref, None)
            if node is not None:
                self._old_bytes -= node[3]
                self.add(ref, node)
        return node

    def add(self, ref: bytes, node: BTreeNode) -> None:
        """Add a node that is not in here."""
        self.young[ref] = node
        self._young_bytes += node[3]
        if self._young_bytes > self._half_bytes:
            self._old, self._old_bytes = self.young, self._young_bytes
            self.young, self._young_bytes = {}, 0

    def replace(self, ref: bytes, node: BTreeNode) -> None:
        """Put a node in place of what is here: some of its keys were loaded."""
        before = self.young.get(ref)
        if before is None:
            self.discard(ref)
        else:
            self._young_bytes -= before[3]
        self.add(ref, node)

    def exchange(
        self, replaced: Iterable[bytes], brought: Iterable[tuple[bytes, BTreeNode]]
    ) -> None:
        """Forget some nodes and add others."""
        self.spans.clear()  # what is written may be what was erased
        for ref in replaced:
            self.discard(ref)
        for ref, node in brought:
            self.add(ref, node)

    def discard(self, ref: bytes) -> None:
        """Forget a node that newer versions of the tree no longer have."""
        node = self.young.pop(ref, None)
        if node is not None:
            self._young_bytes -= node[3]
            return
        node = self._old.pop(ref, None)
        if node is not None:
            self._old_bytes -= node[3]

    def clear(self) -> None:
        self.spans.clear()
        self.young, self._young_bytes = {}, 0
        self._old, self._old_bytes = {}, 0

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(
            nodes=len(self.young) + len(self._old),
            size_bytes=self._young_bytes + self._old_bytes,
            limit_bytes=2 * self._half_bytes,
        )
