"""One node of the B-tree: what it holds, and how it splits, borrows and merges.

A node has up to 8 keys, a ninth splits it; one below 4 borrows from a sibling or merges.
The keys themselves live in the blocks that put them: a node names those blocks.

References stay as they are encoded in blocks: a *key ref* is the varint of a seq, a *child
ref* the varints of (seq, offset). They are compared and copied as such, are the keys of the
node cache, and a changed node is encoded by joining them.

A node that is read is plain tuples (`BTreeNode`): the garbage collector stops looking at those. To
look at 25,000 cached nodes took a third of the time of a batch. A node that is being changed is an
`OpenNode`.

Source: hyperbee 2.27.3 index.js; the choices that show in the bytes (which half a split
keeps, whom to borrow from first) are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bee.messages import encode_level

MIN_KEYS = 4
MAX_KEYS = 8

MAX_DEPTH = 32
"""Deeper than any tree of 2**53 keys: a node has at least four."""

FREED = 0
"""Seq of a node that is in no block, or was merged away; block 0 is the header, never a node."""

_NODE_BYTES = 400
KEY_REF_BYTES = 48
CHILD_BYTES = 48
KEY_BYTES = 33

Keys = tuple[bytes | None, ...]
Refs = tuple[bytes, ...]

BTreeNode = tuple[Keys, Refs, Refs, int]
"""Keys in order, their refs, the refs of the children between them (none in a leaf), and
what all of it takes in bytes, roughly. A key is None until its block was read."""


def new_node(keys: Iterable[bytes | None], key_refs: Iterable[bytes], children: Refs) -> BTreeNode:
    keys = tuple(keys)
    key_refs = tuple(key_refs)
    size = _NODE_BYTES + len(key_refs) * KEY_REF_BYTES + len(children) * CHILD_BYTES
    for key in keys:
        if key is not None:
            size += KEY_BYTES + len(key)
    return keys, key_refs, children, size


def with_keys(node: BTreeNode, keys: Sequence[bytes | None]) -> BTreeNode:
    """The same node with more of its keys known."""
    before, key_refs, children, size = node
    for old, new in zip(before, keys, strict=True):
        if old is not new and new is not None:
            size += KEY_BYTES + len(new)
    return tuple(keys), key_refs, children, size


_NO_KEYS = tuple((None,) * count for count in range(MAX_KEYS + 1))


def fresh_node(
    own: bytes, key: bytes, key_refs: Sequence[bytes], children: Sequence[bytes]
) -> BTreeNode:
    """A node as it is read: of up to `MAX_KEYS` keys only `key` is known, whose ref is `own`."""
    count = len(key_refs)
    size = _NODE_BYTES + count * KEY_REF_BYTES + len(children) * CHILD_BYTES
    if own not in key_refs:
        return _NO_KEYS[count], tuple(key_refs), tuple(children), size
    place = key_refs.index(own)
    keys = (*_NO_KEYS[place], key, *_NO_KEYS[count - place - 1])
    return keys, tuple(key_refs), tuple(children), size + KEY_BYTES + len(key)


class OpenNode:
    """A node that is being changed; it takes the place of its ref in the parent.

    It stays one object wherever it moves: batches lay out their blocks by asking each node which
    block it is in. These objects live as long as the batch, and the garbage collector goes through
    all of them again and again: so a node is one object and two lists, three if it has children.
    """

    __slots__ = ("changed", "children", "key_refs", "keys", "origin", "ref", "seq", "size")

    def __init__(
        self,
        keys: list[bytes | None],
        key_refs: list[bytes],
        children: list[ChildRef],
        size: int = 0,
        origin: bytes | None = None,
    ) -> None:
        self.keys = keys
        self.key_refs = key_refs
        self.children = children or NO_CHILDREN
        """Encoded refs, or the nodes themselves where they are open, too."""
        self.changed = False
        """The writer's mark."""
        self.size = size
        """As in `BTreeNode`; 0 when it has to be counted anew."""
        self.origin = origin
        """The ref it had before anything changed; None for a new node and for the root."""
        self.ref = origin or b""
        """Where it is, as far as that is known by now."""
        self.seq = FREED
        """Which of the blocks to be appended has it."""

    @classmethod
    def of(cls, node: BTreeNode, ref: bytes | None) -> OpenNode:
        return cls(list(node[0]), list(node[1]), list(node[2]), node[3], ref)

    def twin(self) -> OpenNode:
        """The same node in another place of the tree: what is done to either is done to both."""
        twin = OpenNode(self.keys, self.key_refs, self.children)
        twin.changed = self.changed
        return twin

    def _child_refs(self) -> list[bytes]:
        return [child if type(child) is bytes else child.ref for child in self.children]  # type: ignore[union-attr]  # else it is a node

    def encode(self) -> bytes:
        """Encode as a level of a block."""
        children = b"".join(self._child_refs()) if self.children else b""
        return encode_level(b"".join(self.key_refs), children)

    def close(self) -> BTreeNode:
        """The node as it was encoded last."""
        children = tuple(self._child_refs())
        if self.size:
            return tuple(self.keys), tuple(self.key_refs), children, self.size
        return new_node(self.keys, self.key_refs, children)

    def insert(
        self, position: int, key: bytes | None, key_ref: bytes, right: OpenNode | None = None
    ) -> bool:
        """Insert a key, and the child right of it; returns whether the node must split."""
        self.keys.insert(position, key)
        self.key_refs.insert(position, key_ref)
        if right is not None:
            self.children.insert(position + 1, right)
        if self.size and key is not None:
            self.size += KEY_REF_BYTES + CHILD_BYTES + KEY_BYTES + len(key)
        return len(self.keys) > MAX_KEYS

    def replace_key(self, position: int, key: bytes | None, key_ref: bytes) -> None:
        self.keys[position] = key
        self.key_refs[position] = key_ref
        self.size = 0

    def split(self) -> tuple[bytes | None, bytes, OpenNode]:
        """Keep the lower half; returns the key in the middle, its ref, and the upper half."""
        middle = len(self.keys) - 1 - (len(self.keys) >> 1)
        right = OpenNode(
            self.keys[middle + 1 :], self.key_refs[middle + 1 :], self.children[middle + 1 :]
        )
        key, key_ref = self.keys[middle], self.key_refs[middle]
        del self.keys[middle:], self.key_refs[middle:], self.children[middle + 1 :]
        self.changed = right.changed = True
        self.size = 0
        return key, key_ref, right

    def remove(self, position: int) -> None:
        """Remove a key, and in an inner node the child right of it."""
        del self.keys[position], self.key_refs[position]
        if self.children:
            freed = self.children.pop(position + 1)
            if isinstance(freed, OpenNode):
                freed.seq = FREED
        self.changed = True
        self.size = 0

    def borrow_left(self, parent: OpenNode, position: int, left: OpenNode) -> None:
        """Turn the tree right around the parent's key left of child `position`."""
        left.changed = True
        self.size = left.size = 0
        self.keys.insert(0, parent.keys[position - 1])
        self.key_refs.insert(0, parent.key_refs[position - 1])
        if left.children:
            self.children.insert(0, left.children.pop())
        parent.replace_key(position - 1, left.keys.pop(), left.key_refs.pop())

    def borrow_right(self, parent: OpenNode, position: int, right: OpenNode) -> None:
        """Turn the tree left around the parent's key right of child `position`."""
        right.changed = True
        self.size = right.size = 0
        self.keys.append(parent.keys[position])
        self.key_refs.append(parent.key_refs[position])
        if right.children:
            self.children.append(right.children.pop(0))
        parent.replace_key(position, right.keys.pop(0), right.key_refs.pop(0))

    def absorb(self, right: OpenNode, parent: OpenNode, position: int) -> None:
        """Take over the parent's key at `position` and all of the sibling right of it."""
        self.keys.append(parent.keys[position])
        self.key_refs.append(parent.key_refs[position])
        self.keys += right.keys
        self.key_refs += right.key_refs
        self.children += right.children
        self.changed = True
        self.size = 0
        parent.remove(position)


ChildRef = bytes | OpenNode

NO_CHILDREN: list[ChildRef] = []
"""Shared by all leaves: none of them ever gets a child."""
