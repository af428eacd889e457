"""Proofs: JS vectors, all shapes of honest proofs, upgrades, prologues, and bad requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.encoding import encode_array, encode_buffer, encode_uint
from hypercore.errors import InvalidProof, InvalidSignature
from hypercore.flat_tree import TreeIndex
from hypercore.log import EMPTY_HEAD, Changeset
from hypercore.manifest import Manifest, Prologue, Signer
from hypercore.merkle import MerkleNode, encode_node
from hypercore.proof import (
    BlockRequest,
    HashProof,
    HashRequest,
    InvalidRequest,
    Proof,
    ProofRequest,
    SeekProof,
    SeekRequest,
    UpgradeProof,
    UpgradeRequest,
    build_proof,
    verify_proof,
)
from hypercore.verifier import Verifier
from tests.reference import merkle as slow
from tests.support.trees import KEY_PAIR, MANIFEST, VERIFIER, Tree, reader_of, writer_of
from tests.support.vector_log import BLOCKS, NOTHING, TREES, VECTORS, WRITER, assert_true

PROOFS = json.loads((VECTORS / "proofs.json").read_text())["proofs"]
HUGE = 2**53 - 1
READERS = {length: reader_of(WRITER, length) for length in (0, 1, 5, 16, 64)}


def request_of(fields: dict[str, Any]) -> ProofRequest:
    return ProofRequest(
        0,
        BlockRequest(**fields["block"]) if "block" in fields else None,
        HashRequest(**fields["hash"]) if "hash" in fields else None,
        SeekRequest(**fields["seek"]) if "seek" in fields else None,
        UpgradeRequest(**fields["upgrade"]) if "upgrade" in fields else None,
    )


def block_of(request: ProofRequest) -> bytes | None:
    return None if request.block is None else BLOCKS[request.block.index]


def encode_data(proof: Proof) -> str:
    """The wire's `data` message with request id 1."""

    def encode_nodes(nodes: Sequence[MerkleNode]) -> bytes:
        return encode_array(map(encode_node, nodes))

    parts = [proof.block, proof.hash, proof.seek, proof.upgrade]
    flags = sum(1 << place for place, part in enumerate(parts) if part is not None)
    out = encode_uint(flags) + b"\x01" + encode_uint(proof.fork)
    if proof.block is not None:
        out += encode_uint(proof.block.index) + encode_buffer(proof.block.value or b"")
        out += encode_nodes(proof.block.nodes)
    if proof.hash is not None:
        out += encode_uint(proof.hash.index) + encode_nodes(proof.hash.nodes)
    if proof.seek is not None:
        out += encode_uint(proof.seek.bytes) + encode_nodes(proof.seek.nodes)
    if proof.upgrade is not None:
        out += encode_uint(proof.upgrade.start) + encode_uint(proof.upgrade.length)
        out += encode_nodes(proof.upgrade.nodes) + encode_nodes(proof.upgrade.additional_nodes)
        out += encode_buffer(proof.upgrade.signature)
    return out.hex()


# --- vectors ----------------------------------------------------------------------------


def test_the_writer_is_that_of_the_vectors() -> None:
    assert VERIFIER.key.hex() == TREES["key"]
    assert WRITER.head.tree_hash.hex() == TREES["trees"][-1]["treeHash"]


def test_proofs_are_those_of_js() -> None:
    for vector in PROOFS:
        request = request_of(vector["request"])
        if vector["error"]:
            with pytest.raises(InvalidRequest):
                build_proof(request, WRITER.head, WRITER.nodes.get, block_of(request))
            continue
        proof = build_proof(request, WRITER.head, WRITER.nodes.get, block_of(request))
        assert encode_data(proof) == vector["wire"], vector


def test_proofs_of_js_verify() -> None:
    refused = 0
    for vector in PROOFS:
        if vector["error"]:
            continue
        request = request_of(vector["request"])
        proof = build_proof(request, WRITER.head, WRITER.nodes.get, block_of(request))
        reader = WRITER
        if request.upgrade is not None:
            reader = writer_of(BLOCKS[: request.upgrade.start])
        try:
            changes = verify_proof(proof, reader.head, reader.nodes.get, VERIFIER)
        except InvalidProof:
            # Requests that no honest reader makes: a path to above its own tree.
            assert request.block is not None
            assert request.block.nodes > 0
            assert request.upgrade is not None
            refused += 1
        else:
            assert_true(changes)
            assert (changes.head == WRITER.head) == (request.upgrade is not None)
    assert refused == 5


