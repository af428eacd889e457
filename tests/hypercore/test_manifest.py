"""Manifests and signatures: JS vectors, quorums, patches, and bytes that are neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hypercore.crypto import KeyPair
from hypercore.encoding import Reader
from hypercore.log import EMPTY_HEAD, Head, append
from hypercore.manifest import (
    DEFAULT_NAMESPACE,
    Manifest,
    Prologue,
    Signer,
    Verifier,
)

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
        # Only the patch length may change: patches are not allowed, so nobody looks at it.
        is_ignored = len(signature) == 68 and place >= 66
        assert verifier.verify(head, bytes(spoiled)) == is_ignored or place >= 66
    assert not verifier.verify(head, b"")


@pytest.mark.parametrize("vector", PATCHED, ids=lambda vector: str(vector["name"]))
def test_a_multisignature_with_patches_verifies(vector: dict[str, Any]) -> None:
    verifier = Verifier(bytes.fromhex(vector["key"]), decode(bytes.fromhex(vector["encoded"])))
    head = head_of([bytes.fromhex(block) for block in vector["blocks"]][: vector["length"]])
    assert verifier.verify(head, bytes.fromhex(vector["signature"])) == vector["valid"]
    assert verifier.verify(head, bytes.fromhex(vector["nopatch"])) == vector["nopatchValid"]
