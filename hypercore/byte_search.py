"""[trio] Finding the block at a byte offset, here or with what peers know."""

from __future__ import annotations

from typing import Protocol

from hypercore import flat_tree
from hypercore.errors import BlockNotAvailable, OutOfRange, SnapshotNotAvailable
from hypercore.given_blocks import check_numbers
from hypercore.handle import Handle
from hypercore.log import Head
from hypercore.merkle import MerkleNode
from hypercore.seek import BytePosition, locate


class Tree(Protocol):
    """What is searched: the log as it is (`StoredLog`), or a part that is kept as it was."""

    @property
    def head(self) -> Head: ...

    def read_node(self, index: int) -> MerkleNode | None: ...


async def find_byte(handle: Handle, tree: Tree, offset: int, *, wait: bool) -> BytePosition:
    """Where byte `offset` is; at the end of the tree, where the next one would be.

    Where nodes are missing, peers tell the way, and the block they lead to is fetched: it proves
    its place. Beyond the end of a log that others write, it waits until the log is that long.

    Raises: OutOfRange, BlockNotAvailable without `wait`, in a read-only store (and in our own
    log, where nodes were pruned), SnapshotNotAvailable. Cancel: takes the request back.
    """
    check_numbers("the offset of a byte", offset)
    log = handle.log
    shared = handle.shared
    padding = 0 if shared.cipher is None else shared.cipher.padding
    wait = wait and handle.can_fetch
    while True:
        handle.check_open()
        place = locate(tree.head.roots, offset, padding, tree.read_node)
        if isinstance(place, BytePosition):
            await handle.spend(1)
            return place
        handle.check()
        if offset < 0 or (place is None and (log.is_writable or handle.history is not None)):
            raise OutOfRange(offset, shared.byte_length(tree.head), "byte")
        if place is None:
            if not wait:
                raise BlockNotAvailable(tree.head.length)
            await handle.wait_length(tree.head.length + 1)
            continue
        first, stop = flat_tree.left_span(place) // 2, flat_tree.right_span(place) // 2 + 1
        if handle.history is not None and handle.history.intact_length < stop:
            raise SnapshotNotAvailable(first, handle.history.intact_length)
        if not wait or log.is_writable:
            raise BlockNotAvailable(first)
        block = await handle.search(offset, padding, stop)
        if block is not None and not log.bitfield.get(block):
            await handle.fetch((block,), wait=True)
