"""Proofs: JS vectors, all shapes of honest proofs, and every way to spoil one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hypercore.crypto import KeyPair
from hypercore.encoding import Reader, encode_array, encode_buffer, encode_uint
from hypercore.log import EMPTY_HEAD, Changeset, append
from hypercore.manifest import Manifest, Verifier
from hypercore.merkle import MerkleNode, encode_node
from hypercore.proof import (
    BlockRequest,
    HashRequest,
    InvalidRequest,
    Proof,
    ProofRequest,
    SeekRequest,
    UpgradeRequest,
    build_proof,
)

VECTORS = Path(__file__).parent.parent / "vectors" / "hypercore"


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text())


TREES = load("trees")
BLOCKS = [bytes.fromhex(block) for block in TREES["blocks"]]
KEY_PAIR = KeyPair.from_seed(bytes.fromhex(TREES["seed"]))
VERIFIER = Verifier(
    bytes.fromhex(TREES["key"]), Manifest.decode(Reader(bytes.fromhex(TREES["manifest"])))
)


class Tree:
    """A log in memory: its head, nodes and blocks."""

    def __init__(self) -> None:
        self.head = EMPTY_HEAD
        self.nodes: dict[int, MerkleNode] = {}
        self.blocks: dict[int, bytes] = {}

    def commit(self, changes: Changeset) -> None:
        self.nodes.update((node.index, node) for node in changes.nodes)
        self.blocks.update(changes.blocks)
        if changes.head is not None:
            self.head = changes.head

    def append(self, blocks: list[bytes]) -> None:
        self.commit(append(self.head, blocks, lambda head: VERIFIER.sign(head, KEY_PAIR)))


def tree_of(length: int) -> Tree:
    tree = Tree()
    if length:
        tree.append(BLOCKS[:length])
    return tree


def encode_data(proof: Proof) -> str:
    """The wire's `data` message with request id 1."""
    parts = [proof.block, proof.hash, proof.seek, proof.upgrade]
    flags = sum(1 << i for i, part in enumerate(parts) if part is not None)
    out = encode_uint(flags) + b"\x01" + encode_uint(proof.fork)
    if proof.block:
        assert proof.block.value is not None
        out += encode_uint(proof.block.index) + encode_buffer(proof.block.value)
        out += encode_array(map(encode_node, proof.block.nodes))
    if proof.hash:
        out += encode_uint(proof.hash.index) + encode_array(map(encode_node, proof.hash.nodes))
    if proof.seek:
        out += encode_uint(proof.seek.bytes) + encode_array(map(encode_node, proof.seek.nodes))
    if proof.upgrade:
        out += encode_uint(proof.upgrade.start) + encode_uint(proof.upgrade.length)
        out += encode_array(map(encode_node, proof.upgrade.nodes))
        out += encode_array(map(encode_node, proof.upgrade.additional_nodes))
        out += encode_buffer(proof.upgrade.signature)
    return out.hex()


def request_of(vector: dict[str, Any]) -> ProofRequest:
    return ProofRequest(
        0,
        BlockRequest(**vector["block"]) if "block" in vector else None,
        HashRequest(**vector["hash"]) if "hash" in vector else None,
        SeekRequest(**vector["seek"]) if "seek" in vector else None,
        UpgradeRequest(**vector["upgrade"]) if "upgrade" in vector else None,
    )


def test_proofs_are_those_of_js() -> None:
    tree = tree_of(len(BLOCKS))
    for vector in load("proofs")["proofs"]:
        request = request_of(vector["request"])
        block = BLOCKS[request.block.index] if request.block else None
        if vector["error"]:
            with pytest.raises(InvalidRequest):
                build_proof(request, tree.head, tree.nodes.get, block)
            continue
        proof = build_proof(request, tree.head, tree.nodes.get, block)
        assert encode_data(proof) == vector["wire"], vector
