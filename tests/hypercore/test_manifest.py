"""Manifests and signatures: JS vectors, quorums, patches, and bytes that are neither."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore.crypto import KeyPair
from hypercore.encoding import DecodeError, Reader, encode_array, encode_uint
from hypercore.errors import InvalidManifest, NotWritable
from hypercore.flat_tree import growth
from hypercore.log import EMPTY_HEAD, Head, append
from hypercore.manifest import DEFAULT_NAMESPACE, Manifest, Prologue, Signer
from hypercore.merkle import decode_node, encode_node
from hypercore.proof import Proof, UpgradeRequest, verify_proof
from hypercore.verifier import PartialSignature, Verifier
from tests.support.trees import VERIFIER
from tests.support.vector_log import NOTHING, WRITER

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "hypercore" / "manifests.json").read_text()
)
MANIFESTS = [vector for vector in VECTORS if "manifest" in vector]
CORES = [vector for vector in VECTORS if vector["name"].endswith("core")]
PATCHED = [vector for vector in VECTORS if vector["name"] == "multisig-patch"]

KEY_PAIRS = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(5)]
SIGNERS = [Signer(DEFAULT_NAMESPACE, key_pair.public_key) for key_pair in KEY_PAIRS]


def decode(data: bytes) -> Manifest:
    return Manifest.decode(Reader(data))


def head_of(blocks: list[bytes]) -> Head:
    head = append(EMPTY_HEAD, blocks, lambda _: b"").head
    assert head is not None
    return head


def manifest_of(vector: dict[str, Any]) -> Manifest:
    def optional(value: str | None) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    prologue = vector["prologue"]
    return Manifest(
        version=vector["version"],
        allow_patch=vector["allowPatch"],
        quorum=vector["quorum"],
        signers=tuple(
            Signer(bytes.fromhex(signer["namespace"]), bytes.fromhex(signer["publicKey"]))
            for signer in vector["signers"]
        ),
        prologue=prologue and Prologue(bytes.fromhex(prologue["hash"]), prologue["length"]),
        linked=vector["linked"] and tuple(map(bytes.fromhex, vector["linked"])),
        user_data=optional(vector["userData"]),
    )


@pytest.mark.parametrize("vector", MANIFESTS, ids=lambda vector: str(vector["name"]))
def test_manifests_are_those_of_js(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    assert manifest_of(vector["manifest"]).encode() == encoded
    reader = Reader(encoded + b"more")
    manifest = Manifest.decode(reader)
    assert reader.rest() == b"more"
    assert manifest == manifest_of(vector["roundtrip"])
    assert manifest.encode() == encoded
    assert manifest.key.hex() == vector["key"]


def test_version_0_has_a_prologue_or_signers() -> None:
    prologue = Prologue(bytes([9]) * 32, 5)
    assert Manifest(version=0, quorum=0).encode().hex() == "000002000000"
    fixed = Manifest(version=0, quorum=0, prologue=prologue)
    assert decode(fixed.encode()) == replace(fixed, prologue=replace(prologue, length=0))
    signed = Manifest(version=0, signers=(SIGNERS[0],), prologue=prologue)
    assert decode(signed.encode()) == replace(signed, prologue=None)


@pytest.mark.parametrize("vector", CORES, ids=lambda vector: str(vector["name"]))
def test_heads_signed_by_js_verify(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["key"])
    if vector.get("compat"):
        manifest = Manifest.single_signer(key)
    else:
        manifest = decode(bytes.fromhex(vector["encoded"]))
    verifier = Verifier(key, manifest)
    assert verifier.is_compat == vector.get("compat", False)
    head = head_of([bytes.fromhex(block) for block in vector["blocks"]])
    assert head.tree_hash.hex() == vector["treeHash"]
    signature = bytes.fromhex(vector["signature"])
    assert verifier.verify(head, signature)
    for place in range(len(signature)):
        spoiled = bytearray(signature)
        spoiled[place] ^= 1
        # Where patches are not allowed nobody looks at their length, nor does JS.
        is_patch_length = len(signature) == 68 and place == 66
        assert verifier.verify(head, bytes(spoiled)) == is_patch_length
    assert not verifier.verify(head, b"")


@pytest.mark.parametrize("vector", PATCHED, ids=lambda vector: str(vector["name"]))
def test_a_multisignature_with_patches_verifies(vector: dict[str, Any]) -> None:
    verifier = Verifier(bytes.fromhex(vector["key"]), decode(bytes.fromhex(vector["encoded"])))
    head = head_of([bytes.fromhex(block) for block in vector["blocks"]][: vector["length"]])
    assert verifier.verify(head, bytes.fromhex(vector["signature"])) == vector["valid"]
    assert verifier.verify(head, bytes.fromhex(vector["nopatch"])) == vector["nopatchValid"]


@pytest.mark.parametrize("vector", PATCHED, ids=lambda vector: str(vector["name"]))
def test_every_changed_byte_of_a_multisignature_is_refused(vector: dict[str, Any]) -> None:
    verifier = Verifier(bytes.fromhex(vector["key"]), decode(bytes.fromhex(vector["encoded"])))
    head = head_of([bytes.fromhex(block) for block in vector["blocks"]][: vector["length"]])
    signature = bytes.fromhex(vector["signature"])
    for place in range(len(signature)):
        for bit in (1, 128):
            spoiled = bytearray(signature)
            spoiled[place] ^= bit
            assert not verifier.verify(head, bytes(spoiled)), place
        assert not verifier.verify(head, signature[:place])


BLOCKS = [bytes([i]) * (i % 5) for i in range(40)]


def part(
    verifier: Verifier, signer: int, length: int, signed_length: int | None = None
) -> PartialSignature:
    """Signer's part for a log of `length`, who in fact signed a longer one."""
    longer = signed_length or length
    changes = append(EMPTY_HEAD, BLOCKS[:longer], lambda _: b"")
    assert changes.head is not None
    nodes = {node.index: node for node in changes.nodes}
    return PartialSignature(
        signer,
        verifier.sign(changes.head, KEY_PAIRS[signer]),
        longer - length,
        [nodes[index] for index in growth(length, longer)],
    )


