"""[trio] Checking all that is stored of one core, against the signature of its head.

Opening a core checks the signature, the roots and nothing below them; reading a block checks the
database's checksum of it. An `Audit` climbs all the way: every block is hashed and compared with
its leaf, every tree node with its children, and blocks that lack a node on the way up to a root
are counted. Blocks that were cleared or never fetched, and pruned tree nodes, are no damage.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Protocol

import trio

from hypercore import flat_tree
from hypercore.bitfield import Bitfield
from hypercore.errors import CorruptStorage
from hypercore.log import Head
from hypercore.merkle import MerkleNode, leaf_node, parent_node
from hypercore.storage.core_storage import CoreStorage

PIECE_BLOCKS = 256
"""Blocks checked by one `advance`, some 3 ms; the log may change between two of them."""

MAX_LISTED = 1000
"""Runs of damage that are listed; of a core with more, the rest is only counted."""


class DamageKind(StrEnum):
    """What is damaged."""

    BLOCK = "block"
    NODE = "tree node"
    SUBTREE = "subtree"
    """A tree node that its children do not hash to: one of them is wrong, or it is."""
    MARK = "mark"
    """The bit that says whether a block is here."""
    PAGE = "page of marks"
    """So many of these bits as are in one row."""
    HEAD = "head"


@dataclass(frozen=True, slots=True)
class Damage:
    """A run of damaged blocks, or of marks of blocks, [start, stop); or a tree node, or a page."""

    kind: DamageKind
    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        if self.kind is DamageKind.HEAD:
            return f"head: {self.reason}"
        run = str(self.start) if self.stop == self.start + 1 else f"{self.start} to {self.stop - 1}"
        return f"{self.kind} {run}: {self.reason}"


@dataclass(frozen=True, slots=True)
class AuditProgress:
    """How far an audit has come, and what it has found."""

    position: int
    """Blocks looked at, of `length`, held or not."""
    length: int
    blocks_verified: int
    blocks_unprovable: int
    """Of these, how many cannot be proven to peers: when JavaScript clears, it deletes proofs."""
    nodes_verified: int
    damaged_blocks: int
    damaged_rows: int
    """Tree nodes, marks and the head: what can be made anew from the blocks and the peers."""
    damage: tuple[Damage, ...]
    """Empty until the audit is over."""

    @property
    def is_sound(self) -> bool:
        return not self.damaged_blocks and not self.damaged_rows


class AuditedLog(Protocol):
    """What is audited; `StoredLog` is one."""

    rows: CoreStorage
    head: Head
    bitfield: Bitfield


class Audit:
    """One pass over one core; reads the disk, and changes nothing."""

    def __init__(self, log: AuditedLog, *, is_strict: bool = False) -> None:
        """If it `is_strict`, every tree node that another one's proof needs must be there.

        JavaScript deletes some of them when a neighbor is cleared.
        """
        self._log = log
        self._position = 0
        self._blocks = 0
        self._nodes = 0
        self._damaged_blocks = 0
        self._damaged_rows = 0
        self._damage: list[Damage] = []
        self._roots: set[int] = set()
        self._climbed: set[int] = set()
        self._missing: set[int] = set()
        self._is_strict = is_strict
        self._unprovable = 0

    def advance(self) -> bool:
        """Check the next piece; False when there is none. Raises: StorageError."""
        length = self._log.head.length
        if self._position >= length:
            self._check_end(length)
            return False
        self._climbed.clear()
        self._missing.clear()
        self._roots = {root.index for root in self._log.head.roots}
        start = self._position
        stop = min(start + PIECE_BLOCKS, length)
        nodes = self._read_nodes(2 * start, 2 * stop)
        self._check_blocks(start, stop, nodes)
        self._check_nodes(nodes)
        if self._is_strict:
            self._check_anchors(nodes)
        self._position = stop if nodes else self._next_row(stop, length)
        return True

    def _next_row(self, start: int, length: int) -> int:
        """The start of the next piece with anything in it; a sparse log may claim any length."""
        rows = self._log.rows
        try:
            found = [index for index, _ in islice(rows.blocks(start, length), 1)]
            found += [node.index >> 1 for node in islice(rows.nodes(2 * start, 2 * length), 1)]
        except CorruptStorage:
            return start
        marked = self._log.bitfield.first_set(start, length)
        if marked is not None:
            found.append(marked)
        first = min(found, default=length)
        return max(start, first - first % PIECE_BLOCKS)

    def progress(self, *, is_over: bool = False) -> AuditProgress:
        return AuditProgress(
            position=self._position,
            length=self._log.head.length,
            blocks_verified=self._blocks,
            blocks_unprovable=self._unprovable,
            nodes_verified=self._nodes,
            damaged_blocks=self._damaged_blocks,
            damaged_rows=self._damaged_rows,
            damage=tuple(self._damage) if is_over else (),
        )

    def _add(self, kind: DamageKind, index: int, reason: str) -> None:
        if kind is DamageKind.BLOCK:
            self._damaged_blocks += 1
        else:
            self._damaged_rows += 1
        damage = self._damage
        if damage and kind in (DamageKind.BLOCK, DamageKind.MARK):
            last = damage[-1]
            if last.kind is kind and last.stop == index and last.reason == reason:
                damage[-1] = Damage(kind, last.start, index + 1, reason)
                return
        if len(damage) < MAX_LISTED:
            damage.append(Damage(kind, index, index + 1, reason))

    def _check_blocks(self, start: int, stop: int, nodes: dict[int, MerkleNode]) -> None:
        is_held = self._log.bitfield.get
        blocks = self._read_blocks(start, stop)
        for index in range(start, stop):
            block = blocks.get(index)
            if block is None:
                if is_held(index) and index not in blocks:
                    self._add(DamageKind.BLOCK, index, "missing")
                continue
            leaf = leaf_node(index, block)
            # JavaScript deletes the leaf when it clears the block's neighbor.
            if nodes.setdefault(2 * index, leaf) != leaf:
                self._add(DamageKind.BLOCK, index, "it does not hash to its leaf")
                continue
            self._blocks += 1
            if not is_held(index):
                self._add(DamageKind.MARK, index, "the block is here, and not marked")
            self._unprovable += not self._is_provable(index, nodes)

    def _read_blocks(self, start: int, stop: int) -> Mapping[int, bytes | None]:
        """Blocks that are here; None for one that cannot be read."""
        rows = self._log.rows
        try:
            return dict(rows.blocks(start, stop))
        except CorruptStorage:
            pass
        blocks: dict[int, bytes | None] = {}
        for index in range(start, stop):
            try:
                block = rows.read_block(index)
            except CorruptStorage as error:
                if self._log.bitfield.get(index):
                    blocks[index] = None
                    self._add(DamageKind.BLOCK, index, error.reason)
            else:
                if block is not None:
                    blocks[index] = block
        return blocks

    def _read_nodes(self, start: int, stop: int) -> dict[int, MerkleNode]:
        rows = self._log.rows
        try:
            return {node.index: node for node in rows.nodes(start, stop)}
        except CorruptStorage:
            pass
        nodes = {}
        for index in range(start, stop):
            try:
                node = rows.read_node(index)
            except CorruptStorage as error:
                self._add(DamageKind.NODE, index, error.reason)
            else:
                if node is not None:
                    nodes[index] = node
        return nodes

    def _node(self, index: int, nodes: dict[int, MerkleNode]) -> MerkleNode | None:
        node = nodes.get(index)
        if node is None:
            try:
                node = self._log.rows.read_node(index)
            except CorruptStorage:
                return None  # reported with the piece that it is in
            if node is None and not index & 1 and self._log.bitfield.get(index >> 1):
                node = self._leaf(index >> 1)
        return node

    def _leaf(self, index: int) -> MerkleNode | None:
        try:
            block = self._log.rows.read_block(index)
        except CorruptStorage:
            return None
        return None if block is None else leaf_node(index, block)

    def _is_provable(self, index: int, nodes: dict[int, MerkleNode]) -> bool:
        """Whether all tree nodes that prove the block to others are here."""
        number = 2 * index
        while number not in self._roots:
            parent = flat_tree.parent(number)
            if parent in self._climbed:
                break
            for needed in (flat_tree.sibling(number), parent):
                if self._node(needed, nodes) is None:
                    return False
            self._climbed.add(parent)
            number = parent
        return True

    def _check_anchors(self, nodes: dict[int, MerkleNode]) -> None:
        """Each node must be provable: what is fetched is proven by the nearest one that is here."""
        for index in nodes:
            if index in self._roots:
                continue
            for needed in (flat_tree.sibling(index), flat_tree.parent(index)):
                if needed not in self._missing and self._node(needed, nodes) is None:
                    self._missing.add(needed)
                    reason = f"missing, and needed to prove tree node {index}"
                    self._add(DamageKind.NODE, needed, reason)

    def _check_nodes(self, nodes: dict[int, MerkleNode]) -> None:
        for index, node in nodes.items():
            if not index & 1:
                continue
            left, right = (self._node(child, nodes) for child in flat_tree.children(index))
            if left is None or right is None:
                continue  # pruned, never fetched, or reported already
            if parent_node(left, right) != node:
                self._add(DamageKind.SUBTREE, index, "its children do not hash to it")
            else:
                self._nodes += 1

    def _check_end(self, length: int) -> None:
        """What lies beyond the end, and the rows of the head as they are on the disk."""
        rows = self._log.rows
        try:
            for index, _ in rows.blocks(length, 2**40):
                self._add(DamageKind.BLOCK, index, f"beyond the end, {length}")
            stored = rows.load()
        except CorruptStorage as error:
            self._add(DamageKind.HEAD, length, str(error))
            return
        if stored.head != self._log.head:
            self._add(DamageKind.HEAD, length, "another one is on the disk")
        for page in self._log.bitfield.pages():
            if stored.bitfield.page_bytes(page) != self._log.bitfield.page_bytes(page):
                self._add(DamageKind.PAGE, page, "another one is on the disk")


async def audit_log(
    log: AuditedLog, check_open: Callable[[], None], *, is_strict: bool
) -> AsyncGenerator[AuditProgress, None]:
    """As `Core.audit`; `check_open` raises when the log can no longer be read."""
    audit = Audit(log, is_strict=is_strict)
    while audit.advance():
        yield audit.progress()
        await trio.lowlevel.checkpoint()
        check_open()
    yield audit.progress(is_over=True)
