"""What floods of useless messages cost, in work that can be counted, and that others are served.

With a clock, over TCP: `python -m tests.hypercore.hostile_campaign`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hypercore.merkle import MerkleNode
from hypercore.replication.uploads import MAX_WAITING
from tests.support.hostile_peers import FLOODS
from tests.support.memory_log import MemoryLog
from tests.support.replicated_logs import KEY_PAIR, block, copy_of, reader
from tests.support.replicator_pair import Channel, Node, settle

LENGTH = 200
ROUNDS = 30


class CountingLog(MemoryLog):
    """Counts what is read of it."""

    def __init__(self) -> None:
        super().__init__(KEY_PAIR)
        self.reads = 0

    def read_node(self, index: int) -> MerkleNode | None:
        self.reads += 1
        return super().read_node(index)

    def read_blocks(self, indices: Sequence[int]) -> list[bytes | None]:
        self.reads += len(indices)
        return super().read_blocks(indices)


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_costs_no_more_than_it_is_long(kind: str) -> None:
    log = CountingLog()
    log.append([block(index) for index in range(LENGTH)])
    node = Node(log)
    hostile, _ = node.replicator.add_peer()
    batch = FLOODS[kind]
    commits = log.commits
    messages = received = sent = 0
    for now in range(ROUNDS):
        messages += len(batch)
        received += sum(len(payload) for _, payload in batch)
        node.replicator.receive(hostile, batch, float(now))
        assert len(hostile.uploads) <= MAX_WAITING
        while answers := node.replicator.take(hostile, 1 << 16):
            sent += sum(len(payload) for _, payload in answers)
    assert log.commits == commits
    assert log.reads <= messages
    assert sent <= received + 100
    # A good peer, beside it or after it, gets everything.
    target = Node(reader())
    target.want(range(LENGTH))
    settle(Channel(node, target))
    assert target.log.blocks == log.blocks


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_does_not_keep_a_reader_from_others(kind: str) -> None:
    source = MemoryLog(KEY_PAIR)
    source.append([block(index) for index in range(LENGTH)])
    target = Node(reader())
    hostile, outputs = target.replicator.add_peer()
    target.want(range(LENGTH))
    honest = Channel(Node(copy_of(source)), target)
    for now in range(ROUNDS):
        outputs = target.replicator.receive(hostile, FLOODS[kind], float(now))
        target.carry_out(outputs)
        target.replicator.take(hostile, 1 << 16)
    settle(honest)
    assert target.log.blocks == source.blocks
