"""A log in dictionaries: the simplest thing that can be replicated."""

from __future__ import annotations

from collections.abc import Sequence

from hypercore import log
from hypercore.bitfield import Bitfield
from hypercore.crypto import KeyPair, discovery_key
from hypercore.encoding import Reader
from hypercore.fork_proof import ForkProof
from hypercore.log import EMPTY_HEAD, Changeset, Head, stale_nodes
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode, decode_node, encode_node
from hypercore.verifier import Verifier


class MemoryLog:
    """`commits` counts them; with `is_lazy` nothing is durable before `make_durable`."""

    def __init__(
        self, key_pair: KeyPair | None = None, key: bytes | None = None, *, is_lazy: bool = False
    ) -> None:
        self.key_pair = key_pair
        self.manifest: Manifest | None = None
        self.verifier: Verifier | None = None
        if key_pair is not None:
            self.manifest = Manifest.single_signer(key_pair.public_key)
            key = self.manifest.key
            self.verifier = Verifier(key, self.manifest)
        assert key is not None
        self.key = key
        self.discovery_key = discovery_key(key)
        self.is_writable = key_pair is not None
        self.is_lazy = is_lazy
        self.head: Head = EMPTY_HEAD
        self.durable_length = 0
        self.bitfield = Bitfield()
        self.nodes: dict[int, MerkleNode] = {}
        self.blocks: dict[int, bytes] = {}
        self.commits = 0
        self.fork_proof: ForkProof | None = None
        self._remote_contiguous_length = 0

    @property
    def contiguous_length(self) -> int:
        return min(self.bitfield.first_unset(), self.head.length)

    def read_node(self, index: int) -> MerkleNode | None:
        return self.nodes.get(index)

    def encoded_nodes(self, indices: Sequence[int]) -> list[bytes | None]:
        nodes = [self.read_node(index) for index in indices]
        return [None if node is None else encode_node(node) for node in nodes]

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        return [self.blocks.get(index) for index in indices]

    @property
    def takes_more(self) -> bool:
        return self.fork_proof is None

    def mark_frozen(self, proof: ForkProof) -> None:
        self.fork_proof = proof
        self.is_writable = False

    def commit(self, changesets: Sequence[Changeset]) -> None:
        self.commits += 1
        for changes in changesets:
            if changes.truncated_to is not None:
                self._cut(changes.truncated_to)
            for node in changes.nodes:
                self.nodes[node.index] = node
            for index, encoded in changes.encoded_nodes.items():
                self.nodes[index] = node = decode_node(Reader(encoded))
                assert encode_node(node) == encoded
                assert node.index == index
            for index, block in changes.blocks:
                self.blocks[index] = block
                self.bitfield.set_range(index, index + 1)
            if changes.manifest is not None and self.manifest is None:
                self.manifest = changes.manifest
                self.verifier = Verifier(self.key, changes.manifest)
            if changes.head is not None:
                if changes.head.fork != self.head.fork:
                    self.durable_length = -1
                self.head = changes.head
        if not self.is_lazy:
            self.make_durable()

    @property
    def remote_contiguous_length(self) -> int:
        return min(self._remote_contiguous_length, self.head.length)

    def note_remote_contiguous(self, length: int) -> None:
        self._remote_contiguous_length = max(self._remote_contiguous_length, length)

    def _cut(self, length: int) -> None:
        self._remote_contiguous_length = min(self._remote_contiguous_length, length)
        for index in [index for index in self.blocks if index >= length]:
            del self.blocks[index]
        self.bitfield.set_range(length, self.head.length, False)
        stale = set(stale_nodes(length))
        for index in [index for index in self.nodes if index >= 2 * length or index in stale]:
            del self.nodes[index]

    def make_durable(self) -> None:
        self.durable_length = self.head.length

    def append(self, blocks: Sequence[bytes]) -> None:
        self.commit([log.append(self.head, blocks, self._sign)])

    def truncate(self, length: int) -> None:
        head = self.head
        self.commit([log.truncate(head, length, head.fork + 1, self.read_node, self._sign)])

    def clear(self, start: int, stop: int) -> None:
        """Drop blocks, keep their place in the tree."""
        for index in range(start, stop):
            self.blocks.pop(index, None)
        self.bitfield.set_range(start, stop, False)

    def _sign(self, head: Head) -> bytes:
        assert self.key_pair is not None
        assert self.verifier is not None
        return self.verifier.sign(head, self.key_pair)
