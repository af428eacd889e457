"""Blocks and heads proven offline: what is shown, what is refused, and the one encoding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore import (
    BlockNotAvailable,
    InclusionProof,
    InvalidProof,
    KeyPair,
    Manifest,
    OutOfRange,
    Prologue,
    open_corestore,
    verify_inclusion_proof,
)
from hypercore.block_cipher import BlockCipher
from hypercore.crypto import discovery_key
from hypercore.errors import InvalidSignature
from hypercore.inclusion_proof import build_inclusion_proof
from hypercore.log import EMPTY_HEAD, append
from hypercore.merkle import MerkleNode, tree_hash
from hypercore.proof import BlockProof, Proof, UpgradeRequest, verify_proof
from hypercore.verifier import Verifier
from tests.hypercore.test_spoiled_proofs import is_mirrored, spoiled_proofs
from tests.support.trees import KEY_PAIR, MANIFEST, VERIFIER
from tests.support.vector_log import BLOCKS, WRITER

DISCOVERY_KEY = discovery_key(MANIFEST.key)


def prove(index: int | None = None) -> InclusionProof:
    block = None if index is None else BLOCKS[index]
    return build_inclusion_proof(VERIFIER, WRITER.head, WRITER.nodes.get, index, block)


def test_every_block_and_the_head() -> None:
    for index in (None, *range(64)):
        encoded = prove(index).encode()
        proven = verify_inclusion_proof(encoded, MANIFEST.key)
        assert proven == verify_inclusion_proof(prove(index))
        assert (proven.key, proven.discovery_key) == (MANIFEST.key, DISCOVERY_KEY)
        assert (proven.fork, proven.length) == (0, 64)
        assert proven.byte_length == WRITER.head.byte_length
        assert proven.tree_hash == WRITER.head.tree_hash
        assert proven.index == index
        assert proven.block == (None if index is None else BLOCKS[index])
        assert InclusionProof.decode(encoded).encode() == encoded


def test_every_spoiled_field_is_refused() -> None:
    honest = prove(21)
    count = 0
    for spoiled in spoiled_proofs(honest.proof):
        if spoiled == honest.proof or is_mirrored(spoiled, honest.proof):
            continue
        for given_key in (None, MANIFEST.key):
            with pytest.raises(InvalidProof):
                verify_inclusion_proof(replace(honest, proof=spoiled), given_key)
        count += 1
    assert count > 100


@given(st.integers(0, len(prove(21).encode()) - 1), st.integers(1, 255))
def test_no_byte_may_change(place: int, flip: int) -> None:
    honest = prove(21)
    spoiled = bytearray(honest.encode())
    spoiled[place] ^= flip
    try:
        proven = verify_inclusion_proof(bytes(spoiled), MANIFEST.key)
    except InvalidProof:
        return
    # A signature says how long a patch is, which nobody looks at where no patches are allowed.
    assert proven == verify_inclusion_proof(honest)
    changed = InclusionProof.decode(bytes(spoiled)).proof.upgrade
    assert changed is not None
    assert honest.proof.upgrade == replace(changed, signature=WRITER.head.signature)
    assert changed.signature[:66] == WRITER.head.signature[:66]


def test_a_block_beside_the_head_is_refused() -> None:
    """The original takes it: it does not look where a block's path ends."""
    head_only = prove(None).proof
    for index in (0, 3, 64, 1000):
        block = BlockProof(index, b"forged", [])
        forged = InclusionProof(DISCOVERY_KEY, replace(head_only, block=block))
        with pytest.raises(InvalidProof, match=r"ends beside|other nodes"):
            verify_inclusion_proof(forged.encode(), MANIFEST.key)


def test_errors_name_the_reason() -> None:
    encoded = prove(3).encode()
    with pytest.raises(InvalidProof, match="another core"):
        verify_inclusion_proof(encoded, bytes(32))
    with pytest.raises(InvalidProof, match="another core"):
        verify_inclusion_proof(bytes(32) + encoded[32:])
    with pytest.raises(InvalidProof, match="not a proof: 32 bytes wanted, 31 left at byte 371"):
        verify_inclusion_proof(encoded[:-1])
    with pytest.raises(InvalidProof, match="not the canonical one"):
        verify_inclusion_proof(encoded + b"\x00")
    with pytest.raises(InvalidProof, match="no signed head"):
        verify_inclusion_proof(InclusionProof(DISCOVERY_KEY, Proof(0, manifest=MANIFEST)))
    from_one = WRITER.answer(upgrade=UpgradeRequest(1, 63))
    with pytest.raises(InvalidProof, match="from 1, ours are 0"):
        verify_inclusion_proof(
            InclusionProof(DISCOVERY_KEY, replace(from_one, manifest=MANIFEST)), MANIFEST.key
        )
    upgrade = prove(None).proof.upgrade
    assert upgrade is not None
    unsigned = Proof(0, upgrade=replace(upgrade, signature=bytes(68)), manifest=MANIFEST)
    with pytest.raises(InvalidProof, match="not signed") as caught:
        verify_inclusion_proof(InclusionProof(DISCOVERY_KEY, unsigned))
    assert isinstance(caught.value.__cause__, InvalidSignature)
    other = Manifest.single_signer(bytes(32))
    with pytest.raises(InvalidProof, match="manifest of another core"):
        verify_inclusion_proof(
            InclusionProof(DISCOVERY_KEY, Proof(0, upgrade=upgrade, manifest=other)), MANIFEST.key
        )


