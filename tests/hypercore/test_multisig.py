"""Collecting signatures: any signers in any order, ahead or not, in every version."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.errors import InvalidSignature, NotWritable, UsageError
from hypercore.log import EMPTY_HEAD, Changeset, Head, append
from hypercore.manifest import Manifest, Prologue
from hypercore.merkle import MerkleNode
from hypercore.multisig import (
    SignatureCollector,
    explain_refusal,
    patch_nodes,
    sign_part,
    signable_length,
)
from hypercore.verifier import PartialSignature, Verifier

PAIRS = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(5)]
KEYS = [pair.public_key for pair in PAIRS]
BLOCKS = [bytes([number]) * (number % 7) for number in range(40)]


def log_of(length: int) -> tuple[Head, dict[int, MerkleNode]]:
    changes = (
        append(EMPTY_HEAD, BLOCKS[:length], lambda _: b"") if length else Changeset(EMPTY_HEAD)
    )
    assert changes.head is not None
    return changes.head, {node.index: node for node in changes.nodes}


def verifier_of(manifest: Manifest) -> Verifier:
    return Verifier(manifest.key, manifest)


@settings(max_examples=50)
@given(st.data())
def test_a_quorum_makes_a_signature_and_fewer_do_not(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 5))
    manifest = Manifest.multi_signer(
        KEYS[:count],
        quorum=data.draw(st.integers(1, count)),
        version=data.draw(st.integers(0, 3)),
        allow_patch=data.draw(st.booleans()),
    )
    verifier = verifier_of(manifest)
    length = data.draw(st.integers(1, 30))
    head, _ = log_of(length)
    collector = SignatureCollector(verifier, head)
    signers = data.draw(st.permutations(range(count)))
    parts = []
    for place, signer in enumerate(signers):
        assert collector.missing == max(manifest.quorum - place, 0)
        assert collector.is_complete == (place >= manifest.quorum)
        assert {one.public_key for one in collector.signed} == {KEYS[i] for i in signers[:place]}
        assert {one.public_key for one in collector.outstanding} == {
            KEYS[i] for i in signers[place:]
        }
        if not collector.is_complete:
            with pytest.raises(UsageError, match=f"{manifest.quorum - place} of {manifest.quorum}"):
                _ = collector.signature
        ahead = data.draw(st.integers(0, 9)) if manifest.allow_patch else 0
        longer, nodes = log_of(length + ahead)
        part = sign_part(verifier, longer, nodes.get, PAIRS[signer], length)
        assert part.patch_length == ahead
        collector.add(part)
        collector.add(part)
        parts.append(part)
    signature = collector.signature
    assert verifier.verify(head, signature)
    again = SignatureCollector(verifier, head)
    for part in data.draw(st.permutations(parts)):
        if verifier.is_bare:
            again.add(part)
        else:
            again.add_encoded(verifier.assemble([part]))
    assert again.signature == signature
    if not verifier.is_bare:
        again.add_encoded(signature)
        assert again.signature == signature


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(0, 20), st.data())
def test_no_part_of_another_log_is_taken(length: int, ahead: int, data: st.DataObject) -> None:
    verifier = verifier_of(Manifest.multi_signer(KEYS[:3], allow_patch=True))
    head, _ = log_of(length)
    longer, nodes = log_of(length + ahead)
    part = sign_part(verifier, longer, nodes.get, PAIRS[1], length)
    collector = SignatureCollector(verifier, head)
    place = data.draw(st.integers(0, 63))
    bits = bytearray(part.signature)
    bits[place] ^= 1 << data.draw(st.integers(0, 7))
    wrong = [
        replace(part, signature=bytes(bits)),
        replace(part, signer=0),
        replace(part, patch_length=part.patch_length + 1),
        replace(part, signature=b""),
        replace(part, signer=-1),
    ]
    if ahead:
        wrong.append(replace(part, nodes=part.nodes[1:]))
        wrong.append(replace(part, patch_length=0))
    for one in wrong:
        with pytest.raises(InvalidSignature):
            collector.add(one)
    other = SignatureCollector(verifier, replace(head, fork=1))
    with pytest.raises(InvalidSignature, match="fork 1"):
        other.add(part)
    assert collector.signed == other.signed == ()
    collector.add(part)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_part_or_refused(data: bytes) -> None:
    collector = SignatureCollector(verifier_of(Manifest.multi_signer(KEYS[:3])), log_of(3)[0])
    if data[:2] == b"\x00\x00":
        collector.add_encoded(data)
    else:
        with pytest.raises(InvalidSignature):
            collector.add_encoded(data)
    assert collector.missing == 2


def test_nodes_of_others_are_not_kept() -> None:
    verifier = verifier_of(Manifest.multi_signer(KEYS[:3], allow_patch=True))
    head, _ = log_of(3)
    parts = []
    for signer, length in enumerate((7, 3, 12)):
        longer, nodes = log_of(length)
        parts.append(sign_part(verifier, longer, nodes.get, PAIRS[signer], 3))
    together = verifier.assemble(parts)
    apart = verifier.disassemble(together)
    collector = SignatureCollector(verifier, head)
    collector.add(apart[1])
    collector.add(apart[0])
    assert collector.signature == verifier.assemble(parts[:2])


def test_signable_length_is_what_a_quorum_has() -> None:
    lengths = [6, 2, 3]
    assert [signable_length(lengths, quorum) for quorum in (0, 1, 2, 3, 4)] == [6, 6, 3, 2, 0]
    assert signable_length([], 1) == 0
    assert lengths == [6, 2, 3]


def test_parts_that_cannot_be_made() -> None:
    verifier = verifier_of(Manifest.multi_signer(KEYS[:3], allow_patch=True))
    head, nodes = log_of(8)
    with pytest.raises(NotWritable, match="not a signer"):
        sign_part(verifier, head, nodes.get, PAIRS[4])
    for length in (-1, 9):
        with pytest.raises(UsageError, match=f"a part for {length} blocks from a log of 8"):
            sign_part(verifier, head, nodes.get, PAIRS[0], length)
    with pytest.raises(UsageError, match="tree node 11 is not here"):
        patch_nodes(head, lambda index: None if index == 11 else nodes.get(index), 4)
    assert [node.index for node in patch_nodes(head, nodes.get, 4)] == [11]


def test_why_a_signature_is_refused() -> None:
    verifier = verifier_of(Manifest.multi_signer(KEYS[:3], allow_patch=True))
    head, _ = log_of(4)
    longer, nodes = log_of(6)
    parts = [sign_part(verifier, head, nodes.get, pair) for pair in PAIRS[:3]]
    patched = sign_part(verifier, longer, nodes.get, PAIRS[0], 3)
    strange = PartialSignature(7, parts[0].signature)

    def why(*chosen: PartialSignature) -> str:
        return explain_refusal(verifier, head, verifier.assemble(chosen))

    assert why() == "0 of the 2 signatures that a log of 4 blocks, fork 0 needs"
    assert why(parts[2], parts[2], parts[0]) == "signer 2 signed twice and counts once"
    assert why(parts[2], strange) == "the part of signer 7 is not of a log of 4 blocks, fork 0"
    assert why(patched, parts[1]).startswith("the part of signer 0 with a patch of 3 is not of")
    assert explain_refusal(verifier, head, b"\x02").startswith("1 bytes that are no multisig")
    nobody = verifier_of(Manifest.multi_signer(KEYS[:2], quorum=0))
    assert "a quorum of 0" in explain_refusal(nobody, head, b"\x00\x00")
    single = verifier_of(Manifest.single_signer(KEYS[0], version=0))
    assert explain_refusal(single, head, b"") == "the signature is not of a log of 4 blocks, fork 0"
    fixed = verifier_of(Manifest.multi_signer((), prologue=Prologue(bytes(32), 4)))
    assert "not the prologue of 4 blocks" in explain_refusal(fixed, head, b"")
    beyond = verifier_of(Manifest.multi_signer(KEYS[:3], prologue=Prologue(head.tree_hash, 4)))
    collector = SignatureCollector(beyond, longer)
    for pair in PAIRS[:2]:
        collector.add(sign_part(beyond, longer, nodes.get, pair))
    assert beyond.verify(longer, collector.signature)
    within = SignatureCollector(beyond, log_of(3)[0])
    for pair in PAIRS[:2]:
        within.add(sign_part(beyond, log_of(3)[0], nodes.get, pair))
    with pytest.raises(InvalidSignature, match="not the one its manifest begins with"):
        _ = within.signature
