"""Where another fork of our log parts from ours, found with a hash request for each step.

A peer with a later fork proves its head from nothing (`verify_proof` over `EMPTY_HEAD`). From
its roots down we look for the leftmost subtree that we do not have: what lies before it is
common. Subtrees that we never stored count as different, so of a sparse log less may be kept
than could be, never more.

Source: hypercore 11.37.1 lib/merkle-tree.js ReorgBatch, lib/replicator.js (reorgs).
"""

from __future__ import annotations

from hypercore import flat_tree
from hypercore.errors import InvalidProof
from hypercore.log import Changeset, Head, NodeReader
from hypercore.merkle import MerkleNode
from hypercore.proof import HashProof, HashRequest, verify_hash_path


class ForkSearch:
    """The search for the common part of `ours` and a proven head of another fork.

    `proven` is what `verify_proof` returned for the peer's upgrade over an empty log, and
    `read_node` reads our tree, which must not change until the search ends.
    """

    def __init__(self, proven: Changeset, ours: Head, read_node: NodeReader) -> None:
        if proven.head is None:
            raise ValueError("the proof of another fork has no head")
        self._proven = proven
        self._head = proven.head
        self._our_length = ours.length
        self._read_node = read_node
        self._known = {node.index: node for node in proven.nodes}
        self._different: MerkleNode | None = None
        self._has_ended = False
        for root in proven.head.roots:
            if not self._is_ours(root):
                self._different = root
                self._descend()
                break

    def _is_ours(self, node: MerkleNode) -> bool:
        stored = self._read_node(node.index)
        return stored is not None and stored.hash == node.hash

    def _descend(self) -> None:
        """Go down while the children of what differs are known."""
        node = self._different
        while node is not None and node.index & 1:
            left_index, right_index = flat_tree.children(node.index)
            left, right = self._known.get(left_index), self._known.get(right_index)
            if left is None or right is None:
                break
            # When the left half is ours the difference is in the right, whatever we have there.
            node = right if self._is_ours(left) else left
        self._different = node

    @property
    def fork(self) -> int:
        """That of the other history."""
        return self._head.fork

    @property
    def common_length(self) -> int:
        """Blocks known to be common so far; final once `is_finished`."""
        if self._different is None:
            return min(self._head.length, self._our_length)
        return min(flat_tree.left_span(self._different.index) // 2, self._our_length)

    @property
    def is_finished(self) -> bool:
        different = self._different
        return (
            different is None
            or not different.index & 1
            or flat_tree.left_span(different.index) >= 2 * self._our_length
            or self._has_ended
        )

    @property
    def wanted(self) -> range:
        """Blocks any of which will do for the next request; empty when finished."""
        if self._different is None or self.is_finished:
            return range(0)
        start, stop = (
            flat_tree.left_span(self._different.index),
            flat_tree.right_span(self._different.index),
        )
        return range(start // 2, min(stop // 2 + 1, self._our_length))

    def request(self, block_index: int) -> HashRequest:
        """The next hash request, by way of a block of `wanted` that the peer has."""
        if self._different is None or block_index not in self.wanted:
            raise ValueError(f"block {block_index} is not in {self.wanted}")
        return HashRequest(2 * block_index, flat_tree.depth(self._different.index))

    def receive(self, proof: HashProof) -> None:
        """Take the answer to `request`.

        Raises: InvalidProof when it does not lead to the subtree that differs.
        """
        if self._different is None or self.is_finished:
            raise InvalidProof("a hash that nobody asked for", proof.index)
        before = self._different
        nodes = verify_hash_path(proof, before)
        self._known.update((node.index, node) for node in nodes)
        self._descend()
        if self._different is before:
            # Every answer goes a level down, so a peer cannot keep us searching.
            raise InvalidProof("a hash path that starts too high", proof.index)

    def end(self) -> None:
        """Look no further: all of what differs counts as different."""
        self._has_ended = True

    def changeset(self) -> Changeset:
        """Our log cut back to the common part, then the other fork's head in its place."""
        if not self.is_finished:
            raise ValueError("the search has not ended")
        return Changeset(
            head=self._head,
            nodes=list(self._known.values()),
            blocks=self._proven.blocks,
            manifest=self._proven.manifest,
            truncated_to=self.common_length,
        )