def multi_signer(version: int, quorum: int, *, allow_patch: bool = False) -> Verifier:
    manifest = Manifest.multi_signer(
        SIGNERS[:3], quorum=quorum, version=version, allow_patch=allow_patch
    )
    return Verifier(manifest.key, manifest)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_a_quorum_is_needed_of_different_signers(version: int) -> None:
    verifier = multi_signer(version, 2)
    head = head_of(BLOCKS[:7])
    first, second, third = (part(verifier, signer, 7) for signer in range(3))
    assert verifier.verify(head, verifier.assemble([first, third]))
    assert verifier.verify(head, verifier.assemble([third, second, first]))
    assert not verifier.verify(head, verifier.assemble([first]))
    assert not verifier.verify(head, verifier.assemble([first, first]))
    stranger = PartialSignature(3, second.signature)
    assert not verifier.verify(head, verifier.assemble([first, stranger]))
    swapped = PartialSignature(2, second.signature)
    assert not verifier.verify(head, verifier.assemble([first, swapped]))
    # Only as many parts as the quorum count, so a bad one among the first spoils it.
    assert not verifier.verify(head, verifier.assemble([stranger, first, second]))
    assert not verifier.verify(head_of(BLOCKS[:6]), verifier.assemble([first, third]))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 31])
def test_patches_lead_to_the_longer_log_that_was_signed(version: int, length: int) -> None:
    verifier = multi_signer(version, 2, allow_patch=True)
    head = head_of(BLOCKS[:length])
    for longer in range(length + 1, len(BLOCKS) + 1):
        parts = [part(verifier, 0, length), part(verifier, 1, length, longer)]
        assert verifier.verify(head, verifier.assemble(parts))
        parts[1] = PartialSignature(1, parts[1].signature, parts[1].patch_length, ())
        if version > 0:
            assert not verifier.verify(head, verifier.assemble(parts))
    refusing = multi_signer(version, 2, allow_patch=False)
    assert not refusing.verify(
        head, refusing.assemble([part(refusing, 0, length), part(refusing, 1, length, length + 1)])
    )


