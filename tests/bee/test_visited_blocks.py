"""Reads of peers, and ours of their bees, go in turns between which others run.

None of them takes for ever.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio

from bee import Bee, Version
from bee.btree import MAX_DEPTH
from bee.extension import NAME
from bee.extension_messages import (
    DiffRequest,
    GetRequest,
    IteratorRequest,
    KeysRequest,
    Request,
)
from bee.hints import MAX_HINTS_PER_REQUEST
from hypercore.encoding import encode_buffer
from hypercore.errors import DamagedBlock
from tests.bee.test_corrupt import HEADER, Level, block, leaf
from tests.bee.test_remote import seqs_of
from tests.support.bee_log import BeeLog, RemoteLog

COUNT = 3_000
AT_ONCE = 256
"""Blocks read in a turn; they take some 3 ms."""

BRANCHES = 8


class TurnLog(BeeLog):
    """Notes how many blocks are read between two pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = [0]
        self.reads: Counter[int] = Counter()
        self.damaged: set[int] = set()
        self.when_paused: Callable[[], None] = lambda: None
        self.when_waited_for: Callable[[], None] = lambda: None

    def get_local(self, index: int) -> bytes | None:
        self.turns[-1] += 1
        self.reads[index] += 1
        if index in self.damaged:
            raise DamagedBlock(index, "the bee", "for this test")
        return super().get_local(index)

    async def wait_change(self, length: int, fork: int) -> None:
        self.when_waited_for()
        await super().wait_change(length, fork)

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        self.when_paused()
        if self.turns[-1]:
            self.turns.append(0)


async def filled() -> TurnLog:
    """Each number twice: half of the blocks tell what version COUNT + 1 does not have."""
    log = TurnLog()
    bee = Bee(log)
    for value in (b"old", b"new"):
        async with bee.batch() as batch:
            for number in range(COUNT):
                await batch.put(b"%05d" % (number * 7919 % COUNT), value)
    return log


async def ask(log: BeeLog, request: Request) -> list[int]:
    """What is answered to a reader that has nothing, by a bee that has read nothing."""
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    payload = encode_buffer(request.encode())
    return seqs_of(list(await log.handlers[NAME](payload, remote.reader_peer)))


@pytest.mark.parametrize(
    "read",
    [
        lambda length: IteratorRequest(length),
        lambda length: IteratorRequest(length, gte=b"00100", lt=b"02950"),
        lambda length: IteratorRequest(length, lt=b"02950", reverse=True, push_from=1, number=1),
        lambda length: DiffRequest(COUNT + 1, IteratorRequest(length), push_from=1),
        lambda length: KeysRequest(length, tuple(b"%05d" % n for n in range(512)), push_from=1),
    ],
)
async def test_others_run_while_a_peers_read_is_walked(read: Callable[[int], Request]) -> None:
    log = await filled()
    log.turns = [0]
    seqs = await ask(log, read(log.length))
    assert len(seqs) == len(set(seqs)) > 500
    assert sum(log.turns) > AT_ONCE
    assert max(log.turns) <= AT_ONCE


async def test_a_walk_whose_log_is_truncated_meanwhile_is_answered_with_nothing() -> None:
    log = await filled()

    def truncate() -> None:
        log.truncate(COUNT)
        log.when_paused = lambda: None

    log.when_paused = truncate
    assert await ask(log, IteratorRequest(log.length, gte=b"00100", lt=b"02950")) == []


def full_of_nodes() -> TurnLog:
    """Each node that is read passes all others of its block: 16,384 of them took half a minute."""
    nodes = BRANCHES**4
    log = TurnLog()
    log.append_nowait([HEADER, leaf(1)])
    for seq in (2, 3):  # a heap of nodes, each with the same key
        children = [[(seq, BRANCHES * n + 1 + i) for i in range(BRANCHES)] for n in range(nodes)]
        levels = [
            ([1] * (BRANCHES - 1), below if below[-1][1] < nodes else []) for below in children
        ]
        log.append_nowait([block(levels, b"key-%d" % seq)])
    return log


async def test_others_run_while_we_find_nothing_in_a_large_bee() -> None:
    """A member of a mesh could stop those who follow it by one block of 200 KB."""
    log = full_of_nodes()
    bee = Bee(log)
    assert [entry async for entry in bee.range(since=2)] == []
    assert [each async for each in bee.diff(3)] == []
    with (
        trio.fail_after(60),
        bee.watch(since=Version(3, 0)) as watch,
        trio.CancelScope() as looking,
    ):
        log.when_waited_for = looking.cancel
        await watch.__anext__()
    assert watch.version == (4, 0)
    assert sum(log.turns) > 3 * BRANCHES**3
    assert max(log.turns) < AT_ONCE


