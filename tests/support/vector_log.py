"""The log of 64 blocks that the JS vectors are about."""

from __future__ import annotations

import json
from pathlib import Path

from hypercore.log import Changeset
from hypercore.merkle import MerkleNode
from tests.support.trees import writer_of

VECTORS = Path(__file__).parent.parent / "vectors" / "hypercore"
TREES = json.loads((VECTORS / "trees.json").read_text())
BLOCKS = [bytes.fromhex(block) for block in TREES["blocks"]]
WRITER = writer_of(BLOCKS)
NOTHING: dict[int, MerkleNode] = {}


def assert_true(changes: Changeset) -> None:
    """Nothing in `changes` differs from the log."""
    for node in changes.nodes:
        assert WRITER.nodes[node.index] == node
    for index, block in changes.blocks:
        assert BLOCKS[index] == block
    assert changes.head in (None, WRITER.head)
