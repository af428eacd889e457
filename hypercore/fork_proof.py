"""Two heads of one fork that contradict each other: evidence that anyone checks offline.

Whoever signs a head signs all of the history below it. Two signed heads of one fork contradict each
other when somewhere in both trees there is one node with two hashes. Each half of the evidence
is an upgrade from nothing: the roots of some length, the subtrees that lead from there to the
signed head, and the signature.

**Only hashes count, never sizes.** A parent's hash covers the sum of its children's sizes, so
anybody can turn one signed head into a second in which two siblings have other sizes. The
original compares tree hashes, sizes included, and so can be made to freeze a core whose writer
did nothing wrong. Every hash in a half is fixed by the signature: nobody makes a proof
without two signatures of the core's writers.

A core of version 0 signs in the name of its signer, not of the core: two such cores written with
one key pair contradict each other.

| field         | type                                                                       |
|---------------|----------------------------------------------------------------------------|
| magic         | 8 bytes, `00 66 6f 72 6b 65 64 01`                                         |
| discovery key | 32 bytes                                                                   |
| flags         | uint; 1 manifest                                                           |
| fork          | uint                                                                       |
| manifest      | manifest, if flagged                                                       |
| two halves    | uint length, nodes, additional nodes (counted arrays), buffer signature    |

There is one encoding of each proof; the half with the shorter head comes first.

Source: hypercore 11.37.1 lib/core.js checkConflict: a half is what its peers send each other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hypercore import flat_tree
from hypercore.crypto import discovery_key as derive_discovery_key
from hypercore.encoding import DecodeError, Reader, encode_buffer, encode_uint
from hypercore.errors import InvalidProof
from hypercore.inclusion_proof import offline_verifier, verify_from_nothing
from hypercore.log import Changeset
from hypercore.manifest import Manifest
from hypercore.merkle import decode_node
from hypercore.proof import Proof, UpgradeProof
from hypercore.replication.messages import encode_nodes
from hypercore.verifier import Verifier

MAGIC = b"\x00forked\x01"
"""One discovery key in 2**64 begins so: the magic tells these from inclusion proofs."""

MAX_PROOF_BYTES = 1 << 18
"""Evidence is kept and passed on; two heads of 2**53 blocks with ten signatures take 60 KB."""

_MANIFEST = 1


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two signed heads of one core and fork that contradict each other, once verified."""

    discovery_key: bytes
    fork: int
    manifest: Manifest | None
    """None for a compat core, whose key is its signer's."""
    one: UpgradeProof
    other: UpgradeProof

    def encode(self) -> bytes:
        flags = 0 if self.manifest is None else _MANIFEST
        manifest = b"" if self.manifest is None else self.manifest.encode()
        return (
            MAGIC
            + self.discovery_key
            + encode_uint(flags)
            + encode_uint(self.fork)
            + manifest
            + _encode_half(self.one)
            + _encode_half(self.other)
        )

    @classmethod
    def decode(cls, data: bytes) -> ForkProof:
        """Raises: InvalidProof for bytes that `encode` does not make."""
        if not data.startswith(MAGIC) or len(data) > MAX_PROOF_BYTES:
            raise InvalidProof(f"not a fork proof: {len(data)} bytes, too many or without its mark")
        reader = Reader(data, len(MAGIC))
        try:
            discovery_key, flags, fork = reader.fixed32(), reader.uint(), reader.uint()
            manifest = Manifest.decode(reader) if flags & _MANIFEST else None
            decoded = cls(discovery_key, fork, manifest, _decode_half(reader), _decode_half(reader))
        except DecodeError as error:
            raise InvalidProof(f"not a fork proof: {error}") from error
        if decoded.encode() != data:
            raise InvalidProof("not a fork proof: its encoding is not the canonical one")
        return decoded

    @property
    def statements(self) -> tuple[Proof, Proof]:
        """The halves, as peers send them to one another."""
        return (
            Proof(self.fork, upgrade=self.one, manifest=self.manifest),
            Proof(self.fork, upgrade=self.other, manifest=self.manifest),
        )


def _encode_half(half: UpgradeProof) -> bytes:
    return (
        encode_uint(half.length)
        + encode_nodes(half.nodes)
        + encode_nodes(half.additional_nodes)
        + encode_buffer(half.signature)
    )


def _decode_half(reader: Reader) -> UpgradeProof:
    return UpgradeProof(
        0,
        reader.uint(),
        reader.array(decode_node),
        reader.array(decode_node),
        reader.buffer(),
    )


@dataclass(frozen=True, slots=True)
class ProvenFork:
    """What a fork proof shows: the writers of `key` signed two histories of fork `fork`."""

    key: bytes
    discovery_key: bytes
    fork: int
    lengths: tuple[int, int]
    tree_hashes: tuple[bytes, bytes]
    differs_below: int
    """The histories differ in one of the first so many blocks."""

    def __str__(self) -> str:
        one, other = self.lengths
        return (
            f"two histories of fork {self.fork}, of {one} and {other} blocks, "
            f"that differ below block {self.differs_below}"
        )


def verify_fork_proof(proof: ForkProof | bytes, key: bytes | None = None) -> ProvenFork:
    """Check the evidence with nothing else at hand; `key` is the core that it must be about.

    Raises: InvalidProof, which names the reason.
    """
    if isinstance(proof, bytes):
        proof = ForkProof.decode(proof)
    verifier = offline_verifier(proof.discovery_key, proof.manifest, key)
    one, other = (verify_from_nothing(each, verifier) for each in proof.statements)
    differs_below = contradiction(one, other)
    if differs_below is None:
        raise InvalidProof("two heads that do not contradict each other")
    assert one.head is not None
    assert other.head is not None
    if (one.head.length, one.head.tree_hash) > (other.head.length, other.head.tree_hash):
        raise InvalidProof("not a fork proof: the half with the shorter head comes first")
    return ProvenFork(
        verifier.key,
        proof.discovery_key,
        proof.fork,
        (one.head.length, other.head.length),
        (one.head.tree_hash, other.head.tree_hash),
        differs_below,
    )


def make_fork_proof(verifier: Verifier, one: Proof, other: Proof) -> ForkProof | None:
    """The evidence, if these two upgrades from nothing contradict each other.

    Raises: InvalidProof for one that is not what the core's writers signed.
    """
    halves = []
    for statement in (one, other):
        changes = verify_from_nothing(statement, verifier)
        assert changes.head is not None
        assert statement.upgrade is not None
        upgrade = replace(statement.upgrade, signature=changes.head.signature)
        halves.append((changes.head.length, changes.head.tree_hash, upgrade, changes))
    if one.fork != other.fork or contradiction(halves[0][3], halves[1][3]) is None:
        return None
    halves.sort(key=lambda half: half[:2])
    manifest = None if verifier.is_compat else verifier.manifest
    proof = ForkProof(
        derive_discovery_key(verifier.key), one.fork, manifest, halves[0][2], halves[1][2]
    )
    size = len(proof.encode())
    if size > MAX_PROOF_BYTES:
        raise InvalidProof(f"a head whose proof makes the evidence {size} bytes")
    return proof


def contradiction(one: Changeset, other: Changeset) -> int | None:
    """Below which block two proven histories differ; None when nothing shows that they do."""
    hashes = {node.index: node.hash for node in one.nodes}
    differing = [
        flat_tree.right_span(node.index) // 2 + 1
        for node in other.nodes
        if hashes.get(node.index, node.hash) != node.hash
    ]
    return min(differing, default=None)