@pytest.mark.parametrize(("length", "longer"), [(5, 9), (8, 9), (1, 40), (7, 8)])
def test_version_0_says_where_a_patch_ends_and_which_nodes_it_takes(
    length: int, longer: int
) -> None:
    """Nobody looks at it, but this is what the original writes."""
    verifier = multi_signer(0, 2, allow_patch=True)
    parts = [part(verifier, 2, length), part(verifier, 1, length, longer)]
    reader = Reader(verifier.assemble(parts))
    assert [reader.uint() for _ in range(3)] == [2, 0, 2], "two parts; no patch; signer"
    assert reader.fixed64() == parts[0].signature
    assert [reader.uint(), reader.uint()] == [1, 1], "a patch; signer"
    assert reader.fixed64() == parts[1].signature
    assert [reader.uint(), reader.uint()] == [longer, longer - length]
    assert reader.array(Reader.uint) == list(range(len(parts[1].nodes)))
    assert reader.array(decode_node) == list(parts[1].nodes)
    assert not reader.remaining


def test_all_parts_share_the_nodes_of_a_patch() -> None:
    verifier = multi_signer(1, 2, allow_patch=True)
    parts = [part(verifier, 0, 5, 9), part(verifier, 2, 5, 9)]
    signature = verifier.assemble(parts)
    apart = verifier.disassemble(signature)
    assert [(one.signer, one.patch_length) for one in apart] == [(0, 4), (2, 4)]
    assert list(apart[0].nodes) == list(parts[0].nodes)
    assert verifier.verify(head_of(BLOCKS[:5]), signature)


def test_one_signer_makes_the_form_that_is_stored() -> None:
    head = head_of(BLOCKS[:3])
    manifest = Manifest.single_signer(KEY_PAIRS[0].public_key)
    verifier = Verifier(manifest.key, manifest)
    signature = verifier.sign(head, KEY_PAIRS[0])
    assert (len(signature), signature[:2], signature[-2:]) == (68, b"\x01\x00", b"\x00\x00")
    assert verifier.verify(head, signature)
    with pytest.raises(NotWritable):
        verifier.sign(head, KEY_PAIRS[1])
    version_0 = Manifest.single_signer(KEY_PAIRS[0].public_key, 0)
    assert len(Verifier(version_0.key, version_0).sign(head, KEY_PAIRS[0])) == 64


def test_a_namespace_changes_the_key_and_in_version_0_what_is_signed() -> None:
    head = head_of(BLOCKS[:3])
    for version in (0, 1):
        manifests = [
            Manifest.single_signer(KEY_PAIRS[0].public_key, version, bytes([name]) * 32)
            for name in (1, 2)
        ]
        one, other = (Verifier(manifest.key, manifest) for manifest in manifests)
        assert one.key != other.key
        assert not other.verify(head, one.sign(head, KEY_PAIRS[0]))


def test_a_prologue_needs_no_signature_and_no_other_blocks() -> None:
    fixed = head_of(BLOCKS[:6])
    prologue = Prologue(fixed.tree_hash, 6)
    manifest = Manifest.multi_signer(SIGNERS[:1], prologue=prologue)
    verifier = Verifier(manifest.key, manifest)
    assert verifier.prologue == prologue
    assert verifier.verify(fixed, b"")
    assert not verifier.verify(head_of([*BLOCKS[:5], b"other"]), b"")
    shorter, longer = head_of(BLOCKS[:5]), head_of(BLOCKS[:7])
    assert not verifier.verify(shorter, verifier.sign(shorter, KEY_PAIRS[0]))
    assert not verifier.verify(longer, b"")
    assert verifier.verify(longer, verifier.sign(longer, KEY_PAIRS[0]))
    frozen = Manifest.multi_signer([], prologue=prologue)
    assert frozen.quorum == 0
    assert Verifier(frozen.key, frozen).verify(fixed, b"")
    assert not Verifier(frozen.key, frozen).verify(longer, b"\x00\x00")


def test_a_verifier_wants_the_manifest_of_its_key() -> None:
    manifest = Manifest.single_signer(KEY_PAIRS[0].public_key)
    with pytest.raises(ValueError, match="hashes to"):
        Verifier(KEY_PAIRS[1].public_key, manifest)
    assert Verifier(KEY_PAIRS[0].public_key, manifest).is_compat
    assert not Verifier(manifest.key, manifest).is_compat


def test_a_compat_core_has_no_prologue() -> None:
    manifest = Manifest.multi_signer(SIGNERS[:1], prologue=Prologue(bytes(32), 9))
    verifier = Verifier(KEY_PAIRS[0].public_key, manifest)
    assert verifier.prologue is None
    head = head_of(BLOCKS[:3])
    assert verifier.verify(head, verifier.sign(head, KEY_PAIRS[0]))


