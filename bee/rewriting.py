"""Moving tree nodes out of blocks that are to be given up, into new ones.

A node lives in the block of the change that rewrote it last. To move it, one appended block brings
it again, with the way to it from the root. The key of that block tells nothing and is not in the
bee, as if it had been deleted: the original takes a block's word on its key wherever it meets one
of its nodes, and for the deletion of an absent key that is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, count
from typing import NamedTuple

from bee.changes import TreeChanges
from bee.descent import find, has_node
from bee.errors import CorruptTree
from bee.keyspace import Codec, K
from bee.log import Log
from bee.messages import NodeRecord, decode_levels, encode_level
from bee.node_reader import NodeReader, parse_record
from bee.protobuf import decode_varint, encode_varint
from bee.writer import Writer
from hypercore.encoding import DecodeError

REWRITTEN_AT_ONCE = 64
"""Nodes that one block brings because of where they live, the ways to them not counted.

Readers of one node pass all that come before it in its block.
"""

_EMPTY_KEYS = (b"", b'""')


class BroughtNode(NamedTuple):
    """A node that a block brought; `key` is one of its keys, `size_bytes` what it takes there."""

    ref: bytes
    key: bytes
    size_bytes: int


def brought_nodes(log: Log, seq: int, record: NodeRecord) -> Iterator[BroughtNode]:
    """The nodes that block `seq` brought, without those that are surely not in the tree now.

    Raises: CorruptTree.
    """
    try:
        levels = decode_levels(record.index)
    except DecodeError as error:
        raise CorruptTree(seq, str(error)) from error
    prefix = encode_varint(seq)
    for offset, level in enumerate(levels):
        # Usually the first will do: the blocks of all keys of a live node are here, unless the disk
        # has lost one.
        for key_ref in level.keys:
            key_seq = decode_varint(key_ref, 0)[0]
            block = log.get_local(key_seq)
            if block is not None:
                key = parse_record(key_seq, block).key
                size_bytes = len(encode_level(b"".join(level.keys), b"".join(level.children)))
                yield BroughtNode(prefix + encode_varint(offset), key, size_bytes)
                break


def is_needed(reader: NodeReader, log: Log, root: bytes, seq: int) -> bool:
    """Whether the tree names a block that is here. Raises: BlocksNeeded, CorruptTree."""
    record = reader.record(seq)
    found = find(reader, root, record.key)
    if found is not None and found[0] == seq:
        return True
    nodes = brought_nodes(log, seq, record)
    return any(has_node(reader, root, node.ref, node.key) for node in nodes)


class Mover:
    """Closes changes with blocks that bring nodes; `keys` is the codec of a reader's keys."""

    def __init__(self, keys: Codec[K]) -> None:
        self._empty_keys = [key for key in _EMPTY_KEYS if _is_decodable(keys, key)]

    async def close(self, writer: Writer) -> None:
        """Make the block that brings what was changed so far. Raises: CorruptTree."""
        # Zeros, one more each time, have no end: the first key that is not in the bee is taken.
        for key in chain(self._empty_keys, map(bytes, count())):
            if await writer.read(partial(TreeChanges.get, key=key)) is None:
                await writer.change(partial(TreeChanges.close, key=key))
                return


def may_bring(record: NodeRecord) -> bool:
    """Whether a `Mover` may have made the block. Then there is nothing in it to hide."""
    return record.value is None and not record.key.strip(b'\0"')


def _is_decodable(keys: Codec[K], key: bytes) -> bool:
    try:
        keys.decode(key)
    except ValueError:
        return False
    return True
