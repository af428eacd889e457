"""Peers that push send the least that leads to a key: it is enough, here and later, and little."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bee import Bee, CorruptTree, Entry
from bee.btree import MAX_DEPTH
from bee.cache import NodeCache
from bee.descent import locate
from bee.extension import NAME
from bee.extension_messages import CacheHint, GetRequest, IteratorRequest, decode_extension
from bee.hints import Hints
from bee.log import LogPeer
from bee.node_reader import NodeReader, decode_ref, root_ref
from hypercore import open_corestore
from hypercore.encoding import Reader, encode_buffer
from hypercore.errors import BlockNotAvailable
from hypercore.replication.expected import PATIENCE_SECONDS
from hypercore.replication.peer_handle import PeerHandle
from tests.bee.test_corrupt import HEADER, Level, block, leaf
from tests.bee.test_first_value import ROUND_TRIP_SECONDS, connecting
from tests.bee.test_pushes import COUNT, copies
from tests.support.bee_log import BeeLog, Bystander, RemoteLog
from tests.support.replicating_cores import replicating

ORDERS = ("random", "up", "down", "sweeps")


async def write(
    bee: Bee, order: str, count: int, rng: random.Random, *, deletes: bool = True
) -> set[bytes]:
    """Even numbers in that order, some of them gone again; returns which are there."""
    numbers = list(range(0, 2 * count, 2))
    if order == "random":
        rng.shuffle(numbers)
    elif order == "down":
        numbers.reverse()
    elif order == "sweeps":
        numbers = [number for start in range(7) for number in numbers[start::7]]
    there: set[bytes] = set()
    while numbers:
        size = rng.choice((1, 5, 60))
        part, numbers = numbers[:size], numbers[size:]
        async with bee.batch() as batch:
            for number in part:
                there.add(b"%05d" % number)
                await batch.put(b"%05d" % number, b"value")
            gone = min(len(there), size) // 4 if deletes else 0
            for key in rng.sample(sorted(there), gone):
                there.discard(key)
                await batch.delete(key)
    return there


class Abandoned(RemoteLog):
    """Its peers are gone."""

    @property
    def peers(self) -> Sequence[LogPeer]:
        return ()


@settings(max_examples=60)
@given(st.sampled_from(ORDERS), st.integers(30, 500), st.integers(0, 2**32))
def test_it_takes_one_round_trip_and_what_came_is_enough_for_later(
    order: str, count: int, seed: int
) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        log = BeeLog()
        writer = Bee(log)
        there = await write(writer, order, count, rng)
        remote = RemoteLog(log, pushes=True)
        bee = Bee(remote)
        assert (await bee.get(b"00000") is not None) == (b"00000" in there)
        read = [b"%05d" % rng.randrange(2 * count + 2) for _ in range(40)]
        for number, key in enumerate(read):
            before = remote.trips
            if number % 5:
                keys = [key]
                found = [await bee.get(key)]
            else:
                keys = [key, *read[:number:9]]
                found = await bee.get_many(keys)
            assert [entry is not None for entry in found] == [one in there for one in keys]
            assert remote.trips <= before + 1
        abandoned = Abandoned(log)
        abandoned.held = remote.held
        later = Bee(abandoned)
        for key in read:
            assert (await later.get(key) is not None) == (key in there)
        assert abandoned.trips == 0

    trio.run(run)


@settings(max_examples=60)
@given(st.sampled_from(ORDERS), st.integers(30, 500), st.integers(0, 2**32))
@example("sweeps", 270, 270)  # where the range ends is between two keys of which one is not here
def test_ranges_take_one_round_trip_and_are_there_later(order: str, count: int, seed: int) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        log = BeeLog()
        there = sorted(await write(Bee(log), order, count, rng))
        remote = RemoteLog(log, pushes=True)
        bee = Bee(remote)
        assert (await bee.get(b"00000") is not None) == (b"00000" in there)
        read = []
        for _ in range(20):
            start = rng.randrange(2 * count + 2)
            bounds = (b"%05d" % start, b"%05d" % (start + rng.choice((1, 7, 100))))
            is_reverse, limit = rng.random() < 0.3, rng.choice((None, None, 1, 5))
            expected = [key for key in there if bounds[0] <= key < bounds[1]]
            expected = (expected[::-1] if is_reverse else expected)[:limit]
            read.append((bounds, is_reverse, limit, expected))
        for log_read, most in ((remote, 1), (Abandoned(log), 0)):
            log_read.held = remote.held
            reader = bee if log_read is remote else Bee(log_read)
            for (gte, lt), is_reverse, limit, expected in read:
                before = log_read.trips
                entries = reader.range(gte=gte, lt=lt, reverse=is_reverse, limit=limit)
                assert [entry.key async for entry in entries] == expected
                assert log_read.trips <= before + most

    trio.run(run)


@settings(max_examples=40)
@given(st.sampled_from(ORDERS), st.integers(1, 400), st.integers(0, 2**32), st.booleans())
def test_the_key_of_a_block_is_said_to_be_below_only_where_it_is(
    order: str, count: int, seed: int, deletes: bool
) -> None:
    async def run() -> None:
        rng = random.Random(seed)
        log = BeeLog()
        await write(Bee(log), order, count, rng, deletes=deletes)
        reader = NodeReader(NodeCache(1 << 24), log.get_local, Hints())
        told = 0
        ways: list[tuple[bytes, bytes]] = [(root_ref(log.length), b"")]
        while ways:
            ref, parent_ref = ways.pop()
            node = reader.node(ref, parent_ref)
            ways += [(child, ref) for child in node[2]]
            key = reader.own_key(ref)
            if key is None:
                continue
            told += 1
            while True:
                place, is_there = locate(reader, ref, node, key)
                if is_there:
                    break
                ref = node[2][place]
                node = reader.node(ref, b"")
        assert told > 0 or deletes

    trio.run(run)


async def test_what_was_read_is_there_without_peers_after_a_restart(tmp_path: Path) -> None:
    keys = [b"%05d" % number for number in random.Random(3).sample(range(COUNT), 30)]
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        writer = Bee(core)
        async with writer.batch() as batch:
            for number in range(COUNT):
                await batch.put(b"%05d" % number, b"value %d" % number)
        async with open_corestore(tmp_path) as other:
            copy = await other.get(key=core.key)
            async with replicating(core, copy):
                await copy.wait_length(core.length)
                reader = Bee(copy)
                for key in keys:
                    assert await reader.get(key) is not None
            assert copy.info().blocks_held < COUNT / 4
        async with open_corestore(tmp_path) as other:
            bee = Bee(await other.get(key=core.key))
            with trio.fail_after(5):
                for key in keys:
                    entry = await bee.get(key)
                    assert entry is not None
                    assert entry.value == b"value %d" % int(key)


def number_of(payload: bytes) -> int:
    (request,) = decode_extension(Reader(payload).buffer())
    assert isinstance(request, GetRequest | IteratorRequest)
    return request.number


async def test_an_answer_that_names_what_nobody_has_is_waited_for_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copies(answers=False) as (core, copy):
        lost = range(100, 140)
        await core.clear(lost.start, lost.stop)

        async def lie(payload: bytes, _peer: PeerHandle) -> list[bytes]:
            hint = CacheHint(tuple(lost), pushed=True, answers=number_of(payload))
            return [encode_buffer(hint.encode())]

        core.set_extension(NAME, lie)
        bee = Bee(copy)
        started = trio.current_time()
        for number in range(COUNT // 2, COUNT, 50):
            assert await bee.get(b"%05d" % number) is not None
        assert PATIENCE_SECONDS <= trio.current_time() - started < 3 * PATIENCE_SECONDS


async def test_an_answer_that_all_was_sent_ends_the_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by measuring: what a member had pushed by other means was waited for to no end."""
    async with copies(answers=False) as (core, copy):

        async def answer(payload: bytes, _peer: PeerHandle) -> list[bytes]:
            hint = CacheHint((), pushed=True, answers=number_of(payload))
            return [encode_buffer(hint.encode())]

        core.set_extension(NAME, answer)
        bee = Bee(copy)
        started = trio.current_time()
        for number in range(0, COUNT, 100):
            assert await bee.get(b"%05d" % number) is not None
        found = [entry.key async for entry in bee.range(gte=b"00500", lt=b"00510")]
        assert found == [b"%05d" % number for number in range(500, 510)]
        assert trio.current_time() == started


