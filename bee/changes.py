"""The tree while it is being changed, and the blocks that the changes come to.

One `TreeChanges` is one append: a single put or a batch. Its operations work on one tree in
memory; each remembers the nodes it rewrote, in the order of the original's recursion (root,
then changed children from left to right). When the blocks are laid out, a node that a later
operation rewrote again drops out of the earlier block, and the last slot takes its place.

What the original does by accident shows in the bytes, and so is done here on purpose: see `_refuse`
and `encode`.

Source: hyperbee 2.27.3 index.js Batch (_put, _del, rebalance, toBlocks).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence

from bee.btree import MAX_DEPTH, MIN_KEYS, ChildRef, OpenNode
from bee.descent import find, has_node, locate_open
from bee.errors import CorruptTree
from bee.keyspace import KeyRange
from bee.messages import NodeRecord, encode_record
from bee.neighbors import first_of
from bee.node_reader import NodeReader, root_ref
from bee.pending_blocks import PendingBlocks
from bee.protobuf import SMALL_VARINTS, decode_varint, encode_varint

Compare = Callable[[int, NodeRecord, int], bool]
"""Decides on a change: seq and record of the entry that is there, seq of the change."""


class TreeChanges:
    """Changes to the tree of `version`, not yet appended.

    Every operation may raise BlocksNeeded; it has then changed nothing that shows, and is to be
    called again. Raises: BlocksNeeded, CorruptTree.
    """

    def __init__(self, reader: NodeReader, version: int, *, always_duplicate: bool) -> None:
        self.reader = reader
        self.start = version
        self._blocks = PendingBlocks()
        self._always_duplicate = always_duplicate
        self._origin = root_ref(version)
        self._root: OpenNode | None = None
        self._has_stray_marks = False
        self._written: list[OpenNode] = []

    @property
    def count(self) -> int:
        """Blocks that the changes come to."""
        return len(self._blocks)

    def content_bytes(self) -> int:
        """What their keys and values come to."""
        return self._blocks.content_bytes()

    def get(self, key: bytes) -> tuple[int, NodeRecord] | None:
        """Read with the changes so far."""
        root = self._present()
        if not root:
            return None
        found = find(self.reader, root, key)
        if found is None:
            return None
        seq, held = found
        return seq, self._record(seq) if held is None else NodeRecord(b"", *held)

    def first(self, key_range: KeyRange) -> tuple[int, NodeRecord] | None:
        """The entry with which a range begins, with the changes so far."""
        root = self._present()
        seq = first_of(self.reader, root, key_range) if root else None
        if seq is None:
            return None
        record = self._record(seq)
        is_past = key_range.is_past
        if is_past is not None and is_past(record.key):
            return None
        if not key_range.contains(record.key):
            raise CorruptTree(seq, "keys out of order")
        return seq, record

    def _present(self) -> ChildRef:
        """The root with the changes so far; empty if there is none."""
        return self._origin if self._root is None else self._root

    def put(self, key: bytes, value: bytes | None, cas: Compare | None = None) -> bool:
        """Returns whether a block was made: not so if `cas` refused or nothing would change."""
        root = node = self._open_root()
        path: list[OpenNode] = []
        positions: list[int] = []
        while True:
            # `locate_open` and `_open` written out: that takes an eighth off a put.
            keys = node.keys
            try:
                position = bisect_left(keys, key)  # type: ignore[type-var]  # as in locate
            except TypeError:
                position = self.reader.search(keys, node.key_refs, key)[0]
            if position < len(keys) and keys[position] == key:
                if not self._may_replace(node, position, value, cas):
                    self._refuse(path)
                    return False
                key_ref = encode_varint(self.start + len(self._blocks.keys))
                node.key_refs[position] = key_ref
                self._append(root, key, value, path, key_ref, only_path=True)
                return True
            children = node.children
            if not children:
                break
            child = children[position]
            node = self._open(node, position) if isinstance(child, bytes) else child
            path.append(node)
            positions.append(position)
            if len(path) > MAX_DEPTH:
                raise CorruptTree(self.start - 1, f"tree deeper than {MAX_DEPTH}")
        key_ref = encode_varint(self.start + len(self._blocks.keys))
        must_split = node.insert(position, key, key_ref)
        if must_split:
            for passed in path:
                passed.changed = True
            root = self._split(root, path, positions)
        self._append(root, key, value, path, key_ref, only_path=not must_split)
        return True

    def delete(self, key: bytes, cas: Compare | None = None) -> bool:
        """Returns whether a block was made: not so for a key that is not there."""
        root = self._take_out(key, cas)
        if root is None:
            return False
        self._append_all(root, key)
        return True

    def remove(self, key: bytes) -> bool:
        """Delete `key` without a block that tells of it; the next block has the changed nodes.

        Returns whether it was there.
        """
        root = self._take_out(key, None)
        if root is None:
            return False
        self._root = root
        self._has_stray_marks = True
        return True

    def has(self, ref: bytes, key: bytes) -> bool:
        """Whether the node at `ref`, changed or not, is still in the tree; it has the key `key`."""
        if self._root is None:
            return bool(self._origin) and has_node(self.reader, self._origin, ref, key)
        if ref == self._origin:
            return True
        node = self._root
        while node.children:
            position, is_there = locate_open(self.reader, node, key)
            if is_there:
                return False
            child = node.children[position]
            if isinstance(child, bytes):
                return has_node(self.reader, child, ref, key)
            if child.origin == ref:
                return True
            node = child
        return False

    def rewrite(self, ref: bytes, key: bytes) -> bool:
        """Have the next block bring the node at `ref`, if the tree `has` it; whether it has."""
        if not self.has(ref, key):
            return False
        node = self._open_root()
        if ref == self._origin:
            return True  # the last block always brings the root
        path = [node]
        is_found = False
        while not is_found:
            node = self._open(node, locate_open(self.reader, node, key)[0])
            path.append(node)
            is_found = node.origin == ref
        for passed in path:
            passed.changed = True
        self._has_stray_marks = True
        return True

    def brought_bytes(self) -> int:
        """About how many bytes of nodes the next block would bring."""
        stack = [self._open_root()]
        size = 0
        while stack:
            node = stack.pop()
            size += len(node.encode())
            opened = [child for child in node.children if isinstance(child, OpenNode)]
            stack += [child for child in opened if child.changed]
        return size

    def close(self, key: bytes) -> None:
        """Make a block that brings all changed nodes: a deletion of `key`, which is absent.

        Readers of the history see a deletion. No other block may bring nodes that are not on the
        way to its key: the original takes a block's word on that key wherever it meets one of its
        nodes.
        """
        self._append_all(self._open_root(), key)

    def _take_out(self, key: bytes, cas: Compare | None) -> OpenNode | None:
        """The root after `key` was deleted; None if it is not there, or `cas` refused."""
        if not self._origin and self._root is None:
            return None
        root = node = self._open_root()
        stack = [root]
        positions: list[int] = []
        while True:
            position, is_there = locate_open(self.reader, node, key)
            if is_there:
                break
            if not node.children:
                return None
            node = self._descend(stack, positions, position)
        if cas is not None:
            seq = decode_varint(node.key_refs[position], 0)[0]
            if not cas(seq, self._record(seq), self.start + len(self._blocks)):
                return None
        depth = len(stack)
        takes_successor = bool(node.children) and self._choose_leaf(stack, positions, position)
        self._open_siblings(stack, positions)
        if len(stack) == depth:
            node.remove(position)
        else:
            leaf = stack[-1]
            leaf.size = 0
            end = 0 if takes_successor else -1
            node.replace_key(position, leaf.keys.pop(end), leaf.key_refs.pop(end))
        for passed in stack:
            passed.changed = True
        return _rebalance(stack, positions)

    def encode(self) -> Iterator[bytes]:
        """The blocks to append at index `start`. To be called once, and read to its end.

        All but the last keep only the nodes that no later operation rewrote, without a root:
        versions inside a batch cannot be checked out. A node that became the root when the
        tree shrank stays behind in the block that wrote it before, as in the original.
        """
        last = len(self._blocks) - 1
        for number, (key, value, slots) in enumerate(self._blocks.drain()):
            if number < last:
                slots = _keep(slots, self.start + number)
                index = b""
            else:
                assert self._root is not None  # an operation made this block
                index = self._root.encode()
            if slots:
                index += b"".join([slot.encode() for slot in slots])
                self._written += slots
            yield encode_record(index, key, value)

    def commit(self) -> None:
        """The blocks were appended: give the changed nodes to the cache, take the old ones out."""
        if self._root is None or not self._blocks:
            return
        cache = self.reader.cache
        if self._origin:
            cache.discard(self._origin)
        for node in self._written:
            if node.origin is not None:
                cache.discard(node.origin)
            cache.add(node.ref, node.close())
        cache.add(root_ref(self.start + len(self._blocks)), self._root.close())

    def _record(self, seq: int) -> NodeRecord:
        if seq >= self.start + len(self._blocks):
            raise CorruptTree(seq, "named by the tree, and not in the log")
        if seq >= self.start:
            number = seq - self.start
            return NodeRecord(b"", self._blocks.keys[number], self._blocks.values[number])
        return self.reader.record(seq)

    def _open_root(self) -> OpenNode:
        if self._root is None:
            if self._origin:
                self._root = OpenNode.of(self.reader.node(self._origin, b""), None)
            else:
                self._root = OpenNode([], [], [])
        return self._root

    def _open(self, node: OpenNode, position: int) -> OpenNode:
        child = node.children[position]
        if isinstance(child, bytes):
            child = OpenNode.of(self.reader.node(child, self._origin), child)
            node.children[position] = child
        return child

    def _descend(self, stack: list[OpenNode], positions: list[int], position: int) -> OpenNode:
        node = self._open(stack[-1], position)
        stack.append(node)
        positions.append(position)
        if len(stack) > MAX_DEPTH:
            raise CorruptTree(self.start - 1, f"tree deeper than {MAX_DEPTH}")
        return node

    def _may_replace(
        self, node: OpenNode, position: int, value: bytes | None, cas: Compare | None
    ) -> bool:
        if cas is None and self._always_duplicate:
            return True
        seq = decode_varint(node.key_refs[position], 0)[0]
        record = self._record(seq)
        if cas is not None and not cas(seq, record, self.start + len(self._blocks)):
            return False
        return self._always_duplicate or record.value != value

    def _refuse(self, path: list[OpenNode]) -> None:
        """Leave the marks of a put that was not made.

        The original marks every inner node before it looks into it, and in a batch writes
        what is marked with the next operation.
        """
        for node in path:
            if node.children:
                node.changed = True
                self._has_stray_marks = True

    def _split(self, root: OpenNode, path: list[OpenNode], positions: list[int]) -> OpenNode:
        """Split from the leaf up while nodes are too large; returns the root."""
        nodes = [root, *path]
        must_split = True
        while must_split:
            node = nodes.pop()
            key, key_ref, right = node.split()
            if not nodes:
                # A root that was once below another still belongs to the block that wrote it then.
                return OpenNode([key], [key_ref], [node.twin(), right])
            must_split = nodes[-1].insert(positions.pop(), key, key_ref, right)
        return root

    def _choose_leaf(self, stack: list[OpenNode], positions: list[int], position: int) -> bool:
        """Open the way to the leaf whose key replaces one of an inner node.

        Returns whether it is the next key (else the one before): the larger leaf gives, the
        left one if they are equal.
        """
        node = stack[-1]
        left = self._leaf_size(node.children[position], -1)
        right = self._leaf_size(node.children[position + 1], 0)
        takes_successor = left < right
        node = self._descend(stack, positions, position + takes_successor)
        while node.children:
            step = 0 if takes_successor else len(node.children) - 1
            node = self._descend(stack, positions, step)
        return takes_successor

    def _leaf_size(self, child: ChildRef, end: int) -> int:
        """Keys in the outermost leaf below `child`: the first (end = 0) or the last (-1)."""
        children: Sequence[ChildRef]
        for _ in range(MAX_DEPTH):
            if isinstance(child, bytes):
                _, key_refs, children, _ = self.reader.node(child, self._origin)
                size = len(key_refs)
            else:
                children, size = child.children, len(child.keys)
            if not children:
                return size
            child = children[end]
        raise CorruptTree(self.start - 1, f"tree deeper than {MAX_DEPTH}")

    def _open_siblings(self, stack: list[OpenNode], positions: list[int]) -> None:
        """Open all nodes that rebalancing will look at, before anything is changed."""
        keys = len(stack[-1].keys) - 1
        for level in range(len(stack) - 1, 0, -1):
            if keys >= MIN_KEYS:
                return
            parent, position = stack[level - 1], positions[level - 1]
            siblings = []
            if position > 0:
                siblings.append(self._open(parent, position - 1))
            if position < len(parent.children) - 1:
                siblings.append(self._open(parent, position + 1))
            if any(len(sibling.keys) > MIN_KEYS for sibling in siblings):
                return
            keys = len(parent.keys) - 1

    def _append_all(self, root: OpenNode, key: bytes) -> None:
        """Make the block of an operation other than a put, with all that changed."""
        prefix = encode_varint(self.start + len(self._blocks))
        self._append(root, key, None, [], prefix, only_path=False)

    def _append(
        self,
        root: OpenNode,
        key: bytes,
        value: bytes | None,
        path: list[OpenNode],
        prefix: bytes,
        *,
        only_path: bool,
    ) -> None:
        """Make the block of an operation; `path` is all that changed if `only_path`.

        `prefix` is the key ref of that block, with which the refs of its nodes begin.
        """
        seq = self.start + len(self._blocks.keys)
        if only_path and not self._has_stray_marks:
            slots = path
        else:
            for node in path:
                node.changed = True
            slots = []
            _collect(root, slots)
            self._has_stray_marks = False
        for offset, node in enumerate(slots, 1):
            # Also for nodes that will move: a former root that stays behind names its children so.
            node.seq = seq
            node.ref = prefix + (SMALL_VARINTS[offset] if offset < 128 else encode_varint(offset))
        self._blocks.add(key, value, slots)
        self._root = root


def _collect(node: OpenNode, slots: list[OpenNode]) -> None:
    """The marked nodes below `node`, each before its children; takes the marks off."""
    node.changed = False
    for child in node.children:
        if type(child) is OpenNode and child.changed:
            slots.append(child)
            _collect(child, slots)


def _keep(slots: list[OpenNode], seq: int) -> list[OpenNode]:
    """The slots that still belong to block `seq`, numbered; the last one fills each gap."""
    if seq not in [slot.seq for slot in slots]:  # as for most blocks of a large batch
        return []
    kept: list[OpenNode | None] = [None, *slots]  # the root of an earlier operation goes
    offset = 0
    prefix = encode_varint(seq)
    while offset < len(kept):
        slot = kept[offset]
        if slot is not None and slot.seq == seq:
            slot.ref = prefix + encode_varint(offset)
            offset += 1
        elif offset == len(kept) - 1:
            kept.pop()
        else:
            kept[offset] = kept.pop()
    return [slot for slot in kept if slot is not None]


def _rebalance(stack: list[OpenNode], positions: list[int]) -> OpenNode:
    """Repair nodes with too few keys, from the bottom up; returns the root.

    All siblings that this looks at are open (`_open_siblings`).
    """
    root = stack[0]
    while len(stack) > 1:
        node = stack.pop()
        if len(node.keys) >= MIN_KEYS:
            return root
        parent, position = stack[-1], positions.pop()
        left = _opened(parent, position - 1)
        if left is not None and len(left.keys) > MIN_KEYS:
            node.borrow_left(parent, position, left)
            return root
        right = _opened(parent, position + 1)
        if right is not None and len(right.keys) > MIN_KEYS:
            node.borrow_right(parent, position, right)
            return root
        if left is not None:
            left.absorb(node, parent, position - 1)
        elif right is not None:
            node.absorb(right, parent, position)
    if not root.keys and root.children:
        shrunk = _opened(root, 0)
        assert shrunk is not None  # the node that was merged into
        return shrunk
    return root


def _opened(parent: OpenNode, position: int) -> OpenNode | None:
    """The child at `position`, None when there is no such child."""
    if not 0 <= position < len(parent.children):
        return None
    child = parent.children[position]
    assert isinstance(child, OpenNode)
    return child
