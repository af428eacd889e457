"""The key beside a place in a tree that may be changing: one descent, nothing remembered."""

from __future__ import annotations

from collections.abc import Sequence

from bee.btree import MAX_DEPTH, ChildRef
from bee.descent import locate, locate_open, too_deep
from bee.keyspace import KeyRange
from bee.node_reader import NodeReader
from bee.protobuf import decode_varint


def first_of(reader: NodeReader, root: ChildRef, key_range: KeyRange) -> int | None:
    """Seq of the key with which the range begins, or of one that is past its end.

    None when there is no key from there on. Raises: BlocksNeeded, CorruptTree.
    """
    bound, is_included = key_range.first
    nearest: bytes | None = None
    child, parent_ref = root, b""
    for _ in range(MAX_DEPTH):
        key_refs: Sequence[bytes]
        children: Sequence[ChildRef]
        if isinstance(child, bytes):
            node = reader.node(child, parent_ref)
            _, key_refs, children, _ = node
            place = (0, False) if bound is None else locate(reader, child, node, bound)
            parent_ref = child
        else:
            key_refs, children = child.key_refs, child.children
            place = (0, False) if bound is None else locate_open(reader, child, bound)
        position, is_there = place
        if is_there and is_included:
            return decode_varint(key_refs[position], 0)[0]
        if key_range.reverse:
            position = len(key_refs) if bound is None else position
            nearest = key_refs[position - 1] if position else nearest
        else:
            position += is_there
            nearest = key_refs[position] if position < len(key_refs) else nearest
        if not children:
            return None if nearest is None else decode_varint(nearest, 0)[0]
        child = children[position]
    raise too_deep(parent_ref)
