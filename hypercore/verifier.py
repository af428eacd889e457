"""Signatures of a log: what is signed, how they are stored, and whether one is valid.

Stored signature, version 1 of the manifest and up: array of (uint signer, 64 bytes, uint patch
length), then array of tree nodes; for one signer `01 00` + 64 bytes + `00 00`. A *compat* core,
whose key is the signer's public key itself, and a version 0 core of one signer store the bare 64
bytes.

Source: hypercore 11.37.1 lib/verifier.js, lib/multisig.js, lib/caps.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hypercore import crypto, flat_tree
from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError, Reader, encode_array, encode_uint, encode_uint64
from hypercore.errors import NotWritable
from hypercore.manifest import TREE, Manifest, Prologue, Signer
from hypercore.merkle import MerkleNode, append_root, decode_node, encode_node, tree_hash


class UnsignedHead(Protocol):
    """What a signature covers; `hypercore.log.Head` is one."""

    @property
    def fork(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def roots(self) -> Sequence[MerkleNode]: ...
    @property
    def tree_hash(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PartialSignature:
    """One signer's part of a multisignature.

    With a patch the signer signed a log that is `patch_length` blocks longer, and `nodes` are
    the subtrees (`flat_tree.growth`) that lead there.
    """

    signer: int
    signature: bytes
    patch_length: int = 0
    nodes: Sequence[MerkleNode] = ()


class Verifier:
    """Checks and makes the signatures of one core.

    Raises: InvalidManifest when `manifest` is not the one that `key` stands for.
    """

    __slots__ = ("is_compat", "key", "manifest")

    def __init__(self, key: bytes, manifest: Manifest) -> None:
        manifest.check_key(key)
        self.key = key
        self.manifest = manifest
        self.is_compat = manifest.is_compat(key)

    @property
    def prologue(self) -> Prologue | None:
        return None if self.is_compat else self.manifest.prologue

    @property
    def quorum(self) -> int:
        """How many signers must sign."""
        return 1 if self.is_compat else self.manifest.quorum

    @property
    def is_bare(self) -> bool:
        """Whether signatures are stored as their bare 64 bytes."""
        manifest = self.manifest
        return self.is_compat or (
            manifest.version == 0 and len(manifest.signers) == 1 and not manifest.allow_patch
        )

    def verify(self, head: UnsignedHead, signature: bytes) -> bool:
        """Whether `signature`, as stored or sent, makes `head` valid."""
        if self.is_bare:
            signer = self.manifest.signers[0]
            return crypto.verify(self._signable(head, signer), signature, signer.public_key)
        prologue = self.manifest.prologue
        if self.manifest.version > 0 and prologue is not None and head.length <= prologue.length:
            return head.length == prologue.length and head.tree_hash == prologue.hash
        try:
            parts = self.disassemble(signature)
        except DecodeError:
            return False
        return self._is_quorum(head, parts)

    def _is_quorum(self, head: UnsignedHead, parts: Sequence[PartialSignature]) -> bool:
        manifest = self.manifest
        if manifest.quorum == 0 or len(parts) < manifest.quorum:
            return False
        signed: set[int] = set()
        # Only the first `quorum` parts count, as in JS: the verdict must not depend on the peer.
        for part in parts[: manifest.quorum]:
            if part.signer in signed or not self.verify_part(head, part):
                return False
            signed.add(part.signer)
        return True

    def verify_part(self, head: UnsignedHead, part: PartialSignature) -> bool:
        """Whether this is what one signer contributes to a signature of `head`."""
        manifest = self.manifest
        if not 0 <= part.signer < len(manifest.signers):
            return False
        signer = manifest.signers[part.signer]
        grown: UnsignedHead | None = head
        if part.patch_length and manifest.allow_patch:
            grown = _patched(head, part)
        return grown is not None and crypto.verify(
            self._signable(grown, signer), part.signature, signer.public_key
        )

    def trimmed(self, head: UnsignedHead, signature: bytes) -> bytes:
        """A valid signature without what no signer makes, which may be of any length.

        That is more parts than there are signers, nodes of no patch, and bytes at the end.
        """
        if self.is_bare:
            return signature
        parts = []
        for part in self.disassemble(signature)[: len(self.manifest.signers)]:
            used = set(flat_tree.growth(head.length, head.length + part.patch_length))
            # Of two nodes with one index the later counts, as in `verify`.
            by_index = {node.index: node for node in part.nodes}
            nodes = [node for node in by_index.values() if node.index in used]
            patch_length = part.patch_length if nodes else 0
            parts.append(PartialSignature(part.signer, part.signature, patch_length, nodes))
        return self.assemble(parts)

    def sign(self, head: UnsignedHead, key_pair: KeyPair) -> bytes:
        """The signature as it is stored and sent; where others must sign, too, the bare 64 bytes.

        Raises: NotWritable when the key pair is not a signer's.
        """
        for index, signer in enumerate(self.manifest.signers):
            if signer.public_key == key_pair.public_key:
                signature = crypto.sign(self._signable(head, signer), key_pair.secret_key)
                if self.is_bare or self.manifest.quorum != 1:
                    return signature
                return self.assemble([PartialSignature(index, signature)])
        raise NotWritable(f"public key {key_pair.public_key.hex()} is not a signer of this core")

    def signer_index(self, public_key: bytes) -> int:
        """Which signer has this public key. Raises: NotWritable when none has."""
        for index, signer in enumerate(self.manifest.signers):
            if signer.public_key == public_key:
                return index
        raise NotWritable(f"public key {public_key.hex()} is not a signer of this core")

    def signable(self, head: UnsignedHead, signer: int = 0) -> bytes:
        """What a signer signs. From version 1 on the same for all signers."""
        return self._signable(head, self.manifest.signers[signer])

    def _signable(self, head: UnsignedHead, signer: Signer) -> bytes:
        numbers = encode_uint64(head.length) + encode_uint64(head.fork)
        if self.is_compat:
            return TREE + head.tree_hash + numbers
        context = signer.namespace if self.manifest.version == 0 else self.key
        return TREE + context + head.tree_hash + numbers

    def assemble(self, parts: Sequence[PartialSignature]) -> bytes:
        """The multisignature of all these parts, in their order.

        With one part, it is the form in which signers send theirs to whoever collects them.
        """
        nodes: dict[int, MerkleNode] = {}
        for part in parts:
            for node in part.nodes:
                nodes.setdefault(node.index, node)
        if self.manifest.version == 0:
            places = {index: place for place, index in enumerate(nodes)}
            encoded = [_encode_part_version_0(part, places) for part in parts]
        else:
            encoded = [
                encode_uint(part.signer) + part.signature + encode_uint(part.patch_length)
                for part in parts
            ]
        return encode_array(encoded) + encode_array(map(encode_node, nodes.values()))

    def disassemble(self, signature: bytes) -> list[PartialSignature]:
        """The parts of a multisignature; each has all the nodes, its own and the others'.

        Raises: DecodeError.
        """
        reader = Reader(signature)
        decode = _decode_part_version_0 if self.manifest.version == 0 else _decode_part
        parts = reader.array(decode)
        nodes = reader.array(decode_node)
        return [
            PartialSignature(part.signer, part.signature, part.patch_length, nodes)
            for part in parts
        ]


def _encode_part_version_0(part: PartialSignature, places: dict[int, int]) -> bytes:
    flags = b"\x01" if part.patch_length else b"\x00"
    encoded = flags + encode_uint(part.signer) + part.signature
    if not part.patch_length:
        return encoded
    start = flat_tree.right_span(part.nodes[-1].index) // 2 + 1
    used = encode_array(encode_uint(places[node.index]) for node in part.nodes)
    return encoded + encode_uint(start) + encode_uint(part.patch_length) + used


def _decode_part_version_0(reader: Reader) -> PartialSignature:
    flags = reader.uint()
    signer = reader.uint()
    signature = reader.fixed64()
    patch_length = 0
    if flags & 1:
        reader.uint()  # where the patch ends: nobody looks at it
        patch_length = reader.uint()
        reader.array(Reader.uint)  # which nodes: found by their index instead
    return PartialSignature(signer, signature, patch_length)


def _decode_part(reader: Reader) -> PartialSignature:
    return PartialSignature(reader.uint(), reader.fixed64(), reader.uint())


@dataclass(frozen=True, slots=True)
class _PatchedHead:
    fork: int
    length: int
    roots: Sequence[MerkleNode]
    tree_hash: bytes


def _patched(head: UnsignedHead, part: PartialSignature) -> UnsignedHead | None:
    """The longer head that this signer signed; None when a node for it is missing."""
    nodes = {node.index: node for node in part.nodes}
    roots = list(head.roots)
    length = head.length + part.patch_length
    for index in flat_tree.growth(head.length, length):
        node = nodes.get(index)
        if node is None:
            return None
        append_root(roots, node, [])
    return _PatchedHead(head.fork, length, roots, tree_hash(roots))
