"""One put that is an append of its own, where no node has to split: most puts of most bees.

What `TreeChanges` does for any changes costs a mutable copy of every node on the way. Here the
new nodes share the tuples of the old ones but for what differs. The block is the same.

Measured with 4,000 keys and values of 300 bytes, four of five puts of this kind: 162 us of CPU
a put, of which two thirds are the log's, instead of 174.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from bee.btree import CHILD_BYTES, KEY_BYTES, KEY_REF_BYTES, MAX_DEPTH, MAX_KEYS, BTreeNode
from bee.descent import too_deep
from bee.messages import encode_level, encode_record
from bee.node_reader import NodeReader, root_ref
from bee.protobuf import encode_varint


class LonePut(NamedTuple):
    """The block to append, the nodes that it brings, and the refs of those they replace."""

    block: bytes
    brought: list[tuple[bytes, BTreeNode]]
    replaced: list[bytes]


def plan_put(reader: NodeReader, version: int, key: bytes, value: bytes | None) -> LonePut | None:
    """The put of `key` after `version`; None where a node would split, or the tree is empty.

    Raises: BlocksNeeded, CorruptTree.
    """
    ref = root = root_ref(version)
    if not root:
        return None
    above: list[tuple[BTreeNode, int]] = []
    replaced: list[bytes] = []
    parent_ref = b""
    while True:
        node = reader.node(ref, parent_ref)
        try:
            position = bisect_left(node[0], key)  # type: ignore[type-var]  # as in `locate`
        except TypeError:
            position, _, node = reader.search_cached(ref, node, key)
        keys, key_refs, children, size = node
        replaced.append(ref)
        if position < len(keys) and keys[position] == key:
            key_refs = (*key_refs[:position], encode_varint(version), *key_refs[position + 1 :])
            break
        if not children:
            if len(keys) == MAX_KEYS:
                return None
            keys = (*keys[:position], key, *keys[position:])
            key_refs = (*key_refs[:position], encode_varint(version), *key_refs[position:])
            size += KEY_REF_BYTES + CHILD_BYTES + KEY_BYTES + len(key)
            break
        if len(replaced) > MAX_DEPTH:
            raise too_deep(ref)
        above.append((node, position))
        # A block names only itself and older ones: as long as it does, nothing goes in circles.
        parent_ref, ref = root, children[position]
    prefix = encode_varint(version)
    offset = len(above)
    own_ref = prefix + encode_varint(offset)
    levels = [encode_level(b"".join(key_refs), b"".join(children))]
    brought: list[tuple[bytes, BTreeNode]] = [(own_ref, (keys, key_refs, children, size))]
    while above:
        (keys, key_refs, children, size), position = above.pop()
        children = (*children[:position], own_ref, *children[position + 1 :])
        offset -= 1
        own_ref = prefix + encode_varint(offset)
        levels.append(encode_level(b"".join(key_refs), b"".join(children)))
        brought.append((own_ref, (keys, key_refs, children, size)))
    levels.reverse()
    return LonePut(encode_record(b"".join(levels), key, value), brought, replaced)
