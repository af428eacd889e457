"""One node of the B-tree: what it holds, and how it splits, borrows and merges.

A node has up to 8 keys, a ninth splits it; one below 4 borrows from a sibling or merges.
The keys themselves live in the blocks that put them: a node names those blocks.

References stay as they are encoded in blocks: a *key ref* is the varint of a seq, a *child
ref* the varints of (seq, offset). They are compared and copied as such, are the keys of the
node cache, and a changed node is encoded by joining them.

Source: hyperbee 2.27.3 index.js; the choices that show in the bytes (which half a split
keeps, whom to borrow from first) are the original's.
"""

from __future__ import annotations

from bee.messages import Level, encode_level

MIN_KEYS = 4
MAX_KEYS = 8

MAX_DEPTH = 32
"""Deeper than any tree of 2**53 keys: a node has at least four."""

FREED = 0
"""Seq of a pointer whose node was merged away; block 0 is the header, never a node."""

_NODE_BYTES = 320
_KEY_REF_BYTES = 56
_CHILD_BYTES = 56
_KEY_BYTES = 33


class Pointer:
    """A child that was opened for writing; takes the place of its ref in the parent.

    It is one object wherever the child moves: batches lay out their blocks by asking each
    pointer which block it names in the end.
    """

    __slots__ = ("node", "origin", "ref", "seq")

    def __init__(self, node: BTreeNode, ref: bytes, seq: int, origin: bytes | None) -> None:
        self.node = node
        self.ref = ref
        self.seq = seq
        self.origin = origin
        """The ref it had before anything changed; None for a node that is new."""


ChildRef = bytes | Pointer


class BTreeNode:
    """Keys in order, and the children between them (none in a leaf).

    `keys[i]` is None until block `key_refs[i]` was read. Children are encoded refs; in a
    tree that is being changed, those on the way are pointers. `changed` is the writer's mark.
    """

    __slots__ = ("changed", "children", "key_refs", "keys", "size_bytes")

    def __init__(
        self,
        keys: list[bytes | None],
        key_refs: list[bytes],
        children: list[ChildRef],
        size_bytes: int = 0,
    ) -> None:
        self.keys = keys
        self.key_refs = key_refs
        self.children = children
        self.size_bytes = size_bytes
        self.changed = False

    @classmethod
    def from_level(cls, level: Level) -> BTreeNode:
        """A node as it was read, its keys not loaded."""
        key_refs, children = level
        count = len(key_refs)
        size = _NODE_BYTES + count * _KEY_REF_BYTES + len(children) * _CHILD_BYTES
        return cls([None] * count, key_refs, list(children), size)

    @classmethod
    def empty(cls) -> BTreeNode:
        return cls([], [], [], _NODE_BYTES)

    def copy(self) -> BTreeNode:
        """A node of its own to change, over the same keys and children."""
        return BTreeNode(self.keys[:], self.key_refs[:], self.children[:], self.size_bytes)

    def set_key(self, position: int, key: bytes) -> int:
        """Remember a key that was read; returns by how many bytes the node grew."""
        self.keys[position] = key
        grown = _KEY_BYTES + len(key)
        self.size_bytes += grown
        return grown

    def measure(self) -> None:
        """Estimate `size_bytes` anew, after changes."""
        self.size_bytes = (
            _NODE_BYTES
            + len(self.keys) * (_KEY_REF_BYTES + _KEY_BYTES)
            + len(self.children) * _CHILD_BYTES
            + sum([len(key) for key in self.keys if key is not None])
        )

    def encode(self) -> bytes:
        """Encode as a level of a block."""
        children = [
            child if type(child) is bytes else child.ref  # type: ignore[union-attr]  # else a Pointer
            for child in self.children
        ]
        return encode_level(b"".join(self.key_refs), b"".join(children))

    def insert(
        self, position: int, key: bytes | None, key_ref: bytes, right: Pointer | None = None
    ) -> bool:
        """Insert a key, and the child right of it; returns whether the node must split."""
        self.keys.insert(position, key)
        self.key_refs.insert(position, key_ref)
        if right is not None:
            self.children.insert(position + 1, right)
        self.size_bytes += _KEY_REF_BYTES + _KEY_BYTES + _CHILD_BYTES + (len(key) if key else 0)
        return len(self.keys) > MAX_KEYS

    def replace_key(self, position: int, key: bytes | None, key_ref: bytes) -> None:
        self.keys[position] = key
        self.key_refs[position] = key_ref
        self.measure()

    def split(self) -> tuple[bytes | None, bytes, BTreeNode]:
        """Keep the lower half; returns the key in the middle, its ref, and the upper half."""
        middle = len(self.keys) - 1 - (len(self.keys) >> 1)
        right = BTreeNode(
            self.keys[middle + 1 :], self.key_refs[middle + 1 :], self.children[middle + 1 :]
        )
        key, key_ref = self.keys[middle], self.key_refs[middle]
        del self.keys[middle:], self.key_refs[middle:], self.children[middle + 1 :]
        self.measure()
        right.measure()
        self.changed = right.changed = True
        return key, key_ref, right

    def remove(self, position: int) -> None:
        """Remove a key, and in an inner node the child right of it."""
        del self.keys[position], self.key_refs[position]
        if self.children:
            freed = self.children.pop(position + 1)
            if isinstance(freed, Pointer):
                freed.seq = FREED
        self.measure()
        self.changed = True

    def borrow_left(self, parent: BTreeNode, position: int, left: BTreeNode) -> None:
        """Turn the tree right around the parent's key left of child `position`."""
        left.changed = True
        self.keys.insert(0, parent.keys[position - 1])
        self.key_refs.insert(0, parent.key_refs[position - 1])
        if left.children:
            self.children.insert(0, left.children.pop())
        parent.replace_key(position - 1, left.keys.pop(), left.key_refs.pop())
        self.measure()
        left.measure()

    def borrow_right(self, parent: BTreeNode, position: int, right: BTreeNode) -> None:
        """Turn the tree left around the parent's key right of child `position`."""
        right.changed = True
        self.keys.append(parent.keys[position])
        self.key_refs.append(parent.key_refs[position])
        if right.children:
            self.children.append(right.children.pop(0))
        parent.replace_key(position, right.keys.pop(0), right.key_refs.pop(0))
        self.measure()
        right.measure()

    def absorb(self, right: BTreeNode, parent: BTreeNode, position: int) -> None:
        """Take over the parent's key at `position` and all of the sibling right of it."""
        self.keys.append(parent.keys[position])
        self.key_refs.append(parent.key_refs[position])
        self.keys += right.keys
        self.key_refs += right.key_refs
        self.children += right.children
        self.measure()
        self.changed = True
        parent.remove(position)