def test_compat_cores_and_prologues() -> None:
    compat = Verifier(KEY_PAIR.public_key, Manifest.single_signer(KEY_PAIR.public_key, version=0))
    prologue = Prologue(WRITER.head.tree_hash, 64)
    static = Manifest(quorum=0, signers=(), prologue=prologue)
    for verifier in (compat, Verifier(static.key, static)):
        unsigned = replace(WRITER.head, signature=b"")
        signature = verifier.sign(unsigned, KEY_PAIR) if verifier.manifest.signers else b""
        head = replace(unsigned, signature=signature)
        proof = build_inclusion_proof(verifier, head, WRITER.nodes.get, 7, BLOCKS[7])
        assert verify_inclusion_proof(proof.encode(), verifier.key).block == BLOCKS[7]
        if verifier is compat:
            with pytest.raises(InvalidProof, match="check it with the core's key"):
                verify_inclusion_proof(proof.encode())
            named = replace(proof, proof=replace(proof.proof, manifest=compat.manifest))
            assert verify_inclusion_proof(named).key == KEY_PAIR.public_key


async def test_a_core_proves_itself(tmp_path: Path) -> None:
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        with pytest.raises(OutOfRange):
            await core.prove()
        await core.append([b"hello", b"world", b"!"])
        proof = await core.prove(1)
        assert verify_inclusion_proof(proof.encode(), core.key).block == b"world"
        with pytest.raises(OutOfRange):
            await core.prove(3)
        core.append_nowait(b"not on the disk yet")
        durable = verify_inclusion_proof(await core.prove(), core.key)
        assert durable.length == core.durable_length == 4
        assert durable.tree_hash == core.tree_hash()
        assert core.tree_hash(0) == tree_hash([])
        hashes = [core.tree_hash(length) for length in range(5)]
        assert verify_inclusion_proof(proof).tree_hash == hashes[3]
        with pytest.raises(OutOfRange):
            core.tree_hash(5)
        await core.truncate(2)
        assert core.tree_hash(2) == hashes[2]
        assert verify_inclusion_proof(await core.prove(1), core.key).fork == 1


async def test_a_sparse_reader_proves_what_it_has() -> None:
    async with open_corestore(None) as one, open_corestore(None) as other:
        writer = await one.get(name="log")
        await writer.append([b"block %d" % i for i in range(100)])
        reader = await other.get(key=writer.key)
        head_proof = (await writer.prove()).proof
        with pytest.raises(OutOfRange):
            await reader.prove()
        changes = verify_proof(head_proof, EMPTY_HEAD, lambda _: None, writer.verifier)
        reader.commit([changes])
        assert verify_inclusion_proof(await reader.prove()).length == 100
        with pytest.raises(BlockNotAvailable):
            reader.tree_hash(7)
        assert reader.tree_hash(96) == writer.tree_hash(96)


async def test_of_an_encrypted_core_the_stored_block_is_proven() -> None:
    key = bytes(range(32))
    async with open_corestore(None) as store:
        core = await store.get(name="log", encryption_key=key)
        await core.append([b"secret", b"words"])
        proven = verify_inclusion_proof((await core.prove(1)).encode(), core.key)
        assert proven.block is not None
        assert proven.block != b"words"
        assert BlockCipher(key, core.key).decrypt(1, proven.block) == b"words"


def test_the_worked_example() -> None:
    key_pair = KeyPair.from_seed(bytes(32))
    manifest = Manifest.single_signer(key_pair.public_key)
    verifier = Verifier(manifest.key, manifest)
    changes = append(EMPTY_HEAD, [b"one"], lambda head: verifier.sign(head, key_pair))
    assert changes.head is not None
    nodes: dict[int, MerkleNode] = {node.index: node for node in changes.nodes}
    encoded = build_inclusion_proof(verifier, changes.head, nodes.get).encode()
    assert encoded[:32] == discovery_key(manifest.key)
    assert encoded[32:39].hex() == "18000000010100"
