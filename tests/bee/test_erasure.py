"""Erasing keys: nothing of them is left in any block, and the rest reads as before."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import JSON, UTF8, Bee, Entry, Erasure
from bee.messages import NodeRecord, decode_levels, decode_record
from bee.node_reader import decode_ref
from hypercore.errors import BlockNotAvailable, NotWritable
from tests.bee.test_model import Step, run_steps
from tests.reference.bee_model import BeeModel, Bounds
from tests.support.bee_log import BeeLog, RemoteLog
from tests.support.cancel_everywhere import cancel_everywhere

keys = st.integers(0, 60).map(lambda number: b"%03d" % number)
values = st.binary(max_size=8)
puts = st.tuples(keys, values, st.just(value=False))
deletions = st.tuples(keys, st.none(), st.just(value=True))
operations = st.one_of(puts, puts, deletions)
steps = st.lists(st.one_of(operations, st.lists(operations, max_size=40)), max_size=30)
bounds = st.builds(
    Bounds,
    gt=st.one_of(st.none(), keys),
    gte=st.one_of(st.none(), keys),
    lt=st.one_of(st.none(), keys),
    lte=st.one_of(st.none(), keys),
)


def records(log: BeeLog) -> dict[int, NodeRecord]:
    """What the blocks hold that are there."""
    here = [seq for seq in range(1, log.length) if seq not in log.cleared]
    return {seq: decode_record(log.blocks[seq]) for seq in here}


def check_erased(log: BeeLog, limits: Bounds, spared: Iterable[int] = ()) -> None:
    left = {seq for seq, record in records(log).items() if limits.contains(record.key)}
    assert left <= set(spared) | {seq for seq in left if records(log)[seq].key == b""}


async def check_reads(log: BeeLog, expected: Mapping[bytes, bytes | None]) -> None:
    """The bee at its head, read from a cold cache, has these entries and no others."""
    bee = Bee(log, cache_bytes=0)
    assert {entry.key: entry.value async for entry in bee.range()} == expected
    for number in range(61):
        entry = await bee.get(b"%03d" % number)
        assert (entry and entry.value) == expected.get(b"%03d" % number)


@given(
    st.lists(st.tuples(steps, bounds, st.sets(keys, max_size=3)), min_size=1, max_size=4),
    st.sampled_from([0, 3_000, 1 << 20]),
)
def test_of_what_was_erased_no_block_is_left(
    rounds: list[tuple[list[Step], Bounds, set[bytes]]], cache_bytes: int
) -> None:
    async def run() -> None:
        log = BeeLog()
        bee = Bee(log, cache_bytes=cache_bytes)
        now: dict[bytes, bytes | None] = {}
        for todo, limits, keep in rounds:
            model = BeeModel()
            model.versions = [{}, {key: (0, value) for key, value in now.items()}]
            await run_steps(bee, model, todo)
            now = {key: value for key, (_, value) in model.now.items()}
            doomed = {key for key in now if limits.contains(key)} - keep
            length = log.length
            done = await bee.erase(
                gt=limits.gt, gte=limits.gte, lt=limits.lt, lte=limits.lte, keep=keep
            )
            for key in doomed:
                del now[key]
            assert done.keys == len(doomed)
            assert done.appended == log.length - length <= 1
            spared = [entry.seq async for entry in bee.range() if entry.key in keep]
            check_erased(log, limits, spared)
            await check_reads(log, now)
            assert await bee.finish_erasures() == 0

    trio.run(run)


async def fill(bee: Bee, count: int = 60) -> dict[bytes, bytes | None]:
    """Every key twice, in two orders, some in batches; a third of them deleted since."""
    for number in range(count):
        await bee.put(b"%03d" % (number * 37 % count), b"old-%d" % number)
    async with bee.batch() as batch:
        for number in range(count):
            await batch.put(b"%03d" % number, b"new-%d" % number)
    for number in range(0, count, 3):
        await bee.delete(b"%03d" % number)
    return {b"%03d" % number: b"new-%d" % number for number in range(count) if number % 3}


def without(entries: Mapping[bytes, bytes | None], limits: Bounds) -> dict[bytes, bytes | None]:
    return {key: value for key, value in entries.items() if not limits.contains(key)}


async def test_what_it_tells() -> None:
    log = BeeLog()
    bee = Bee(log)
    await fill(bee)
    length = log.length
    done = await bee.erase(gte=b"010", lt=b"020", local={b"mine": b"1"})
    # 6 or 7 of ten are alive, all were put twice, those that are not alive deleted by a block.
    assert done == Erasure(keys=7, blocks=23, rewritten=done.rewritten, appended=1, indexed=140)
    assert log.length == length + 1
    assert log.local[b"mine"] == b"1"
    assert await bee.erase(gte=b"010", lt=b"020") == Erasure(indexed=1)
    assert log.length == length + 1
    assert (await bee.erase(gte=b"x")) == Erasure()


async def test_local_rows_are_written_even_if_nothing_is_erased() -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.erase(gte=b"a", local={b"mine": b"1"})
    assert (log.length, log.local[b"mine"]) == (0, b"1")
    await bee.put(b"a", b"1")
    await bee.erase(gte=b"b", local={b"mine": None})
    assert (log.length, b"mine" in log.local) == (2, False)


async def test_erasing_everything_and_going_on() -> None:
    log = BeeLog()
    bee = Bee(log)
    await fill(bee)
    await bee.erase()
    assert [seq for seq in range(log.length) if seq not in log.cleared] == [0, log.length - 1]
    await check_reads(log, {})
    await bee.put(b"007", b"again")
    await check_reads(log, {b"007": b"again"})
    await bee.erase(lte=b"007")
    await check_reads(log, {})


async def test_deleted_before_and_last_of_all() -> None:
    """The block of a plain deletion has the root: it is brought again before that block goes."""
    log = BeeLog()
    bee = Bee(log)
    for key in (b"001", b"002", b"003"):
        await bee.put(key, b"v")
    await bee.delete(b"002")
    done = await bee.erase(gte=b"002", lte=b"002")
    assert (done.keys, done.blocks, done.appended) == (0, 2, 1)
    await check_reads(log, {b"001": b"v", b"003": b"v"})


async def test_a_bee_that_is_empty_already() -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.put(b"001", b"v")
    await bee.delete(b"001")
    done = await bee.erase()
    assert (done.keys, done.blocks, done.appended) == (0, 2, 1)
    await check_reads(log, {})


async def test_small_ranges_of_a_deep_tree() -> None:
    chance = random.Random(7)
    log = BeeLog()
    bee = Bee(log)
    now: dict[bytes, bytes | None] = {}
    rewritten = 0
    for turn in range(40):
        async with bee.batch() as batch:
            for _ in range(100):
                key, value = b"%03d" % chance.randrange(1000), b"%d" % turn
                await batch.put(key, value)
                now[key] = value
        start = chance.randrange(1000)
        limits = Bounds(gte=b"%03d" % start, lte=b"%03d" % (start + 3))
        if turn % 2:  # then nothing but their blocks is left of them
            for number in range(start, start + 4):
                await bee.delete(b"%03d" % number)
                key = b"%03d" % ((start + 500) % 1000)
                await bee.put(key, b"far away")
                now[key] = b"far away"
        done = await bee.erase(gte=limits.gte, lte=limits.lte)
        rewritten += done.rewritten
        now = without(now, limits)
        check_erased(log, limits)
        assert {entry.key: entry.value async for entry in Bee(log).range()} == now
    assert rewritten > 10
    depth = 0
    node = decode_levels(decode_record(log.blocks[-1]).index)[0]
    while node.children:
        seq, offset = decode_ref(node.children[0])
        node = decode_levels(decode_record(log.blocks[seq]).index)[offset]
        depth += 1
    assert depth >= 3


async def test_a_key_put_anew_stays() -> None:
    log = BeeLog()
    bee = Bee(log)
    entries = await fill(bee)
    await bee.erase(gte=b"010", lt=b"020")
    await bee.put(b"015", b"again")
    assert await bee.finish_erasures() == 0
    await check_reads(log, without(entries, Bounds(gte=b"010", lt=b"020")) | {b"015": b"again"})


@pytest.mark.parametrize("live", [[], [b""], [b"", b'""'], [b"", b'""', b"\0"]])
async def test_the_closing_block_names_a_key_that_is_not_there(live: list[bytes]) -> None:
    log = BeeLog()
    bee = Bee(log)
    for key in (*live, b"secret"):
        await bee.put(key, b"v")
    await bee.erase(gte=b"s")
    last = decode_record(log.blocks[-1])
    assert last.key not in live
    assert not last.key.strip(b'\0"')
    cold = Bee(log, cache_bytes=0)
    assert [entry.key async for entry in cold.range()] == sorted(live)
    for key in live:
        assert await cold.get(key) == Entry(live.index(key) + 1, key, b"v")
    assert await cold.get(last.key) is None


async def test_the_history_of_typed_keys_goes_on() -> None:
    texts = Bee(BeeLog(), key_encoding=UTF8, value_encoding=JSON)
    objects = Bee(BeeLog(), key_encoding=JSON, value_encoding=JSON)
    for bee in (texts, objects):
        await bee.put("kept", 1)
        await bee.put("secret", 2)
        await bee.erase(gte="s")
        (change,) = [change async for change in bee.history(gte=3)]
        assert (change.key, change.is_deletion) == ("", True)
        assert [entry.key async for entry in bee.range()] == ["kept"]


async def test_erasing_in_a_sub() -> None:
    log = BeeLog()
    bee = Bee(log)
    one, other = bee.sub("one"), bee.sub("other")
    for sub in (one, other):
        for key in (b"a", b"b", b"c"):
            await sub.put(key, b"1")
            await sub.put(key, b"2")
    done = await one.erase(lt=b"c", keep=[b"a"])
    assert (done.keys, done.blocks) == (1, 3)
    assert [entry.key async for entry in one.range()] == [b"a", b"c"]
    assert len([entry async for entry in other.range()]) == 3
    await one.erase()
    left = [record.key for record in records(log).values()]
    assert sorted({key for key in left if key}) == [b"other\0a", b"other\0b", b"other\0c"]


async def test_many_keys_that_stay() -> None:
    """What holds them is brought by several blocks: readers pass all of one for each node."""
    log = BeeLog()
    bee = Bee(log)
    names = [b"%05d" % number for number in range(12_000)]
    async with bee.batch() as batch:
        await batch.put_many((name, name) for name in names)
    done = await bee.erase(keep=names[::2])
    assert [entry.key async for entry in Bee(log).range()] == names[::2]
    appended = log.blocks[-done.appended :]
    assert max(len(decode_levels(decode_record(block).index)) for block in appended) < 500


async def test_long_keys_with_zeros() -> None:
    """Of such keys the index has the beginning only."""
    log = BeeLog()
    bee = Bee(log)
    long = bytes(1_500)
    for end in (b"", b"a", b"b", b"c"):
        await bee.put(long + end, b"v" + end)
    done = await bee.erase(gte=long + b"a", lt=long + b"c")
    assert (done.keys, done.blocks) == (2, 2)
    assert [entry.key[1_500:] async for entry in bee.range()] == [b"", b"c"]
    done = await bee.erase(gte=long, lt=long + b"a")
    assert (done.keys, done.blocks) == (1, 1)
    done = await bee.erase(gte=long + b"a")
    assert (done.keys, done.blocks) == (1, 1)


async def test_older_versions_say_what_is_gone() -> None:
    log = BeeLog()
    bee = Bee(log)
    await fill(bee)
    before = bee.snapshot()
    entry = await before.get(b"010")
    assert entry is not None
    await bee.erase(gte=b"010", lt=b"020")
    for snapshot in (before, bee.checkout(before.version)):
        with pytest.raises(BlockNotAvailable) as caught:
            await snapshot.get(b"010")
        assert caught.value.index in log.cleared
    with pytest.raises(BlockNotAvailable):
        assert [change async for change in bee.history()]
    assert [change.key async for change in bee.history(gte=before.version)] == [b""]


async def test_a_log_that_was_cut_is_indexed_anew() -> None:
    log = BeeLog()
    bee = Bee(log)
    await bee.put(b"a", b"1")
    await bee.put(b"secret", b"1")
    await bee.erase(gte=b"x", lt=b"y")
    log.truncate(2)
    await bee.put(b"b", b"2")
    await bee.put(b"secret", b"2")
    done = await bee.erase(gte=b"s")
    assert (done.keys, done.blocks, done.indexed) == (1, 1, 3)
    assert {entry.key async for entry in bee.range()} == {b"a", b"b"}
    assert 2 not in log.cleared, "the row of the old block 2 is not the new one's"


async def test_only_the_writer_erases() -> None:
    log = BeeLog()
    await Bee(log).put(b"a", b"1")
    with pytest.raises(NotWritable):
        await Bee(RemoteLog(log)).erase()


async def test_a_remote_reader_needs_nothing_of_it() -> None:
    log = BeeLog()
    bee = Bee(log)
    entries = without(await fill(bee), Bounds(gte=b"010", lt=b"040"))
    await bee.erase(gte=b"010", lt=b"040")
    remote = RemoteLog(log)
    assert {entry.key: entry.value async for entry in Bee(remote).range()} == entries
    assert not log.cleared & set(remote.held)


class CrashError(Exception):
    """The process is gone."""


class CrashingLog(BeeLog):
    """Does so many changes, each of them atomic, and then stops for good."""

    def __init__(self, log: BeeLog, changes: int) -> None:
        super().__init__(log.blocks)
        self.local = dict(log.local)
        self.changes = changes

    def append_nowait(
        self, blocks: Sequence[bytes], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        self._count()
        return super().append_nowait(blocks, local=local)

    async def clear_many(
        self, indices: Iterable[int], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        self._count()
        await super().clear_many(indices, local=local)

    def _count(self) -> None:
        if not self.changes:
            raise CrashError
        self.changes -= 1


async def test_a_crash_at_any_step_leaves_a_bee_and_the_rest_is_done_later() -> None:
    limits = Bounds(gte=b"050", lt=b"250")
    full = BeeLog()
    entries = await fill(Bee(full), 300)
    outcomes = []
    for changes in range(1_000):
        log = CrashingLog(full, changes)
        try:
            await Bee(log).erase(gte=b"050", lt=b"250", local={b"mine": b"1"})
        except CrashError:
            outcomes.append(b"mine" in log.local)
        else:
            break
        log.changes = 1_000_000
        bee = Bee(log)
        found = {entry.key: entry.value async for entry in bee.range()}
        if outcomes[-1]:
            assert found == without(entries, limits)
            await bee.put(b"100", b"again")
            if changes % 2:
                await bee.finish_erasures()
            else:  # knows of the new block, and does what is left over
                await bee.erase(gte=b"x")
            assert await bee.get(b"100") == Entry(log.length - 1, b"100", b"again")
            check_erased(log, limits, spared=[log.length - 1])
            assert await bee.delete(b"100")
        else:
            assert found == entries
            assert await bee.finish_erasures() == 0
        await bee.erase(gte=b"050", lt=b"250")
        check_erased(log, limits)
        assert {e.key: e.value async for e in Bee(log).range()} == without(entries, limits)
        assert not any(key.startswith(b"bee/erasing") for key in log.local)
    assert outcomes.count(False) >= 2, "while the index was made"
    assert outcomes.count(True) >= 3, "while blocks were given up"


async def test_cancelled_anywhere_it_can_be_finished() -> None:
    log = BeeLog()
    bee = Bee(log)
    entries = await fill(bee)

    async def erase() -> None:
        await trio.lowlevel.checkpoint()
        await bee.erase(gte=b"010", lt=b"020")

    assert await cancel_everywhere(erase) > 0
    await bee.finish_erasures()
    check_erased(log, Bounds(gte=b"010", lt=b"020"))
    await check_reads(log, without(entries, Bounds(gte=b"010", lt=b"020")))


async def test_erasures_at_the_same_time_and_writers_between() -> None:
    log = BeeLog()
    bee = Bee(log)
    entries = await fill(bee)
    async with trio.open_nursery() as nursery:
        for start in (b"00", b"01", b"02", b"03"):
            nursery.start_soon(lambda at: bee.erase(gte=at + b"2", lt=at + b"9"), start)
            nursery.start_soon(bee.put, start + b"5", b"later")
    found = {entry.key: entry.value async for entry in bee.range()}
    for start in (b"00", b"01", b"02", b"03"):
        entries = without(entries, Bounds(gte=start + b"2", lt=start + b"9"))
    assert entries.items() <= found.items()
    assert set(found) - set(entries) <= {b"005", b"015", b"025", b"035"}
    for seq, record in records(log).items():
        is_erased = b"2" <= record.key[2:] < b"9" and record.key < b"04"
        assert not is_erased or (record.key in found and seq == (await bee.get(record.key)).seq)  # type: ignore[union-attr]


async def stopped_erasure(log: BeeLog, limits: Bounds) -> CrashingLog:
    """The log after a crash between the step that took the keys out and giving up the blocks."""
    for changes in range(1_000):
        crashing = CrashingLog(log, changes)
        with pytest.raises(CrashError):
            await Bee(crashing).erase(gte=limits.gte, lt=limits.lt)
        if pending_rows(crashing):
            crashing.changes = 1_000_000
            return crashing
    raise AssertionError("never got there")


def pending_rows(log: BeeLog) -> list[bytes]:
    return [key for key in log.local if key.startswith(b"bee/erasing")]


async def test_an_erasure_that_was_cut_off_takes_no_block_that_is_needed_again() -> None:
    full = BeeLog()
    entries = await fill(Bee(full), 300)
    log = await stopped_erasure(full, Bounds(gte=b"050", lt=b"250"))
    log.truncate(full.length)
    await Bee(log).finish_erasures()
    assert {entry.key: entry.value async for entry in Bee(log).range()} == entries
    assert not pending_rows(log)


async def test_an_erasure_that_was_cut_off_takes_none_of_the_blocks_in_their_place() -> None:
    full = BeeLog()
    await fill(Bee(full), 300)
    log = await stopped_erasure(full, Bounds(gte=b"050", lt=b"250"))
    log.truncate(1)
    bee = Bee(log)
    for number in range(300):
        await bee.put(b"%03d" % number, b"new")
    await bee.erase(gte=b"x")
    assert [entry.value async for entry in Bee(log).range()] == [b"new"] * 300
    assert not pending_rows(log)


async def test_two_erasures_of_one_length_are_both_done() -> None:
    full = BeeLog()
    bee = Bee(full)
    for key in (b"a", b"b"):
        await bee.put(key, b"secret")
        await bee.delete(key)
    await bee.put(b"z", b"1")
    log = await stopped_erasure(full, Bounds(gte=b"a", lt=b"b"))
    assert log.length == full.length, "there was nothing to append"
    assert (await Bee(log).erase(gte=b"b", lt=b"c")).blocks == 4
    assert log.cleared == {1, 2, 3, 4}
    assert not pending_rows(log)


async def test_no_key_is_left_of_what_was_cut_off() -> None:
    log = BeeLog()
    bee = Bee(log)
    for key in (b"a", b"b", b"secret"):
        await bee.put(key, b"1")
    await bee.erase(gte=b"b", lt=b"c")
    assert any(b"secret" in row for row in log.local)
    log.truncate(2)
    await bee.put(b"c", b"1")
    await bee.erase(gte=b"s")
    assert not any(b"secret" in row for row in log.local)
