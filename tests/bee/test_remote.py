"""Reading a log that is elsewhere: how many blocks, in how many round trips."""

from __future__ import annotations

import pytest
import trio

from bee import Bee, CorruptTree, ReadStatistics
from bee.extension import MAX_SEQS_PER_MESSAGE
from bee.extension_messages import (
    CacheHint,
    DiffRequest,
    GetRequest,
    IteratorRequest,
    decode_extension,
)
from bee.hints import MAX_HINTS_PER_REQUEST, Hints
from bee.ranges import ASK_EVERY
from hypercore.encoding import Reader, encode_buffer
from tests.support.bee_log import BeeLog, Bystander, RemoteLog

COUNT = 10_000


_blocks: list[bytes] = []


async def large() -> BeeLog:
    """A log of a large bee; built once."""
    log = BeeLog(_blocks)
    if _blocks:
        return log
    bee = Bee(log)
    for start in range(0, COUNT, 1_000):
        async with bee.batch() as batch:
            for number in range(start, start + 1_000):
                await batch.put(b"%05d" % (number * 7919 % COUNT), b"v")
    _blocks.extend(log.blocks)
    return log


def seqs_of(answers: object) -> list[int]:
    assert isinstance(answers, list)
    seqs: list[int] = []
    for answer in answers:
        (hint,) = decode_extension(Reader(answer).buffer())
        assert isinstance(hint, CacheHint)
        assert 0 < len(hint.seqs) <= MAX_SEQS_PER_MESSAGE
        seqs += hint.seqs
    return seqs


async def test_a_get_with_hints_takes_two_round_trips_and_the_least_blocks() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log)
    bee = Bee(remote)
    snapshot = bee.snapshot()
    found = await snapshot.get(b"04321")
    assert found is not None
    assert found.value == b"v"
    assert remote.trips == 2
    assert snapshot.reads == ReadStatistics(blocks_waited=2, round_trips=2)
    # At each of six levels a node and at most three keys.
    assert len(remote.held) <= 24
    # What is here is not asked for again.
    again = bee.snapshot()
    assert await again.get(b"04321") == found
    assert again.reads == ReadStatistics(0, 0)


async def test_a_get_that_is_pushed_takes_one_round_trip_and_the_least_blocks() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    bee = Bee(remote)
    snapshot = bee.snapshot()
    found = await snapshot.get(b"04321")
    assert found is not None
    assert snapshot.reads.round_trips == remote.trips == 1
    assert len(remote.held) <= 24
    # Of the next one only the part is sent that differs.
    before = len(remote.held)
    assert await bee.get(b"04322") is not None
    assert remote.trips == 2
    assert len(remote.held) - before <= 8


async def test_several_keys_that_are_pushed_take_one_round_trip() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    keys = [b"%05d" % number for number in range(0, COUNT, 500)]
    bee = Bee(remote)
    found = await bee.get_many(keys)
    assert [entry.key for entry in found if entry is not None] == keys
    assert remote.trips == 1
    # Now that the owner is known to push, one message says it.
    asked = len(remote.owner_peer.asked)
    assert all(await bee.get_many([b"%05d" % number for number in range(250, COUNT, 500)]))
    assert remote.trips == 2
    assert len(remote.owner_peer.asked) == asked + 1


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_range_that_is_pushed_takes_one_round_trip(reverse: bool) -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    snapshot = Bee(remote).snapshot()
    entries = [e.key async for e in snapshot.range(gte=b"04000", lt=b"04100", reverse=reverse)]
    assert len(entries) == 100
    assert snapshot.reads.round_trips == remote.trips == 1
    assert len(remote.held) <= 150


async def test_a_full_scan_that_is_pushed_takes_a_few_round_trips() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    assert len([entry async for entry in Bee(remote).range()]) == COUNT
    assert remote.trips <= COUNT // 600
    assert len(remote.held) <= COUNT


@pytest.mark.parametrize("reverse", [False, True])
async def test_of_a_limited_scan_no_more_is_pushed_than_is_left(reverse: bool) -> None:
    """Found in review: each question but the first named all of the limit anew."""
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    limit = MAX_HINTS_PER_REQUEST + 300
    assert len([e async for e in Bee(remote).range(limit=limit, reverse=reverse)]) == limit
    requests = [each for each in remote.owner_peer.asked if isinstance(each, IteratorRequest)]
    assert requests[0].limit == limit
    assert 0 < requests[-1].limit <= limit - ASK_EVERY
    assert len(remote.held) <= limit + 100