async def test_what_was_to_come_for_who_gave_up_is_requested_for_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with copies(answers=False) as (core, copy):
        bee = Bee(copy)
        silent = False

        async def promise(payload: bytes, _peer: PeerHandle) -> list[bytes]:
            number = number_of(payload)
            return [] if silent else [encode_buffer(CacheHint((), True, number).encode())]

        core.set_extension(NAME, promise)
        assert await bee.get(b"00000") is not None  # it is known to push now, and will not
        silent = True
        with trio.move_on_after(0.1):
            await bee.get(b"01999")
        started = trio.current_time()
        with trio.move_on_after(PATIENCE_SECONDS / 2):
            assert await copy.get(copy.length // 2) is not None
        assert trio.current_time() == started


@pytest.mark.parametrize("count", [2, 100])
async def test_many_at_once_take_two_round_trips(
    count: int, autojump_clock: trio.testing.MockClock
) -> None:
    async with connecting() as copy:
        bee = Bee(copy)
        assert await bee.get_newest(b"01000") is not None
        found: list[Entry | None] = []

        async def read(number: int) -> None:
            found.append(await bee.get(b"%05d" % number))

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for number in random.Random(2).sample(range(COUNT), count):
                nursery.start_soon(read, number)
        assert all(found)
        assert len(found) == count
        assert trio.current_time() - started <= 2 * ROUND_TRIP_SECONDS + 1e-6


@pytest.mark.parametrize(("count", "is_noted"), [(0, True), (128, True), (5_000, False)])
async def test_hints_are_taken_at_once_if_they_are_no_longer_than_ours(
    count: int, is_noted: bool
) -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.put(b"a", b"1")
    seqs = tuple(range(2**53 - count, 2**53))
    payload = encode_buffer(CacheHint(seqs, pushed=True, answers=2**53 - 1).encode())
    peer = RemoteLog(log).owner_peer
    assert log.notes[NAME](payload, peer) == is_noted
    peer.keeps_word = False
    assert not log.notes[NAME](payload, peer)


async def test_what_our_own_log_gave_up_is_asked_of_nobody() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="bee")
        bee = Bee(core)
        for number in range(200):
            await bee.put(b"%03d" % number, b"value")
        copy = await other.get(key=core.key)
        Bee(copy)
        async with replicating(core, copy):
            await copy.wait_length(core.length)
            await copy.download()
            await core.clear(1, 150)
            for _ in range(2):
                with trio.fail_after(1), pytest.raises(BlockNotAvailable):
                    await bee.get(b"010")
                with trio.fail_after(1), pytest.raises(BlockNotAvailable):
                    await bee.get_many([b"010", b"020"])
            await trio.testing.wait_all_tasks_blocked()
            assert core.info().blocks_held == core.length - 149
            assert copy.statistics().replication.total.requests_received == 0