async def test_two_large_versions_that_do_not_differ_are_not_compared_for_ever() -> None:
    log = full_of_nodes()
    with trio.fail_after(60):
        assert await ask(log, DiffRequest(3, IteratorRequest(4), push_from=1)) == [3, 2]
    assert max(log.turns) < 16
    assert sum(log.turns) <= 2 * MAX_HINTS_PER_REQUEST


async def test_of_each_leaf_within_a_range_one_key_is_looked_at() -> None:
    log = await filled()
    log.turns = [0]
    request = IteratorRequest(log.length, gte=b"00500", lt=b"01500", push_from=1, number=1)
    named = await ask(log, request)
    assert len(named) >= 1_000
    assert sum(log.turns) < len(named) // 2


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 2, 7, 40])
async def test_all_entries_of_a_range_are_named_wherever_it_ends(limit: int, reverse: bool) -> None:
    log = await filled()
    bee = Bee(log)
    for start, stop in ((100, 101), (100, 107), (103, 150), (2_950, 4_000), (0, 30)):
        lower, upper = b"%05d" % start, b"%05d" % stop
        entries = bee.range(gte=lower, lt=upper, limit=limit or None, reverse=reverse)
        wanted = [entry.seq async for entry in entries]
        request = IteratorRequest(
            log.length,
            gte=lower,
            lt=upper,
            limit=limit,
            reverse=reverse,
            push_from=1,
            number=1,
        )
        named = await ask(log, request)
        assert set(wanted) <= set(named)
        assert len(named) <= 2 * len(wanted) + 40  # the way there, tree nodes, and what ends it


@pytest.mark.parametrize("reverse", [False, True])
async def test_where_a_range_ends_within_a_leaf_no_block_is_read_for_each_of_its_keys(
    reverse: bool,
) -> None:
    """The last key of the leaf was read again for each one before it."""
    for start in range(100, 120):
        log = await filled()
        lower, upper = b"%05d" % start, b"%05d" % (start + 6)
        log.reads.clear()
        await ask(log, IteratorRequest(log.length, gte=lower, lt=upper, reverse=reverse))
        assert max(log.reads.values()) <= 3  # for a tree node, as the last one, and as a key


@pytest.mark.parametrize("bounds", [{}, {"gte": b"00002"}, {"lt": b"02998", "reverse": True}])
async def test_no_more_blocks_are_named_than_may_be(bounds: dict[str, Any]) -> None:
    log = await filled()
    named = await ask(log, IteratorRequest(log.length, **bounds))
    assert len(named) == MAX_HINTS_PER_REQUEST


async def test_what_comes_before_a_damaged_block_is_named() -> None:
    """Whoever asks has use for it. Where that block was the last of a leaf none of those was."""
    log = await filled()
    request = IteratorRequest(log.length, gte=b"00100", lt=b"00140")
    entries = [entry.seq async for entry in Bee(log).range(gte=b"00100", lt=b"00140")]
    for last_of_leaf in (3, 9, 20, 26, 35):
        log.damaged = {entries[last_of_leaf]}
        assert set(entries[:last_of_leaf]) <= set(await ask(log, request))


def deep_and_late(seq: int) -> bytes:
    """A block with a tree of 31 levels, and a chain beside each, behind 12,000 empty nodes."""
    passed, levels = 12_000, MAX_DEPTH - 1
    chains = 1 + passed + levels
    nodes: list[Level] = []
    for level in range(levels):
        chain = (seq, chains + level * MAX_DEPTH)
        nodes.append(([1], [(seq, passed + 2 + level), chain] if level + 1 < levels else []))
    nodes += [([1], [(seq, chains + number + 1)] * 2) for number in range(levels * MAX_DEPTH)]
    root = ([1], [(seq, passed + 1)] * 2)
    return block([root, *[([], [])] * passed, *nodes], b"key-%d" % seq)


@pytest.mark.parametrize(
    "question",
    [
        GetRequest(3, b"key-0"),
        GetRequest(3, b"key-0", push_from=1, number=1),
        KeysRequest(3, (b"key-0",), push_from=1, number=1),
        IteratorRequest(3, gte=b"key-0"),
        IteratorRequest(3, gte=b"key-0", push_from=1, number=1),
        IteratorRequest(
            3, checkpoint=tuple(n for level in range(30) for n in (2, 12_001 + level, 0))
        ),
    ],
)
async def test_others_run_while_a_hostile_tree_is_descended(question: Request) -> None:
    """Where such a block came from a member of a mesh, each get of it took a second at once."""
    log = TurnLog()
    log.append_nowait([HEADER, leaf(1), deep_and_late(2)])
    await ask(log, question)
    assert sum(log.turns) > MAX_DEPTH
    assert max(log.turns) <= 16