async def test_of_a_limited_diff_no_more_is_asked_for_than_is_left() -> None:
    log = BeeLog((await large()).blocks)
    bee = Bee(log)
    version = bee.version
    async with bee.batch() as batch:
        for number in range(0, COUNT, 2):
            await batch.put(b"%05d" % number, b"new")
    remote = RemoteLog(log, pushes=True)
    limit = ASK_EVERY + 300
    assert len([each async for each in Bee(remote).diff(version, limit=limit)]) == limit
    asked = [each for each in remote.owner_peer.asked if isinstance(each, DiffRequest)]
    assert asked[0].range.limit == limit
    assert 0 < asked[-1].range.limit <= limit - ASK_EVERY


async def test_a_diff_that_is_pushed_takes_one_round_trip() -> None:
    log = BeeLog((await large()).blocks)
    bee = Bee(log)
    version = bee.version
    for number in range(0, COUNT, 200):
        await bee.put(b"%05d" % number, b"new")
    remote = RemoteLog(log, pushes=True)
    snapshot = Bee(remote).snapshot()
    differences = [item async for item in snapshot.diff(version)]
    assert len(differences) == COUNT // 200
    assert snapshot.reads.round_trips == remote.trips == 1
    # The other way round, and with bounds, it is asked for as well.
    remote = RemoteLog(log, pushes=True)
    older = Bee(remote).checkout(version)
    assert [item async for item in older.diff(bee.version, gte=b"02000", lt=b"03000", limit=3)]
    assert remote.trips == 1


async def test_pushes_are_asked_of_the_best_peer_and_of_no_other() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log, pushes=True)
    far, short, near = Bystander(COUNT + 1, 0.5), Bystander(COUNT, 0.1), Bystander(COUNT + 1, 0.2)
    remote.bystanders += (far, short, near)
    remote.owner_peer.round_trip_seconds = 0.3
    bee = Bee(remote)
    await bee.get(b"04321")
    # Nobody is known to push: the nearest that has it all is asked to, the others for hints.
    assert [[item.push_from > 0 for item in peer.asked] for peer in (far, short, near)] == [
        [False],
        [False],
        [True],
    ]
    near.keeps_word = False
    await bee.get(b"00321")
    # The owner has shown that it pushes.
    assert remote.trips >= 2
    before = [len(peer.asked) for peer in (far, short, near)]
    await bee.get(b"09321")
    assert [len(peer.asked) for peer in (far, short, near)] == before


async def test_a_get_without_hints_asks_for_the_keys_of_a_node_at_once() -> None:
    log = await large()
    remote = RemoteLog(log)
    snapshot = Bee(remote).snapshot()
    assert await snapshot.get(b"04321") is not None
    assert remote.trips <= 12
    assert len(remote.held) <= 54
    assert snapshot.reads.round_trips == remote.trips


async def test_a_short_range_with_hints_takes_two_round_trips() -> None:
    log = await large()
    Bee(log)
    remote = RemoteLog(log)
    snapshot = Bee(remote).snapshot()
    entries = [e.key async for e in snapshot.range(gte=b"04000", lt=b"04100")]
    assert entries == [b"%05d" % number for number in range(4_000, 4_100)]
    assert remote.trips == 2
    assert snapshot.reads.round_trips == 2
    assert len(remote.held) <= 150


async def test_a_short_range_without_hints_reads_little_too_much() -> None:
    log = await large()
    remote = RemoteLog(log)
    entries = [e.key async for e in Bee(remote).range(gte=b"04000", lt=b"04004")]
    assert len(entries) == 4
    assert len(remote.held) <= 70
    assert remote.trips <= 20


async def test_a_limit_is_kept_on_the_wire() -> None:
    log = await large()
    remote = RemoteLog(log)
    assert await Bee(remote).peek(gte=b"04000") is not None
    assert len(remote.held) <= 60
    before = len(remote.held)
    assert await Bee(remote).peek(gte=b"04000", reverse=True) is not None
    assert len(remote.held) - before <= 60


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("hints", [False, True])
async def test_a_full_scan_asks_for_many_blocks_at_once(hints: bool, reverse: bool) -> None:
    log = await large()
    Bee(log, extension=hints)
    remote = RemoteLog(log)
    count = 0
    async for _ in Bee(remote).range(reverse=reverse):
        count += 1
    assert count == COUNT
    assert len(remote.held) <= COUNT
    assert remote.trips <= (30 if hints else 1_200)