async def test_what_was_announced_and_is_lost_is_not_waited_for_where_others_tell(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found in review: a peer could have a read wait for ever for what it does not take."""
    async with copies(answers=False) as (core, copy):
        reader = NodeReader(NodeCache(1 << 24), core.get_local, Hints())
        children = reader.node(root_ref(core.length), b"")[2]
        lost = sorted({decode_ref(child)[0] for child in children[:-1]})
        for seq in lost:
            await core.clear(seq, seq + 1)

        async def lie(payload: bytes, _peer: PeerHandle) -> list[bytes]:
            hint = CacheHint(tuple(lost), pushed=True, answers=number_of(payload))
            return [encode_buffer(hint.encode())]

        core.set_extension(NAME, lie)
        bee = Bee(copy)
        with trio.fail_after(10 * PATIENCE_SECONDS):
            for number in range(COUNT - 100, COUNT):
                assert await bee.get(b"%05d" % number) is not None


async def test_only_who_was_asked_answers() -> None:
    """Found in review: another peer could end the waits for an answer, with any number."""
    hints, asked, other = Hints(), Bystander(10), Bystander(10)
    question = hints.question(asked)
    hints.answer(question.number, [1], other)
    assert not question.seqs
    hints.answer(question.number, [1], asked)
    assert list(question.seqs) == [1]
    to_all = hints.question()
    hints.answer(to_all.number, [], other)
    assert to_all.is_answered


class CountedReads(Abandoned):
    """Counts how often a block is looked at."""

    looks = 0

    def get_local(self, index: int) -> bytes | None:
        self.looks += 1
        return super().get_local(index)


async def test_keys_that_are_not_here_are_not_looked_for_behind_thousands_of_nodes() -> None:
    """A get from a member of a mesh with such a block took seconds, in which nobody else ran."""
    keys, passed, levels, last = range(2, 10), 8_000, MAX_DEPTH - 2, 11
    chains = 1 + passed + levels
    nodes: list[Level] = []
    for level in range(levels):  # the way, between four lower and four higher nodes
        firsts = [chains + (8 * level + chain) * MAX_DEPTH for chain in range(8)]
        children = [*firsts[:4], passed + min(level + 2, levels), *firsts[4:]]
        nodes.append((keys, [(last, child) for child in children]))
    for number in range(levels * 8 * MAX_DEPTH):
        is_lower = number // MAX_DEPTH % 8 < 4
        below = chains + number + ((number + 1) % MAX_DEPTH > 0)
        nodes.append(([1 if is_lower else 10], [(last, below)] * 2))
    root: Level = ([1], [(last, passed + 1)] * 2)
    owner = BeeLog([HEADER, leaf(1), *map(leaf, keys), block([([10], [])], b"key-99")])
    owner.append_nowait([block([root, *[([], [])] * passed, *nodes], b"key-5")])
    log = CountedReads(owner)
    log.held = {seq: owner.blocks[seq] for seq in (0, 1, 2, 9, 10, last)}
    with pytest.raises(CorruptTree, match="deeper"):
        await Bee(log).get(b"key-5x")
    assert log.looks < 1_000
