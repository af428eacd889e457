"""Evidence of two histories: what is evidence, what is not, and its one encoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidProof
from hypercore.fork_proof import (
    MAX_PROOF_BYTES,
    ForkProof,
    ProvenFork,
    make_fork_proof,
    verify_fork_proof,
)
from hypercore.log import append
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.proof import Proof, ProofRequest, UpgradeProof, UpgradeRequest, build_proof
from hypercore.verifier import Verifier
from tests.hypercore.test_spoiled_proofs import spoiled_lists
from tests.support.forked_logs import (
    ONE,
    OTHER,
    SHARED,
    fork_proof,
    statement,
    tree_with,
    with_other_sizes,
)
from tests.support.trees import KEY_PAIR, MANIFEST, VERIFIER

PROOF = fork_proof()
ENCODED = PROOF.encode()


def test_two_histories_are_proven_with_the_key_alone() -> None:
    proven = verify_fork_proof(ENCODED, MANIFEST.key)
    assert proven == ProvenFork(
        MANIFEST.key,
        PROOF.discovery_key,
        0,
        (5, 6),
        (tree_with(ONE).head.tree_hash, tree_with(OTHER).head.tree_hash),
        5,
    )
    assert verify_fork_proof(PROOF) == proven
    assert "of 5 and 6 blocks, that differ below block 5" in str(proven)
    assert ForkProof.decode(ENCODED) == PROOF


def test_both_orders_make_the_same_evidence() -> None:
    assert make_fork_proof(VERIFIER, statement(OTHER, 5), statement(ONE, 5)) == PROOF
    assert fork_proof(OTHER, ONE).encode() == ENCODED
    swapped = replace(PROOF, one=PROOF.other, other=PROOF.one)
    with pytest.raises(InvalidProof, match="shorter head comes first"):
        verify_fork_proof(swapped)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([b"x"], [b"y"]),
        ([b"x"], [b"y"] * 100),
        (SHARED, [b"z", *SHARED]),
        ([b"%d" % i for i in range(64)], [b"%d" % i for i in range(63)] + [b"!"]),
        ([b"%d" % i for i in range(64)], [b"%d" % i for i in range(31)] + [b"!"] * 40),
    ],
)
def test_where_they_part_is_told(one: list[bytes], other: list[bytes]) -> None:
    proven = verify_fork_proof(fork_proof(one, other).encode(), MANIFEST.key)
    first = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert first < proven.differs_below <= min(len(one), len(other))
    assert proven.lengths == tuple(sorted((len(one), len(other))))


def test_one_history_is_no_evidence_however_it_is_told() -> None:
    blocks = [b"block %d" % i for i in range(8)]
    statements = [
        statement(blocks[:length], split)
        for length in range(1, 9)
        for split in range(1, length + 1)
    ]
    for one in statements:
        for other in statements:
            assert make_fork_proof(VERIFIER, one, other) is None
    one, other = statement(blocks[:5], 3), statement(blocks, 7)
    assert one.upgrade is not None
    assert other.upgrade is not None
    forged = ForkProof(PROOF.discovery_key, 0, MANIFEST, one.upgrade, other.upgrade)
    with pytest.raises(InvalidProof, match="do not contradict"):
        verify_fork_proof(forged)


def test_shifted_sizes_are_no_evidence() -> None:
    """What anybody can make of one signed head: the original freezes for it."""
    for blocks, split in (([b"aa", b"bb"], 1), ([b"aa", b"bb", b"cc", b"dd"], 3)):
        true = statement(blocks, split)
        shifted = with_other_sizes(true)
        assert true.upgrade is not None
        assert shifted.upgrade is not None
        assert tree_hash(true.upgrade.nodes) != tree_hash(shifted.upgrade.nodes)
        assert make_fork_proof(VERIFIER, true, shifted) is None
        forged = ForkProof(PROOF.discovery_key, 0, MANIFEST, true.upgrade, shifted.upgrade)
        with pytest.raises(InvalidProof, match="do not contradict"):
            verify_fork_proof(forged)


def test_two_forks_may_differ() -> None:
    cut = tree_with(ONE)
    cut.truncate(4)
    cut.append([b"other"])
    proof = cut.answer(upgrade=UpgradeRequest(0, 5))
    assert make_fork_proof(VERIFIER, statement(ONE, 5), proof) is None
    with pytest.raises(InvalidProof, match="not signed"):
        verify_fork_proof(replace(PROOF, fork=1))


def spoiled_halves(half: UpgradeProof) -> Iterator[UpgradeProof]:
    for length in (half.length - 1, half.length + 1, 0, 2**53 - 1):
        yield replace(half, length=length)
    yield from (replace(half, nodes=nodes) for nodes in spoiled_lists(half.nodes))
    for nodes in spoiled_lists(half.additional_nodes):
        yield replace(half, additional_nodes=nodes)
    for place in range(0, len(half.signature), 7):
        spoiled = bytearray(half.signature)
        spoiled[place] ^= 1
        yield replace(half, signature=bytes(spoiled))
    yield replace(half, signature=b"")


def spoiled_fork_proofs() -> Iterator[ForkProof]:
    yield replace(PROOF, discovery_key=bytes(32))
    yield replace(PROOF, fork=1)
    yield replace(PROOF, manifest=None)
    yield replace(PROOF, manifest=Manifest.single_signer(bytes(32)))
    yield replace(PROOF, one=PROOF.other)
    yield replace(PROOF, other=PROOF.one)
    yield from (replace(PROOF, one=half) for half in spoiled_halves(PROOF.one))
    yield from (replace(PROOF, other=half) for half in spoiled_halves(PROOF.other))


def test_every_field_counts() -> None:
    count = 0
    for spoiled in spoiled_fork_proofs():
        if spoiled == PROOF:
            continue
        with pytest.raises(InvalidProof):
            verify_fork_proof(spoiled)
        with pytest.raises(InvalidProof):
            verify_fork_proof(spoiled.encode())
        count += 1
    assert count > 100


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
def test_no_byte_may_change(place: int, flip: int) -> None:
    spoiled = bytearray(ENCODED)
    spoiled[place] ^= flip
    try:
        proven = verify_fork_proof(bytes(spoiled), MANIFEST.key)
    except InvalidProof:
        return
    # A signature says how long a patch is, which nobody looks at where no patches are allowed.
    assert proven == verify_fork_proof(ENCODED)
    changed = ForkProof.decode(bytes(spoiled))
    places = [
        [place for place in range(68) if changed_half.signature[place] != half.signature[place]]
        for changed_half, half in ((changed.one, PROOF.one), (changed.other, PROOF.other))
    ]
    assert places in ([[66], []], [[], [66]])


def test_what_is_too_large_or_something_else_is_not_read() -> None:
    for data in (b"", ENCODED[1:], b"x" + ENCODED[1:], ENCODED + bytes(MAX_PROOF_BYTES)):
        with pytest.raises(InvalidProof, match=f"{len(data)} bytes, too many or without its mark"):
            ForkProof.decode(data)


def test_there_is_one_encoding() -> None:
    for data in (ENCODED + b"\x00", ENCODED[:-1], b"", ENCODED[8:], bytes(1 << 19)):
        with pytest.raises(InvalidProof, match="not a fork proof"):
            ForkProof.decode(data)
    long_fork = ENCODED[:41] + b"\xfd\x00\x00" + ENCODED[42:]
    with pytest.raises(InvalidProof, match="not the canonical one"):
        ForkProof.decode(long_fork)


def test_another_core_is_named() -> None:
    other = Manifest.single_signer(KeyPair.from_seed(bytes(32)).public_key)
    with pytest.raises(InvalidProof, match="another core"):
        verify_fork_proof(ENCODED, other.key)


def proof_of(verifier: Verifier, blocks: list[bytes], split: int) -> Proof:
    """A head that the key pair signs alone."""
    changes = append(tree_with([]).head, blocks, lambda head: verifier.sign(head, KEY_PAIR))
    assert changes.head is not None
    nodes: dict[int, MerkleNode] = {node.index: node for node in changes.nodes}
    request = ProofRequest(0, upgrade=UpgradeRequest(0, split))
    return build_proof(request, changes.head, nodes.get)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_manifests_of_every_version(version: int) -> None:
    single = Manifest.single_signer(KEY_PAIR.public_key, version)
    several = Manifest.multi_signer(
        [*single.signers, Signer(bytes(32), bytes(32))], quorum=1, version=version
    )
    for manifest in (single, several):
        verifier = Verifier(manifest.key, manifest)
        proof = make_fork_proof(verifier, proof_of(verifier, ONE, 5), proof_of(verifier, OTHER, 5))
        assert proof is not None
        assert verify_fork_proof(proof.encode()).key == manifest.key


def test_a_compat_core_needs_its_key() -> None:
    verifier = Verifier(KEY_PAIR.public_key, Manifest.single_signer(KEY_PAIR.public_key, 0))
    proof = make_fork_proof(verifier, proof_of(verifier, ONE, 5), proof_of(verifier, OTHER, 5))
    assert proof is not None
    assert proof.manifest is None
    assert verify_fork_proof(proof.encode(), KEY_PAIR.public_key).lengths == (5, 6)
    with pytest.raises(InvalidProof, match="check it with the core's key"):
        verify_fork_proof(proof.encode())


def test_a_prologue_is_in_both_histories() -> None:
    prologue = Prologue(tree_with(SHARED).head.tree_hash, 4)
    manifest = Manifest.multi_signer(MANIFEST.signers, quorum=1, prologue=prologue)
    verifier = Verifier(manifest.key, manifest)
    proof = make_fork_proof(verifier, proof_of(verifier, ONE, 5), proof_of(verifier, OTHER, 5))
    assert proof is not None
    assert verify_fork_proof(proof.encode()).differs_below == 5
    fixed = proof_of(verifier, SHARED, 4)
    assert make_fork_proof(verifier, fixed, proof_of(verifier, OTHER, 4)) is None
    with pytest.raises(InvalidProof, match="splits the prologue"):
        make_fork_proof(verifier, proof_of(verifier, ONE, 3), fixed)
