"""Writers that sign whatever they like: a signature takes no blocks, and no truth.

What they sign is committed to a core of theirs, which checks nothing, and replicated from there
like any other.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from hypercore import log
from hypercore.crypto import KeyPair
from hypercore.encoding import MAX_UINT
from hypercore.flat_tree import TreeIndex, full_roots, sibling
from hypercore.log import Changeset, Head
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, leaf_node, parent_node
from hypercore.verifier import Verifier

BLOCK = b"the one that is there"
LENGTHS = (1, 10, 100, 2**16 + 1, 2**26 + 1, 2**32 + 7, 2**40, 2**45, 2**45 + 3, MAX_UINT // 2)
SIZES = (0, 1, 2**30, 2**40)
_UNREADABLE = ((2**52, 1), (MAX_UINT, 1), (10, MAX_UINT))
"""Lengths, and sizes of roots, that no encoding has room for."""


class HostileWriter:
    """Signs with one key pair; `seed` decides what."""

    def __init__(self, key_pair: KeyPair, seed: int = 0) -> None:
        self.manifest = Manifest.single_signer(key_pair.public_key)
        self.key = self.manifest.key
        self._key_pair = key_pair
        self._verifier = Verifier(self.key, self.manifest)
        self._random = random.Random(seed)

    def sign(self, head: Head) -> bytes:
        return self._verifier.sign(head, self._key_pair)

    def claim(self, length: int, size: int = 1, fork: int = 0, salt: int = 0) -> Changeset:
        """A head of so many blocks, in place of whatever there was, with the first one of them.

        `size` is that of each root but the first, and of all that the first is made of.
        """

        def node_at(index: TreeIndex) -> MerkleNode:
            return MerkleNode(index, size, (2 * index + salt).to_bytes(32))

        first, *others = full_roots(length)
        top = leaf_node(0, BLOCK)
        nodes = [top]
        while top.index != first:
            other = node_at(sibling(top.index))
            top = parent_node(top, other)
            nodes += [other, top]
        roots = [top, *map(node_at, others)]
        head = Head(fork, length, sum(root.size for root in roots), tuple(roots))
        head = replace(head, signature=self.sign(head))
        return Changeset(head, [*nodes, *roots], [(0, BLOCK)], self.manifest, truncated_to=0)

    def misjudge(self, size: int) -> Changeset:
        """A head of one block, of which another size is signed than it has."""
        root = leaf_node(0, BLOCK)._replace(size=size)
        head = Head(0, 1, size, (root,))
        head = replace(head, signature=self.sign(head))
        return Changeset(head, [root], [(0, BLOCK)], self.manifest, truncated_to=0)

    def grow(self, head: Head) -> Changeset:
        """Real blocks, also large ones, after what is not there."""
        sizes = self._random.choice(([0], [1, 100, 1000], [4 << 20]))
        return log.append(head, [bytes(size) for size in sizes], self.sign)

    def unreadable(self) -> Iterator[Changeset]:
        """What nobody takes."""
        for fork, (length, size) in enumerate(_UNREADABLE):
            yield self.claim(length, size, fork)

    def absurdities(self) -> Iterator[Changeset]:
        """Each length with some size, fork after fork."""
        for fork, length in enumerate(LENGTHS, len(_UNREADABLE)):
            yield self.claim(length, self._random.choice(SIZES), fork)

    def next(self, head: Head) -> Changeset:
        """Something else than `head`: longer, shorter, of a fork above or below."""
        if head.length and 2 * head.length < MAX_UINT and self._random.random() < 0.5:
            return self.grow(head)
        fork = max(0, head.fork + self._random.choice((-1, 0, 1, 1, 1)))
        length, size = self._random.choice(LENGTHS), self._random.choice(SIZES)
        return self.claim(length, size, fork, self._random.randrange(2))