def test_default_quorum_is_more_than_half() -> None:
    assert [Manifest.multi_signer(SIGNERS[:n]).quorum for n in range(5)] == [0, 1, 2, 2, 3]
    for quorum in (-1, 3):
        with pytest.raises(ValueError, match="quorum"):
            Manifest.multi_signer(SIGNERS[:2], quorum=quorum)


hashes = st.binary(min_size=32, max_size=32)
signers = st.lists(st.builds(Signer, hashes, hashes), max_size=4).map(tuple)
manifests = st.builds(
    Manifest,
    version=st.integers(1, 3),
    allow_patch=st.booleans(),
    quorum=st.integers(0, 2**53 - 1),
    signers=signers,
    prologue=st.none() | st.builds(Prologue, hashes, st.integers(0, 2**53 - 1)),
    linked=st.none() | st.lists(hashes, max_size=3).map(tuple),
    user_data=st.none() | st.binary(max_size=300),
)


@given(manifests, st.binary(max_size=4))
def test_manifests_round_trip_without_a_length(manifest: Manifest, rest: bytes) -> None:
    reader = Reader(manifest.encode() + rest)
    assert Manifest.decode(reader) == manifest
    assert reader.rest() == rest
    encoded = manifest.encode()
    for stop in range(len(encoded)):
        with pytest.raises(DecodeError):
            Manifest.decode(Reader(encoded, 0, stop))


@given(st.integers(0, 4).map(encode_uint), st.binary(max_size=120))
def test_any_bytes_are_a_manifest_or_a_decode_error(version: bytes, data: bytes) -> None:
    try:
        manifest = decode(version + data)
    except DecodeError:
        return
    assert decode(manifest.encode()) == manifest


def test_what_linked_cores_and_user_data_need_is_chosen() -> None:
    of = partial(Manifest.multi_signer, SIGNERS[:2])
    made = [of(), of(linked=[HASH]), of(user_data=b""), of(linked=[HASH], user_data=b"x")]
    assert [manifest.version for manifest in made] == [1, 2, 2, 2]
    assert not any(manifest.allow_patch for manifest in made)
    assert [manifest.linked for manifest in made] == [None, (HASH,), None, (HASH,)]


@pytest.mark.parametrize(
    "data", ["04", "010001", "00000300", "000100", "0000010101", "01000001010100"]
)
def test_unknown_versions_hashes_and_kinds_are_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode(bytes.fromhex(data) + bytes(64))


SIGNER = Signer(bytes(32), bytes([1]) * 32)
HASH = bytes([9]) * 32


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        (Manifest(signers=(replace(SIGNER, public_key=bytes(31)),)), "hash of 31 bytes"),
        (Manifest(signers=(replace(SIGNER, namespace=bytes(33)),)), "hash of 33 bytes"),
        (Manifest(version=2, linked=(HASH, bytes(8)), signers=(SIGNER,)), "hash of 8 bytes"),
        (Manifest(prologue=Prologue(bytes(4), 1), signers=()), "hash of 4 bytes"),
        (Manifest(version=-1, signers=(SIGNER,)), "version -1, not 0 to 3"),
        (Manifest(version=4, signers=(SIGNER,)), "version 4, not 0 to 3"),
        (Manifest(quorum=-1, signers=(SIGNER,)), "quorum of -1 among 1"),
        (Manifest(quorum=2, signers=(SIGNER,)), "quorum of 2 among 1"),
        (Manifest(quorum=0, prologue=Prologue(HASH, -1)), "prologue of -1 blocks"),
        (Manifest(version=0, prologue=Prologue(HASH, 0), signers=(SIGNER,)), "not both"),
        (Manifest(version=1, user_data=b"", signers=(SIGNER,)), "version 2, not 1"),
        (Manifest(version=1, linked=(), signers=(SIGNER,)), "version 2, not 1"),
    ],
)
def test_what_javascript_does_not_take_for_a_manifest_is_refused(
    manifest: Manifest, text: str
) -> None:
    with pytest.raises(InvalidManifest, match=text):
        manifest.check()


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(version=0, signers=(SIGNER,)),
        Manifest(version=0, quorum=0, prologue=Prologue(HASH, 0)),
        Manifest(version=2, quorum=0, user_data=b"", linked=(), signers=(SIGNER,)),
    ],
)
def test_a_manifest_that_was_handed_over_is_that_of_its_key(manifest: Manifest) -> None:
    encoded = manifest.encode()
    assert Manifest.parse(encoded) == Manifest.parse(encoded, manifest.key) == manifest
    with pytest.raises(InvalidManifest, match="not to 0909"):
        Manifest.parse(encoded, HASH)
    with pytest.raises(InvalidManifest, match="2 bytes too many"):
        Manifest.parse(encoded + b"ab")
    with pytest.raises(InvalidManifest, match="not a manifest"):
        Manifest.parse(encoded[:-1])


