"""Proofs spoiled in every way: refused, or true all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.flat_tree import TreeIndex
from hypercore.log import EMPTY_HEAD, Changeset
from hypercore.manifest import Manifest
from hypercore.merkle import MerkleNode
from hypercore.proof import (
    BlockProof,
    BlockRequest,
    HashProof,
    HashRequest,
    Proof,
    ProofRequest,
    SeekProof,
    SeekRequest,
    UpgradeProof,
    UpgradeRequest,
    build_proof,
    verify_hash_path,
    verify_proof,
)
from tests.support.trees import MANIFEST, VERIFIER, Tree, reader_of
from tests.support.vector_log import BLOCKS, NOTHING, WRITER, assert_true

HUGE = 2**53 - 1
READERS = {length: reader_of(WRITER, length) for length in (0, 1, 5, 16, 64)}


def spoiled_lists(nodes: Sequence[MerkleNode]) -> Iterator[list[MerkleNode]]:
    for place, node in enumerate(nodes):
        before, after = list(nodes[:place]), list(nodes[place + 1 :])
        yield before + after
        yield [*before, node, node, *after]
        if after:
            yield [*before, after[0], node, *after[1:]]
        for index in {node.index + 1, node.index + 2, abs(node.index - 2), HUGE} - {node.index}:
            yield [*before, node._replace(index=TreeIndex(index)), *after]
        for size in {node.size + 1, abs(node.size - 1), 0, HUGE} - {node.size}:
            yield [*before, node._replace(size=size), *after]
        for place_in_hash in (0, 31):
            spoiled = bytearray(node.hash)
            spoiled[place_in_hash] ^= 1
            yield [*before, node._replace(hash=bytes(spoiled)), *after]
    yield [*nodes, WRITER.nodes[0]]
    yield [WRITER.nodes[0], *nodes]
    yield [WRITER.nodes[2]] * 100


def spoiled_numbers(number: int) -> set[int]:
    return {number + 1, abs(number - 1), 2 * number + 7, HUGE} - {number}


def spoiled_blocks(block: BlockProof) -> Iterator[BlockProof]:
    value = block.value or b""
    yield from (replace(block, index=index) for index in spoiled_numbers(block.index))
    yield from (replace(block, nodes=nodes) for nodes in spoiled_lists(block.nodes))
    for other in (value + b"!", value[:-1], b"", b"?" + value[1:], None):
        yield replace(block, value=other)


def spoiled_upgrades(upgrade: UpgradeProof) -> Iterator[UpgradeProof]:
    yield from (replace(upgrade, start=start) for start in spoiled_numbers(upgrade.start))
    yield from (replace(upgrade, length=length) for length in spoiled_numbers(upgrade.length))
    yield from (replace(upgrade, nodes=nodes) for nodes in spoiled_lists(upgrade.nodes))
    for nodes in spoiled_lists(upgrade.additional_nodes):
        yield replace(upgrade, additional_nodes=nodes)
    signature = upgrade.signature
    for place in (0, 1, 2, 33, 65, 67):
        spoiled = bytearray(signature)
        spoiled[place] ^= 1
        yield replace(upgrade, signature=bytes(spoiled))
    yield replace(upgrade, signature=b"")
    yield replace(upgrade, signature=signature[:-1])


def spoiled_proofs(proof: Proof) -> Iterator[Proof]:
    """Every field of a proof changed, one at a time."""
    yield from (replace(proof, fork=fork) for fork in spoiled_numbers(proof.fork))
    if proof.block is not None:
        yield from (replace(proof, block=block) for block in spoiled_blocks(proof.block))
        yield replace(proof, hash=HashProof(0, [WRITER.nodes[0]]))
    if proof.hash is not None:
        for index in spoiled_numbers(proof.hash.index):
            yield replace(proof, hash=replace(proof.hash, index=index))
        for nodes in spoiled_lists(proof.hash.nodes):
            yield replace(proof, hash=replace(proof.hash, nodes=nodes))
    if proof.seek is not None:
        for nodes in spoiled_lists(proof.seek.nodes):
            yield replace(proof, seek=replace(proof.seek, nodes=nodes))
        yield replace(proof, seek=None)
    elif proof.block is not None or proof.hash is not None:
        yield replace(proof, seek=SeekProof(0, [WRITER.nodes[0]]))
    if proof.upgrade is not None:
        yield from (replace(proof, upgrade=upgrade) for upgrade in spoiled_upgrades(proof.upgrade))
    manifest = Manifest.single_signer(bytes(32))
    yield replace(proof, manifest=manifest)


def sparse_requests() -> Iterator[tuple[int, ProofRequest]]:
    """(reader's length, request) of every shape, that the reader can verify."""
    for length in (1, 2, 3, 7, 12, 21, 40, 63):
        reader = reader_of(WRITER, length)
        upgrades = [UpgradeRequest(length, stop - length) for stop in (length + 1, 50, 64)]
        for index in {0, length // 2, length - 1}:
            yield (
                length,
                ProofRequest(0, block=BlockRequest(index, reader.missing(2 * index))),
            )
            yield length, ProofRequest(0, hash=HashRequest(2 * index, reader.missing(2 * index)))
        for upgrade in (upgrade for upgrade in upgrades if upgrade.length > 0):
            yield length, ProofRequest(0, upgrade=upgrade)
            for index in (0, length, length + upgrade.length - 1):
                block = BlockRequest(index, reader.missing(2 * index))
                yield length, ProofRequest(0, block=block, upgrade=upgrade)
            offset = reader.head.byte_length + 3
            yield length, ProofRequest(0, seek=SeekRequest(offset, 0), upgrade=upgrade)
    reader = reader_of(WRITER, 64)
    for node in (0, 17, 35):
        seek = SeekRequest(123, 0)
        nodes = reader.missing(node)
        yield 64, ProofRequest(0, hash=HashRequest(node, nodes), seek=seek)
    yield 64, ProofRequest(0, block=BlockRequest(40, 6), seek=SeekRequest(55, 0))


def honest_proofs() -> list[tuple[Tree, Proof]]:
    proofs = []
    for length, request in sparse_requests():
        block = None if request.block is None else BLOCKS[request.block.index]
        proof = build_proof(request, WRITER.head, WRITER.nodes.get, block)
        proofs.append((reader_of(WRITER, length), proof))
    return proofs


HONEST = honest_proofs()


def is_mirrored(one: Proof, other: Proof) -> bool:
    """Whether the seek path starts from the sibling instead: another proof, just as true."""
    return (
        one.seek is not None
        and other.seek is not None
        and list(one.seek.nodes[:2]) == list(other.seek.nodes[1::-1])
        and list(one.seek.nodes[2:]) == list(other.seek.nodes[2:])
        and replace(one, seek=None) == replace(other, seek=None)
    )


def test_every_spoiled_field_is_refused() -> None:
    refused = 0
    for reader, proof in HONEST:
        assert_true(verify_proof(proof, reader.head, reader.nodes.get, VERIFIER))
        for spoiled in spoiled_proofs(proof):
            try:
                changes = verify_proof(spoiled, reader.head, reader.nodes.get, VERIFIER)
            except (InvalidProof, InvalidSignature):
                refused += 1
            else:
                assert spoiled == proof or is_mirrored(spoiled, proof), spoiled
                assert_true(changes)
    assert refused > 5000


def test_a_reader_with_everything_takes_only_what_is_true() -> None:
    for _, proof in HONEST:
        for spoiled in spoiled_proofs(replace(proof, upgrade=None)):
            try:
                changes = verify_proof(spoiled, WRITER.head, WRITER.nodes.get, VERIFIER)
            except (InvalidProof, InvalidSignature):
                continue
            assert_true(changes)


numbers = st.one_of(st.integers(0, 140), st.sampled_from([2**31, 2**32, 2**52, HUGE - 1, HUGE]))
any_node = st.builds(
    MerkleNode, numbers.map(TreeIndex), numbers, st.binary(min_size=32, max_size=32)
)
true_node = st.sampled_from(sorted(WRITER.nodes.values()))
node_lists = st.lists(st.one_of(true_node, true_node, any_node), max_size=8)
any_proof = st.builds(
    Proof,
    st.sampled_from([0, 0, 0, 1, HUGE]),
    st.none() | st.builds(BlockProof, numbers, st.none() | st.sampled_from(BLOCKS), node_lists),
    st.none() | st.builds(HashProof, numbers, node_lists),
    st.none() | st.builds(SeekProof, numbers, node_lists),
    st.none()
    | st.builds(UpgradeProof, numbers, numbers, node_lists, node_lists, st.binary(max_size=70)),
    st.sampled_from([None, MANIFEST, Manifest()]),
)


@given(any_proof, st.sampled_from([0, 1, 5, 16, 64]))
def test_any_proof_is_true_or_refused(proof: Proof, length: int) -> None:
    reader = READERS[length]
    try:
        changes = verify_proof(proof, reader.head, reader.nodes.get, VERIFIER)
    except (InvalidProof, InvalidSignature):
        return
    assert_true(changes)


@given(st.integers(0, 2**52), node_lists, st.binary(max_size=70))
def test_enormous_upgrades_are_refused(
    length: int, nodes: list[MerkleNode], signature: bytes
) -> None:
    for additional in ([], nodes):
        upgrade = UpgradeProof(16, length, nodes, additional, signature)
        with pytest.raises((InvalidProof, InvalidSignature)):
            verify_proof(
                Proof(0, upgrade=upgrade), READERS[16].head, READERS[16].nodes.get, VERIFIER
            )


def test_sizes_that_no_log_has_are_refused_before_the_signature() -> None:
    node = MerkleNode(TreeIndex(1), HUGE, bytes(32))
    upgrade = UpgradeProof(0, 3, [node, MerkleNode(TreeIndex(4), HUGE, bytes(32))], [], b"")
    with pytest.raises(InvalidProof, match="bytes"):
        verify_proof(Proof(0, upgrade=upgrade), EMPTY_HEAD, NOTHING.get, VERIFIER)
    upgrade = UpgradeProof(0, 2**53, [node._replace(index=TreeIndex(2**53 - 1))], [], b"")
    with pytest.raises(InvalidProof, match="blocks"):
        verify_proof(Proof(0, upgrade=upgrade), EMPTY_HEAD, NOTHING.get, VERIFIER)


def test_bytes_shifted_between_two_siblings_are_set_right_by_the_block() -> None:
    reader = reader_of(WRITER, 64)
    proof = WRITER.answer(hash=HashRequest(6, 6)).hash
    assert proof is not None
    first, second, *rest = proof.nodes
    shifted = [first._replace(size=first.size + 1), second._replace(size=second.size - 1), *rest]
    reader.receive(Proof(0, hash=HashProof(6, shifted)))
    assert reader.nodes[6] != WRITER.nodes[6]
    reader.receive(WRITER.answer(block=BlockRequest(3, reader.missing(6))))
    assert reader.nodes[6] == WRITER.nodes[6]


def test_a_bare_node_cannot_change_the_size_we_have() -> None:
    stored = WRITER.nodes[6]
    bare = Proof(0, hash=HashProof(6, [stored]))
    assert verify_proof(bare, WRITER.head, WRITER.nodes.get, None) == Changeset()
    lie = Proof(0, hash=HashProof(6, [stored._replace(size=stored.size + 1)]))
    with pytest.raises(InvalidProof, match="size"):
        verify_proof(lie, WRITER.head, WRITER.nodes.get, None)


def test_errors_carry_the_evidence() -> None:
    reader = reader_of(WRITER, 64)
    proof = WRITER.answer(block=BlockRequest(3, 6))
    assert proof.block is not None
    with pytest.raises(InvalidProof) as caught:
        reader.receive(replace(proof, block=replace(proof.block, value=b"other")))
    assert caught.value.index == 63
    assert caught.value.expected == WRITER.nodes[63].hash
    assert caught.value.actual != caught.value.expected


def test_a_hash_path_leads_to_the_node_that_is_trusted() -> None:
    proof = WRITER.answer(hash=HashRequest(6, 3)).hash
    assert proof is not None
    nodes = verify_hash_path(proof, WRITER.nodes[7])
    assert [node.index for node in nodes] == [6, 4, 5, 1, 3, 11, 7]
    assert all(WRITER.nodes[node.index] == node for node in nodes)
    for spoiled in spoiled_lists(proof.nodes):
        with pytest.raises(InvalidProof):
            verify_hash_path(replace(proof, nodes=spoiled), WRITER.nodes[7])
    for bad in (replace(proof, index=8), replace(proof, nodes=[])):
        with pytest.raises(InvalidProof, match="not the node"):
            verify_hash_path(bad, WRITER.nodes[7])