# --- honest proofs of every shape -------------------------------------------------------


@pytest.mark.parametrize("length", range(1, 65))
def test_a_reader_gets_all_blocks_one_by_one(length: int) -> None:
    writer = writer_of(BLOCKS[:length])
    reader = reader_of(writer, length)
    for step in range(length):
        index = step * 37 % length
        while index in reader.blocks:
            index = (index + 1) % length
        nodes = reader.missing(2 * index)
        changes = reader.receive(writer.answer(block=BlockRequest(index, nodes)))
        assert changes.head is None
        assert reader.missing(2 * index) == 0
    assert reader.blocks == dict(enumerate(BLOCKS[:length]))
    assert {index: tuple(node) for index, node in reader.nodes.items()} == slow.nodes(
        BLOCKS[:length]
    )


@pytest.mark.parametrize("length", range(1, 25))
def test_every_upgrade_with_and_without_a_block(length: int) -> None:
    writer = writer_of(BLOCKS[:length])
    for start in range(length):
        reader = reader_of(writer, start)
        for stop in range(start + 1, length + 1):
            upgrade = UpgradeRequest(start, stop - start)
            changes = verify_proof(
                writer.answer(upgrade=upgrade), reader.head, reader.nodes.get, VERIFIER
            )
            assert changes.head == writer.head
            for index in {0, start - 1, start, (start + stop) // 2, stop - 1} & set(range(stop)):
                nodes = reader.missing(2 * index)
                proof = writer.answer(block=BlockRequest(index, nodes), upgrade=upgrade)
                changes = verify_proof(proof, reader.head, reader.nodes.get, VERIFIER)
                assert changes.head == writer.head
                assert changes.blocks == [(index, BLOCKS[index])]
                assert all(writer.nodes[node.index] == node for node in changes.nodes)


@given(st.integers(1, 64), st.integers(0, 63), st.integers(0, 1000), st.data())
def test_seeks_lead_to_the_block(stop: int, start: int, place: int, data: st.DataObject) -> None:
    start %= stop
    reader = reader_of(WRITER, start)
    request = SeekRequest(place % (WRITER.head.byte_length + 10), 0)
    proof = WRITER.answer(seek=request, upgrade=UpgradeRequest(start, stop - start))
    try:
        changes = reader.receive(proof)
    except InvalidProof:
        # The offset falls into what the reader has, and a sparse reader cannot tell.
        assert request.bytes < reader.head.byte_length
        return
    assert_true(changes)
    index = data.draw(st.integers(0, 63))
    nodes = reader.missing(2 * index)
    changes = reader.receive(WRITER.answer(block=BlockRequest(index, nodes)))
    assert_true(changes)


def test_a_stored_node_needs_no_path() -> None:
    changes = verify_proof(
        WRITER.answer(block=BlockRequest(3, 0)), WRITER.head, WRITER.nodes.get, None
    )
    assert changes == Changeset(blocks=[(3, BLOCKS[3])])


# --- upgrades, forks, manifests, prologues ----------------------------------------------


def test_an_upgrade_needs_a_verifier() -> None:
    proof = WRITER.answer(upgrade=UpgradeRequest(0, 64))
    with pytest.raises(InvalidSignature, match="manifest is not known"):
        verify_proof(proof, EMPTY_HEAD, NOTHING.get, None)


def test_a_stale_upgrade_is_refused() -> None:
    proof = WRITER.answer(upgrade=UpgradeRequest(10, 5))
    with pytest.raises(InvalidProof, match="from 10"):
        verify_proof(proof, reader_of(WRITER, 12).head, NOTHING.get, VERIFIER)


def test_only_an_empty_log_takes_a_later_fork() -> None:
    writer = writer_of(BLOCKS)
    writer.truncate(30, fork=9)
    proof = writer.answer(upgrade=UpgradeRequest(0, 30))
    assert verify_proof(proof, EMPTY_HEAD, NOTHING.get, VERIFIER).head == writer.head
    with pytest.raises(InvalidProof, match="fork 9"):
        verify_proof(proof, READERS[16].head, READERS[16].nodes.get, VERIFIER)
    later = writer_of(BLOCKS[:1])
    later.truncate(0, fork=10)
    with pytest.raises(InvalidProof, match="fork 9"):
        verify_proof(proof, later.head, NOTHING.get, VERIFIER)
    with pytest.raises(InvalidProof, match="fork 9"):
        verify_proof(replace(proof, upgrade=None), EMPTY_HEAD, NOTHING.get, VERIFIER)


def test_the_manifest_comes_along() -> None:
    proof = replace(WRITER.answer(upgrade=UpgradeRequest(0, 64)), manifest=MANIFEST)
    assert verify_proof(proof, EMPTY_HEAD, NOTHING.get, VERIFIER).manifest == MANIFEST
    assert verify_proof(
        Proof(0, manifest=MANIFEST), EMPTY_HEAD, NOTHING.get, VERIFIER
    ) == Changeset(manifest=MANIFEST)


def prologue_tree(length: int, fixed: int, blocks: Sequence[bytes] = BLOCKS) -> Tree:
    """A log whose first `fixed` blocks are a prologue, signed by the usual key."""
    prologue = Prologue(slow.tree_hash(BLOCKS[:fixed]), fixed)
    manifest = Manifest.multi_signer([Signer(bytes(32), KEY_PAIR.public_key)], prologue=prologue)
    tree = Tree(Verifier(manifest.key, manifest))
    tree.append(blocks[:length])
    tree.head = replace(tree.head, signature=tree.verifier.sign(tree.head, KEY_PAIR))
    return tree


@pytest.mark.parametrize(("length", "fixed"), [(6, 6), (7, 6), (20, 6), (8, 8), (20, 8), (64, 1)])
def test_a_prologue_is_proven_first_then_the_rest(length: int, fixed: int) -> None:
    writer = prologue_tree(length, fixed)
    for asked in {1, fixed, length}:
        proof = writer.answer(upgrade=UpgradeRequest(0, asked))
        assert proof.upgrade is not None
        assert (proof.upgrade.start, proof.upgrade.length) == (0, fixed)
        reader = Tree(writer.verifier)
        reader.receive(proof)
        assert reader.head == writer.head
    for start in range(fixed, length):
        later = writer.answer(upgrade=UpgradeRequest(start, length - start)).upgrade
        assert later is not None
        assert later.start == start


def test_a_log_with_another_beginning_than_its_prologue_is_refused() -> None:
    false = prologue_tree(20, 6, [b"other", *BLOCKS[1:]])
    with pytest.raises(InvalidProof, match="prologue"):
        Tree(false.verifier).receive(false.answer(upgrade=UpgradeRequest(0, 20)))
    true = prologue_tree(20, 6)
    plain = build_proof(
        ProofRequest(0, upgrade=UpgradeRequest(0, 4)), true.head, true.nodes.get, prologue=None
    )
    with pytest.raises(InvalidProof, match="splits the prologue"):
        Tree(true.verifier).receive(plain)


def test_what_stands_in_place_of_a_prologues_signature_is_not_kept_if_it_is_large() -> None:
    """Nobody looks at it: a peer could have us keep, and pass on, what it likes."""
    for length, size, kept in ((6, 4096, 4096), (6, 4097, 0), (7, None, None)):
        writer = prologue_tree(length, 6)
        proof = writer.answer(upgrade=UpgradeRequest(0, length))
        assert proof.upgrade is not None
        signature = proof.upgrade.signature if size is None else bytes(size)
        reader = Tree(writer.verifier)
        reader.receive(replace(proof, upgrade=replace(proof.upgrade, signature=signature)))
        assert reader.head.signature == signature[:kept]


def test_a_prologue_is_not_split_from_behind_either() -> None:
    """Not even by a reader that has a part of it, which none can have been given."""
    writer = prologue_tree(8, 6)
    reader = Tree(writer.verifier)
    reader.append(BLOCKS[:4])
    plain = build_proof(
        ProofRequest(0, upgrade=UpgradeRequest(4, 4)), writer.head, writer.nodes.get, prologue=None
    )
    with pytest.raises(InvalidProof, match="splits the prologue of 6"):
        reader.receive(plain)


def test_nodes_added_to_an_upgrade_lead_to_a_longer_log() -> None:
    proof = WRITER.answer(upgrade=UpgradeRequest(0, 40))
    upgrade = proof.upgrade
    assert upgrade is not None
    assert upgrade.additional_nodes
    stray = [*upgrade.additional_nodes[:-1], WRITER.nodes[127 - 8]]
    with pytest.raises(InvalidProof, match="do not lead from 40"):
        verify_proof(
            replace(proof, upgrade=replace(upgrade, additional_nodes=stray)),
            *(EMPTY_HEAD, NOTHING.get, VERIFIER),
        )


def test_a_log_is_no_longer_than_can_be_written_down() -> None:
    for index, size, text in (
        (2**52 - 1, 5, "a log of 4503599627370496"),
        (0, HUGE + 1, "1 blocks and 9"),
    ):
        node = MerkleNode(TreeIndex(index), size, bytes(32))
        length = index + 1
        upgrade = UpgradeProof(0, length, [node], [], b"")
        with pytest.raises(InvalidProof, match=text):
            verify_proof(Proof(0, upgrade=upgrade), EMPTY_HEAD, NOTHING.get, VERIFIER)


def test_a_path_is_no_longer_than_any_log_has() -> None:
    proof = WRITER.answer(block=BlockRequest(3, 6))
    assert proof.block is not None
    siblings = [proof.block.nodes[0]] * 65
    with pytest.raises(InvalidProof, match="a path of 65 nodes"):
        verify_proof(
            replace(proof, block=replace(proof.block, nodes=siblings)),
            *(WRITER.head, WRITER.nodes.get, None),
        )


def test_a_seek_does_not_end_at_the_node_that_is_asked_for() -> None:
    node = WRITER.nodes[7]
    proof = Proof(0, hash=HashProof(7, [node]), seek=SeekProof(1, [node]))
    with pytest.raises(InvalidProof, match="the very node"):
        verify_proof(proof, WRITER.head, WRITER.nodes.get, None)


# --- bad requests -----------------------------------------------------------------------

request_numbers = st.one_of(st.integers(0, 70), st.sampled_from([2**31, 2**52, HUGE]))
any_request = st.builds(
    ProofRequest,
    st.just(0),
    st.none() | st.builds(BlockRequest, request_numbers, request_numbers),
    st.none() | st.builds(HashRequest, request_numbers, request_numbers),
    st.none() | st.builds(SeekRequest, st.integers(0, 700) | request_numbers, request_numbers),
    st.none() | st.builds(UpgradeRequest, request_numbers, request_numbers),
)


@given(any_request, st.sampled_from([0, 1, 5, 16, 64]))
def test_any_request_is_answered_or_invalid(request_: ProofRequest, length: int) -> None:
    for tree in (READERS[length], WRITER):
        block = None
        if request_.block is not None:
            block = tree.blocks.get(request_.block.index)
        try:
            build_proof(request_, tree.head, tree.nodes.get, block)
        except InvalidRequest:
            continue


def test_an_empty_log_answers_with_nothing() -> None:
    for request in (
        ProofRequest(0, block=BlockRequest(0, 0)),
        ProofRequest(0, upgrade=UpgradeRequest(0, 1)),
    ):
        assert build_proof(request, EMPTY_HEAD, NOTHING.get) == Proof(0)
    assert verify_proof(Proof(0), EMPTY_HEAD, NOTHING.get, None) == Changeset()


def test_a_block_that_is_not_here_is_no_proof() -> None:
    request = ProofRequest(0, block=BlockRequest(3, 1))
    with pytest.raises(InvalidRequest, match="block 3"):
        build_proof(request, WRITER.head, WRITER.nodes.get, None)
    with pytest.raises(InvalidRequest, match="tree node 4"):
        build_proof(request, WRITER.head, NOTHING.get, BLOCKS[3])
    with pytest.raises(InvalidRequest, match="block 64"):
        build_proof(ProofRequest(0, block=BlockRequest(64, 0)), WRITER.head, NOTHING.get, b"")
