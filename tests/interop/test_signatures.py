"""Signatures of every kind of manifest: hypercore and we give the same verdicts and bytes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from hypercore.crypto import KeyPair
from hypercore.log import EMPTY_HEAD, Changeset, Head, append
from hypercore.manifest import DEFAULT_NAMESPACE, Manifest, Prologue, Signer
from hypercore.merkle import MerkleNode
from hypercore.multisig import sign_part
from hypercore.verifier import PartialSignature, Verifier

pytestmark = pytest.mark.interop

HERE = Path(__file__).parent
BLOCKS = [b"block %d" % index for index in range(20)]
KEY_PAIRS = [KeyPair.from_seed(bytes([seed]) * 32) for seed in range(1, 4)]
SIGNERS = [Signer(DEFAULT_NAMESPACE, key_pair.public_key) for key_pair in KEY_PAIRS]


def ask(questions: list[dict[str, Any]]) -> list[Any]:
    done = subprocess.run(
        ["node", "signature_oracle.cjs"],
        cwd=HERE,
        input=json.dumps(questions).encode(),
        capture_output=True,
        check=True,
    )
    answers: list[Any] = json.loads(done.stdout)
    assert len(answers) == len(questions)
    return answers


def log_of(length: int) -> tuple[Head, Changeset]:
    changes = append(EMPTY_HEAD, BLOCKS[:length], lambda _: b"")
    assert changes.head is not None
    return changes.head, changes


def fields(nodes: Iterator[MerkleNode]) -> list[tuple[int, int, str]]:
    return [(node.index, node.size, node.hash.hex()) for node in nodes]


def verify_question(verifier: Verifier, head: Head, signature: bytes) -> dict[str, Any]:
    return {
        "kind": "verify",
        "key": verifier.key.hex(),
        "manifest": verifier.manifest.encode().hex(),
        "head": {"fork": head.fork, "length": head.length, "roots": fields(iter(head.roots))},
        "signature": signature.hex(),
    }


def part_of(verifier: Verifier, signer: int, length: int, signed: int) -> PartialSignature:
    longer, changes = log_of(signed)
    nodes: dict[int, MerkleNode] = {node.index: node for node in changes.nodes}
    return sign_part(verifier, longer, nodes.get, KEY_PAIRS[signer], length)


def multi_signers() -> Iterator[Verifier]:
    for version, quorum, allow_patch in product((0, 1, 2), (1, 2, 3), (False, True)):
        manifest = Manifest.multi_signer(
            SIGNERS, quorum=quorum, version=version, allow_patch=allow_patch
        )
        yield Verifier(manifest.key, manifest)


def test_multisignatures_and_patches() -> None:
    questions, ours, assembled = [], [], []
    for verifier, length in product(multi_signers(), (1, 5, 8)):
        head, _ = log_of(length)
        for lengths in product((length, length + 1, 20), repeat=2):
            parts = [part_of(verifier, 0, length, lengths[0])]
            parts.append(part_of(verifier, 2, length, lengths[1]))
            signature = verifier.assemble(parts)
            questions.append(verify_question(verifier, head, signature))
            ours.append(verifier.verify(head, signature))
            assembled.append(
                {
                    "kind": "assemble",
                    "version": verifier.manifest.version,
                    "parts": [
                        {
                            "signer": part.signer,
                            "signature": part.signature.hex(),
                            "patch": part.patch_length,
                            "nodes": fields(iter(part.nodes)),
                        }
                        for part in parts
                    ],
                }
            )
    assert ask(questions) == ours
    assert 0 < sum(ours) < len(ours)
    theirs = ask(assembled)
    assert theirs == [question["signature"] for question in questions]


def test_single_signers_compat_cores_and_prologues() -> None:
    fixed, _ = log_of(6)
    manifests = [Manifest.single_signer(SIGNERS[0].public_key, version) for version in range(4)]
    prologue = Prologue(fixed.tree_hash, 6)
    manifests.append(Manifest.multi_signer(SIGNERS[:1], prologue=prologue))
    verifiers = [Verifier(manifest.key, manifest) for manifest in manifests]
    verifiers.append(Verifier(SIGNERS[0].public_key, manifests[1]))
    questions, ours = [], []
    for verifier, length in product(verifiers, (1, 6, 9)):
        head, _ = log_of(length)
        signature = verifier.sign(head, KEY_PAIRS[0])
        for data in (signature, b"", signature[:-1], signature[1:], signature + b"\x00"):
            questions.append(verify_question(verifier, head, data))
            ours.append(verifier.verify(head, data))
    assert ask(questions) == ours
    assert 0 < sum(ours) < len(ours)
