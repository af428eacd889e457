"""[disk] Our own core, when its newest head is lost and its blocks are not.

A head is a row of its own: without it a core is not opened any more, since whoever went on from
an older one would sign another history of the same fork. What is left may be all there was, and
be nowhere else. So it is signed anew, as a fork that has never been: that contradicts nothing, and
peers follow it, keeping what they have in common with it.
"""

from __future__ import annotations

import time
from dataclasses import replace

from hypercore import flat_tree
from hypercore.errors import CorruptStorage, NotWritable
from hypercore.log import Changeset, Head
from hypercore.merkle import MerkleNode, leaf_node, parent_node
from hypercore.storage import Storage
from hypercore.storage.catalog import Catalog
from hypercore.storage.core_storage import CoreStorage, make_verifier
from hypercore.storage.layout import AuthRecord, HeadRecord, Hints, auth_key
from hypercore.storage.records import decode_record


def carry_on(storage: Storage, discovery_key: bytes) -> int | None:
    """Sign a head for all that is here of our own core, if that is more than its head covers.

    Returns the length; None when the core is somebody else's or others sign it, too, when its head
    is not older than its tree, or something is missing. Raises: CorruptStorage, StorageFailed.
    """
    record = Catalog(storage).find(discovery_key)
    data = None if record is None else storage.get(auth_key(record.core_pointer))
    if record is None or data is None:
        return None
    auth = decode_record("keys", AuthRecord.decode, data)
    if auth.key_pair is None:
        return None
    rows = CoreStorage(storage, discovery_key, record)
    length = _length_of_tree(rows)
    old = _head_of(rows)
    if not length or (old is not None and length <= old.length):
        return None
    roots = [subtree(rows, index) for index in flat_tree.full_roots(length)]
    found = tuple(root for root in roots if root is not None)
    if len(found) < len(roots):
        return None
    # How often the log was cut is lost with the head: the time in seconds is more than that.
    fork = int(time.time()) if old is None else old.fork + 1
    head = Head(fork, length, sum(root.size for root in found), found)
    try:
        verifier = make_verifier(auth.key, auth.manifest, length)
        if verifier is None or verifier.manifest.quorum != 1:
            return None
        head = replace(head, signature=verifier.sign(head, auth.key_pair))
    except (NotWritable, ValueError):
        return None
    batch = storage.batch()
    rows.stage_changes(batch, Changeset(nodes=list(found)))
    rows.stage_head(batch, head)
    rows.stage_hints(batch, Hints())  # derived when it is opened; a new fork need not recover
    storage.commit(batch)
    return length


def _head_of(rows: CoreStorage) -> HeadRecord | None:
    """None also for a head that cannot be read."""
    data = rows.storage.get(rows.keys.head)
    try:
        return None if data is None else decode_record("head", HeadRecord.decode, data)
    except CorruptStorage:
        return None


def _length_of_tree(rows: CoreStorage) -> int:
    """The length of the log that ends with the last leaf of the tree."""
    start, stop = rows.keys.nodes()
    last = 0
    for key, _ in rows.storage.items(start, stop):
        index = decode_record("tree node", rows.keys.node_index, key)
        if not index & 1:
            last = (index >> 1) + 1
    return last


def subtree(rows: CoreStorage, index: flat_tree.TreeIndex) -> MerkleNode | None:
    """A tree node as stored, or from its children, or from its block."""
    try:
        node = rows.read_node(index)
        if node is not None:
            return node
        if not index & 1:
            block = rows.read_block(index >> 1)
            return None if block is None else leaf_node(index >> 1, block)
    except CorruptStorage:
        return None
    first, second = flat_tree.children(index)
    # One by one: in a log of which little is here, looking into both would never end.
    left = subtree(rows, first)
    right = None if left is None else subtree(rows, second)
    return None if left is None or right is None else parent_node(left, right)
