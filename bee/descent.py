"""Walking down the tree: plain functions over cached nodes, which say what they lack.

A read is a function of a `NodeReader`. It runs without waiting, and raises `BlocksNeeded`
when a block is not here; `Tree.read` fetches those and starts it again from the top, which
costs microseconds: what was passed is in the cache. So the hot path has no coroutines.

How many blocks a read of a remote log fetches, and in how many round trips: at each tree
node a binary search looks at three keys or fewer of up to eight. Where peers have hinted at
what the read will need, only the keys looked at are fetched, and they are on the way
already. Otherwise all keys of the node are asked for at once: more blocks, one round trip.
"""

from __future__ import annotations

from bisect import bisect_left

from bee.btree import FREED, MAX_DEPTH, BTreeNode, ChildRef, OpenNode
from bee.errors import CorruptTree
from bee.node_reader import BlocksNeeded, KeyValue, NodeReader, parse_entry
from bee.protobuf import decode_varint


def locate(reader: NodeReader, ref: bytes, node: BTreeNode, key: bytes) -> tuple[int, bool]:
    """Index of the first key of a node that is not less than `key`; whether it is equal."""
    keys = node[0]
    try:
        # A key not loaded yet is None, and comparing with it raises TypeError.
        position = bisect_left(keys, key)  # type: ignore[type-var]
    except TypeError:
        position, _, node = reader.search_cached(ref, node, key)
        keys = node[0]
    return position, position < len(keys) and keys[position] == key


def locate_open(reader: NodeReader, node: OpenNode, key: bytes) -> tuple[int, bool]:
    """`locate` in a node that is being changed."""
    keys = node.keys
    try:
        position = bisect_left(keys, key)  # type: ignore[type-var]  # as in locate
    except TypeError:
        position = reader.search(keys, node.key_refs, key)[0]
    return position, position < len(keys) and keys[position] == key


Found = tuple[int, KeyValue | None]
"""Seq of the block that a key is in, and what that block holds if it was read on the way."""

Stored = tuple[int, bytes, bytes | None]
"""Seq, key and value of an entry, the latter two as they are stored."""


def find(reader: NodeReader, root: ChildRef, key: bytes) -> Found | None:
    """Find the block that holds `key` below `root`. Raises: BlocksNeeded, CorruptTree."""
    child = root
    while not isinstance(child, bytes):  # nodes that are being changed are above all others
        position, is_there = locate_open(reader, child, key)
        if is_there:
            return decode_varint(child.key_refs[position], 0)[0], None
        if not child.children:
            return None
        child = child.children[position]
    return find_closed(reader, child, key)


def find_closed(reader: NodeReader, ref: bytes, key: bytes) -> Found | None:
    """`find` below a node that is not being changed."""
    parent_ref = b""
    below = above = None
    cache = reader.cache
    young = cache.young
    for _ in range(MAX_DEPTH):
        node = young.get(ref)
        home, block = FREED, b""
        if node is None:
            # Where this block is about `key` itself, the original ends here, with what the block
            # says. But the block of a key that was deleted later may have brought a node that is on
            # the way to the key's place only since then.
            node = cache.get(ref)
            if node is None:
                node, block, home = reader.load(ref, parent_ref)
            young = cache.young
        keys, key_refs, children, _ = node
        try:
            position = bisect_left(keys, key)  # type: ignore[type-var]  # as in locate
        except TypeError:
            if not children:
                return reader.search_leaf(ref, node, key, below, above, (home, block))
            position, held, node = reader.search_cached(ref, node, key)
            if held is not None:
                return decode_varint(key_refs[position], 0)[0], held
            young = cache.young
            keys = node[0]
        if position < len(keys):
            above = keys[position]
            if above == key:
                seq = decode_varint(key_refs[position], 0)[0]
                # Usually a leaf lives in the block of the key that was put last in it.
                return seq, parse_entry(seq, block) if seq == home else None
        if not children:
            return None
        if position:
            below = keys[position - 1]
        parent_ref, ref = ref, children[position]
    raise too_deep(parent_ref)


def look_up(reader: NodeReader, root: bytes, key: bytes) -> Stored | None:
    """What the tree below `root` holds under `key`. Raises: BlocksNeeded, CorruptTree."""
    found = find_closed(reader, root, key)
    if found is None:
        return None
    seq, held = found
    if held is None:
        block = reader.block(seq)
        if block is None:
            raise BlocksNeeded((seq,))
        held = parse_entry(seq, block)
        if held[0] != key:
            raise CorruptTree(seq, "another key than its tree node says")
    return seq, key, held[1]


def too_deep(ref: bytes) -> CorruptTree:
    """The error of a descent that came as far as the node at `ref`."""
    return CorruptTree(decode_varint(ref, 0)[0], f"tree deeper than {MAX_DEPTH}")


def shared_nodes(ref: bytes) -> CorruptTree:
    """The error of a walk that met a child of the node at `ref` for the second time."""
    return CorruptTree(decode_varint(ref, 0)[0], "tree nodes shared within a tree")


def has_node(reader: NodeReader, root: bytes, ref: bytes, key: bytes) -> bool:
    """Whether the node at `ref`, of which `key` is one key, is `root` or below it.

    Raises: BlocksNeeded, CorruptTree.
    """
    child, parent_ref = root, b""
    for _ in range(MAX_DEPTH):
        if child == ref:
            return True
        node = reader.node(child, parent_ref)
        position, is_there = locate(reader, child, node, key)
        if is_there or not node[2]:
            return False
        child, parent_ref = node[2][position], child
    raise too_deep(child)
