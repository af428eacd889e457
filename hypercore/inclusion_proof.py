"""A block and the signed head that holds it, as one value that anyone checks offline.

Bytes: the 32-byte discovery key, then a `data` message (`replication.messages.Data`) with
request 0, an upgrade from 0, and mostly a block and the manifest. There is one encoding of each
proof: other bytes that would decode to the same are refused.

Of an encrypted core the block is the ciphertext, since that is what the tree is made of:
`BlockCipher(encryption_key, key).decrypt(index, block)` reads it.

Worked example: a proof of the head of one block begins with the discovery key and
`18 00 00 00 01 01 00`: upgrade and manifest, request 0, fork 0, from 0, 1 block, one node, 0.

Source: hypercore 11.37.1 lib/fully-remote-proof.js. There the verifier needs a store that knows
the core, reads single-signer manifests only, and takes a block whose path leads beside the head.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypercore import flat_tree
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.encoding import DecodeError
from hypercore.errors import InvalidProof, InvalidSignature, OutOfRange
from hypercore.log import EMPTY_HEAD, Changeset, Head, NodeReader
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.proof import Proof, build_proof, verify_proof
from hypercore.proof_request import BlockRequest, ProofRequest, UpgradeRequest
from hypercore.replication.messages import Data
from hypercore.verifier import Verifier

_DISCOVERY_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Shows that a core's writer signed a head, and which block is in it, if any."""

    discovery_key: bytes
    proof: Proof

    def encode(self) -> bytes:
        return self.discovery_key + Data(0, self.proof).encode()

    @classmethod
    def decode(cls, data: bytes) -> InclusionProof:
        """Raises: InvalidProof for bytes that `encode` does not make."""
        try:
            message = Data.decode(data[_DISCOVERY_KEY_BYTES:])
        except DecodeError as error:
            offset = error.offset + _DISCOVERY_KEY_BYTES
            raise InvalidProof(f"not a proof: {error.reason} at byte {offset}") from error
        decoded = cls(data[:_DISCOVERY_KEY_BYTES], message.proof)
        if message.request or decoded.encode() != data:
            raise InvalidProof("not a proof: its encoding is not the canonical one")
        return decoded


@dataclass(frozen=True, slots=True)
class ProvenBlock:
    """What an inclusion proof shows; `index` and `block` are None when it is of the head alone."""

    key: bytes
    discovery_key: bytes
    manifest: Manifest
    fork: int
    length: int
    byte_length: int
    tree_hash: bytes
    index: int | None
    block: bytes | None
    """As it is stored."""


def build_inclusion_proof(
    verifier: Verifier,
    head: Head,
    read_node: NodeReader,
    index: int | None = None,
    block: bytes | None = None,
) -> InclusionProof:
    """A proof of `head`, and of block number `index` with the stored value `block`.

    Raises: OutOfRange for a block beyond the head, and for an empty log, which nobody signed;
    InvalidRequest when a tree node that it needs is not here.
    """
    if head.length == 0 or (index is not None and not 0 <= index < head.length):
        raise OutOfRange(index or 0, head.length)
    request = ProofRequest(
        head.fork,
        block=None if index is None else BlockRequest(index, 0),
        upgrade=UpgradeRequest(0, head.length),
    )
    proof = build_proof(request, head, read_node, block)
    return InclusionProof(
        derive_discovery_key(verifier.key),
        Proof(
            proof.fork,
            proof.block,
            upgrade=proof.upgrade,
            # A compat core's key is its signer's public key: no manifest is needed.
            manifest=None if verifier.is_compat else verifier.manifest,
        ),
    )


def verify_inclusion_proof(proof: InclusionProof | bytes, key: bytes | None = None) -> ProvenBlock:
    """Check a proof with nothing else at hand; `key` is the core that it must be of.

    Without a `key` the proof names its core itself, by the manifest: compare the result's key
    with the one you trust.

    Raises: InvalidProof, which names the reason.
    """
    if isinstance(proof, bytes):
        proof = InclusionProof.decode(proof)
    part = proof.proof
    verifier = offline_verifier(proof.discovery_key, part.manifest, key)
    changes = verify_from_nothing(part, verifier)
    head = changes.head
    assert head is not None
    index, block = changes.blocks[0] if changes.blocks else (None, None)
    return ProvenBlock(
        verifier.key,
        proof.discovery_key,
        verifier.manifest,
        head.fork,
        head.length,
        head.byte_length,
        head.tree_hash,
        index,
        block,
    )


def offline_verifier(
    discovery_key: bytes, manifest: Manifest | None, key: bytes | None
) -> Verifier:
    """Who may sign the core of this discovery key, by its manifest, its key, or both.

    Raises: InvalidProof when they do not belong together, or do not suffice.
    """
    if key is None:
        key = _key_of(discovery_key, manifest)
    if derive_discovery_key(key) != discovery_key:
        raise InvalidProof("a proof of another core")
    try:
        # A core without a manifest is a compat core, whose key is its signer's.
        return Verifier(key, manifest or Manifest.single_signer(key, version=0))
    except ValueError as error:
        raise InvalidProof(f"a manifest of another core: {error}") from None


def _key_of(discovery_key: bytes, manifest: Manifest | None) -> bytes:
    if manifest is None:
        raise InvalidProof("no manifest in the proof: check it with the core's key")
    if len(manifest.signers) == 1:
        public_key = manifest.signers[0].public_key
        if derive_discovery_key(public_key) == discovery_key:
            return public_key
    return manifest.key


def verify_from_nothing(proof: Proof, verifier: Verifier) -> Changeset:
    """All that a proof from an empty log shows; it always has a head.

    Raises: InvalidProof.
    """
    if proof.upgrade is None:
        raise InvalidProof("no signed head in the proof")
    try:
        return verify_proof(proof, EMPTY_HEAD, no_node, verifier)
    except InvalidSignature as error:
        raise InvalidProof(str(error)) from error


def no_node(index: int) -> MerkleNode | None:
    """Reads the tree of an empty log."""
    return None


def roots_at(length: int, head: Head, read_node: NodeReader) -> list[MerkleNode] | None:
    """The roots that the log had at an earlier length; None when one of them is not here.

    Raises: OutOfRange beyond the head.
    """
    if not 0 <= length <= head.length:
        raise OutOfRange(length, head.length)
    present = {root.index: root for root in head.roots}
    roots = []
    for index in flat_tree.full_roots(length):
        root = present.get(index) or read_node(index)
        if root is None:
            return None
        roots.append(root)
    return roots