async def test_a_difference_reads_what_differs() -> None:
    log = await large()
    bee = Bee(log)
    before = bee.version
    for number in range(0, COUNT, 2_000):
        await bee.put(b"%05d" % number, b"changed")
    remote = RemoteLog(log)
    differences = [d async for d in Bee(remote).diff(before)]
    assert len(differences) == 5
    assert len(remote.held) <= 300


async def test_history_of_a_remote_log() -> None:
    log = await large()
    remote = RemoteLog(log)
    changes = [change.seq async for change in Bee(remote).history(limit=500)]
    assert changes == list(range(1, 501))
    assert remote.trips <= 12


async def test_answers_name_what_a_get_looks_at() -> None:
    log = await large()
    Bee(log)
    handler = log.handlers["hyperbee"]
    payload = encode_buffer(GetRequest(log.length, b"04321").encode())
    seqs = seqs_of(await handler(payload, None))
    assert seqs[0] == log.length - 1
    assert len(seqs) <= 24
    assert len(set(seqs)) == len(seqs)


async def test_answers_are_bounded() -> None:
    log = await large()
    Bee(log)
    handler = log.handlers["hyperbee"]
    whole = encode_buffer(IteratorRequest(log.length).encode())
    assert len(seqs_of(await handler(whole, None))) <= MAX_HINTS_PER_REQUEST + 1
    limited = encode_buffer(IteratorRequest(log.length, gte=b"04000", limit=3).encode())
    assert len(seqs_of(await handler(limited, None))) <= 30


async def test_an_iteration_under_way_is_taken_up() -> None:
    log = BeeLog()
    bee = Bee(log)
    for number in range(500):
        await bee.put(b"%05d" % number, b"v")
    root = log.length - 1
    handler = log.handlers["hyperbee"]
    # Standing at the root's last child: everything before it was read.
    resumed = IteratorRequest(log.length, checkpoint=(root, 0, 2))
    fresh = IteratorRequest(log.length)
    some = seqs_of(await handler(encode_buffer(resumed.encode()), None))
    everything = seqs_of(await handler(encode_buffer(fresh.encode()), None))
    assert set(some) < set(everything)
    # A checkpoint of nonsense is answered with little, and no error.
    for checkpoint in ((root, 99, 0), (10**9, 0, 0), (root, 0, 10**9), (0, 0, 0), (1,)):
        request = IteratorRequest(log.length, checkpoint=checkpoint)
        assert len(await handler(encode_buffer(request.encode()), None)) <= 5


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"\xff", encode_buffer(b"\xff\xff"), encode_buffer(b"\x12\x02\x08\x05")],
)
async def test_payloads_that_are_ignored(payload: bytes) -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.put(b"a", b"1")
    assert not await log.handlers["hyperbee"](payload, None)


async def test_requests_for_versions_that_are_not_here_are_ignored() -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.put(b"a", b"1")
    for version in (0, 1, 3, 10**9):
        payload = encode_buffer(GetRequest(version, b"a").encode())
        assert not await log.handlers["hyperbee"](payload, None)


def test_hints_are_believed_as_far_as_they_were_asked_for() -> None:
    hints = Hints()
    assert hints.add([1, 2, 3], 10) == []
    hints.expect()
    assert hints.add([0, 1, 9, 10, 10**9], 10) == [1, 9]
    assert 9 in hints
    assert 10 not in hints
    assert len(hints.add(range(1, 10_000), 20_000)) == MAX_HINTS_PER_REQUEST - 2
    assert hints.add([5], 10) == []


def test_few_hints_are_remembered() -> None:
    hints = Hints()
    for start in range(1, 200_000, MAX_HINTS_PER_REQUEST):
        hints.expect()
        hints.add(range(start, start + MAX_HINTS_PER_REQUEST), 1_000_000)
    assert 1 not in hints
    assert hints.number_of([1]) == 0


async def test_a_block_beyond_the_log_is_corrupt_and_not_waited_for() -> None:
    log = await large()
    remote = RemoteLog(log, length=COUNT)
    remote.held[COUNT - 1] = log.blocks[COUNT]  # names itself, and is out of place
    with pytest.raises(CorruptTree):
        async for _ in Bee(remote).range():
            pass


async def test_tasks_that_share_an_iterator_read_each_entry_once() -> None:
    owner = BeeLog()
    async with Bee(owner).batch() as batch:
        for number in range(500):
            await batch.put(b"%03d" % number, b"")
    entries = Bee(RemoteLog(owner)).range()
    found: list[bytes] = []

    async def read() -> None:
        async for entry in entries:
            found.append(entry.key)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read)
    assert sorted(found) == [b"%03d" % number for number in range(500)]