def test_a_manifest_that_is_read_may_still_be_none() -> None:
    with pytest.raises(InvalidManifest, match="quorum of 2 among 1"):
        Manifest.parse(Manifest(quorum=2, signers=(SIGNER,)).encode())


huge = st.integers(0, 2**53 - 1).map(encode_uint)


@given(
    st.sampled_from([0, 1]),
    st.booleans(),
    st.binary(max_size=200)
    | st.tuples(st.just(b"\x02\x00"), hashes, hashes, huge, st.just(b"\x01"), hashes, hashes, huge)
    .map(b"".join)
    .map(lambda data: data + b"\x00"),
)
def test_any_bytes_are_no_signature(version: int, allow_patch: bool, signature: bytes) -> None:
    verifier = multi_signer(version, 2, allow_patch=allow_patch)
    assert not verifier.verify(head_of(BLOCKS[:3]), signature)


@given(huge, st.lists(st.tuples(huge, huge, hashes).map(b"".join), max_size=3))
def test_a_patch_of_any_length_and_nodes_is_no_signature(
    patch_length: bytes, nodes: list[bytes]
) -> None:
    verifier = multi_signer(1, 2, allow_patch=True)
    good = part(verifier, 0, 3).signature
    data = b"\x02\x00" + good + b"\x00" + b"\x01" + good + patch_length
    data += encode_uint(len(nodes)) + b"".join(nodes)
    assert not verifier.verify(head_of(BLOCKS[:3]), data)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
@pytest.mark.parametrize("allow_patch", [False, True])
def test_what_nobody_signed_is_trimmed(version: int, allow_patch: bool) -> None:
    """A peer may add to a signature without making it invalid; that is not kept."""
    pairs = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(3)]
    signers = [Signer(DEFAULT_NAMESPACE, pair.public_key) for pair in pairs]
    manifest = Manifest.multi_signer(signers, quorum=2, version=version, allow_patch=allow_patch)
    verifier = Verifier(manifest.key, manifest)
    short, longer = (append(EMPTY_HEAD, [b"x"] * count, lambda _: b"") for count in (5, 9))
    assert short.head is not None
    assert longer.head is not None
    nodes = {node.index: node for node in longer.nodes}
    patch = [nodes[index] for index in growth(5, 9)]
    parts = [PartialSignature(n, verifier.sign(short.head, pairs[n])) for n in range(3)]
    if allow_patch:
        signature = verifier.sign(longer.head, pairs[1])
        parts[1] = PartialSignature(1, signature, 4, patch)
    honest = verifier.assemble(parts)
    assert verifier.verify(short.head, honest)
    assert verifier.trimmed(short.head, honest) == honest
    junk = PartialSignature(2, bytes(64), 4, [*patch, *longer.nodes])
    if allow_patch:
        # A node that is given twice counts as it is given last.
        false = [node._replace(hash=bytes(32)) for node in patch]
        at = len(honest) - len(encode_array(map(encode_node, patch)))
        twice = honest[:at] + encode_array(map(encode_node, [*false, *patch]))
        assert verifier.verify(short.head, twice)
        assert verifier.trimmed(short.head, twice) == honest
    for padded in (
        honest + bytes(1000),
        verifier.assemble([*parts, junk, junk]),
        verifier.assemble([*parts, junk]) + b"tail",
    ):
        assert verifier.verify(short.head, padded)
        assert verifier.trimmed(short.head, padded) == honest


def test_what_a_peer_added_to_a_signature_is_not_stored() -> None:
    proof = WRITER.answer(upgrade=UpgradeRequest(0, 64))
    assert proof.upgrade is not None
    padded = replace(proof.upgrade, signature=proof.upgrade.signature + bytes(1 << 20))
    changes = verify_proof(Proof(0, upgrade=padded), EMPTY_HEAD, NOTHING.get, VERIFIER)
    assert changes.head == WRITER.head
