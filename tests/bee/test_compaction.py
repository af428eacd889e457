"""Compaction: what is kept reads as before, and of everything else nothing is left."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Mapping, Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from bee import Bee, Compaction, CorruptTree, HistoryReplaced
from bee.messages import decode_levels, decode_record
from bee.node_reader import decode_ref
from hypercore.errors import BlockNotAvailable, NotWritable, OutOfRange
from tests.bee.test_model import Step, run_steps
from tests.reference.bee_model import BeeModel
from tests.support.bee_log import BeeLog, RemoteLog
from tests.support.cancel_everywhere import cancel_everywhere

keys = st.integers(0, 60).map(lambda number: b"%03d" % number)
puts = st.tuples(keys, st.one_of(st.none(), st.binary(max_size=60)), st.just(value=False))
deletions = st.tuples(keys, st.none(), st.just(value=True))
operations = st.one_of(puts, deletions)
steps = st.lists(st.one_of(operations, st.lists(operations, max_size=40)), max_size=40)

Entries = Mapping[bytes, bytes | None]


def reachable(blocks: Sequence[bytes], version: int) -> set[int]:
    """All blocks that a version needs, found the plain way. It must be one to check out."""
    found: set[int] = set()
    stack = [(version - 1, 0)] if version > 1 else []
    while stack:
        seq, offset = stack.pop()
        level = decode_levels(decode_record(blocks[seq]).index)[offset]
        found.add(seq)
        found.update(decode_ref(key + b"\0")[0] for key in level.keys)
        stack += [decode_ref(child) for child in level.children]
    return found


def held(log: BeeLog) -> set[int]:
    return {seq for seq in range(1, log.length) if seq not in log.cleared}


async def entries_of(bee: Bee, version: int | None = None) -> dict[bytes, bytes | None]:
    snapshot = bee.snapshot() if version is None else bee.checkout(version)
    return {entry.key: entry.value async for entry in snapshot.range()}


@given(steps, st.sampled_from([0, 3_000, 1 << 20]))
def test_the_present_stays_and_all_else_goes(todo: list[Step], cache_bytes: int) -> None:
    async def run() -> None:
        log, model = BeeLog(), BeeModel()
        bee = Bee(log, cache_bytes=cache_bytes)
        await run_steps(bee, model, todo)
        expected = {key: value for key, (_, value) in model.now.items()}
        before = list(log.blocks)
        planned = await bee.compact(dry_run=True)
        assert log.blocks == before
        done = await bee.compact()
        assert (planned.blocks, planned.size_bytes) == (done.blocks, done.size_bytes)
        assert (planned.kept, planned.rewritten) == (done.kept, done.rewritten)
        gone = [seq for seq in range(1, len(before)) if seq in log.cleared]
        assert done.blocks == len(gone)
        assert done.size_bytes == sum(len(before[seq]) for seq in gone)
        assert done.kept == len(before) - len(gone) - (1 if before else 0)
        assert log.length == len(before) + done.appended
        for reader in (bee, Bee(log, cache_bytes=0)):
            assert await entries_of(reader) == expected
            for key in (b"%03d" % number for number in range(61)):
                entry = await reader.get(key)
                assert (entry is not None) == (key in expected)
        needed = reachable(log.blocks, log.length)
        assert needed <= held(log)
        if not done.appended:
            assert needed == held(log)
        again = done
        for _ in range(10):
            size = sum(len(log.blocks[seq]) for seq in held(log))
            again = await bee.compact()
            if not again.blocks:
                break
            assert sum(len(log.blocks[seq]) for seq in held(log)) < size
        assert again == Compaction(kept=len(held(log)))
        assert held(log) == reachable(log.blocks, log.length)
        # And it goes on.
        await run_steps(bee, model, todo)
        assert await entries_of(Bee(log)) == {k: value for k, (_, value) in model.now.items()}

    trio.run(run)


@given(steps, steps, st.data())
def test_kept_versions_stay(first: list[Step], second: list[Step], data: st.DataObject) -> None:
    async def run() -> None:
        log, model = BeeLog(), BeeModel()
        bee = Bee(log)
        await run_steps(bee, model, [*first, *second])
        before = list(log.blocks)
        versions = [v for v, state in enumerate(model.versions) if state is not None]
        pinned = data.draw(st.lists(st.sampled_from(versions), max_size=2))
        since = data.draw(st.one_of(st.none(), st.sampled_from(versions)))
        done = await bee.compact(since=since, versions=pinned)
        kept = {model.version, *pinned}
        if since is not None:
            kept.update(version for version in versions if version >= since)
        for version in kept:
            state = model.versions[version]
            assert state is not None
            expected = {key: value for key, (_, value) in state.items()}
            is_moved = version == model.version and done.appended
            assert await entries_of(Bee(log), None if is_moved else version) == expected
        if since is not None:
            history = [(c.seq, c.key) async for c in bee.history(gte=since)]
            assert history == [row[:2] for row in model.history if row[0] >= since]
        if since is not None or pinned:
            assert not done.appended
            needed = set().union(*(reachable(before, version) for version in kept))
            if since is not None:
                needed.update(range(max(since, 1), len(before)))
            assert held(log) == needed

    trio.run(run)


async def thinned(count: int = 600, share: float = 0.9) -> tuple[BeeLog, dict[bytes, bytes | None]]:
    """A bee from which most keys were deleted one by one, and what is left in it."""
    chance = random.Random(count)
    log = BeeLog()
    bee = Bee(log)
    names = [b"%05d" % number for number in range(count)]
    chance.shuffle(names)
    async with bee.batch() as batch:
        for name in names:
            await batch.put(name, name * 10)
    for name in names[: int(count * share)]:
        await bee.delete(name)
    return log, {name: name * 10 for name in names[int(count * share) :]}


async def test_nodes_are_brought_together() -> None:
    log, entries = await thinned()
    length = log.length
    done = await Bee(log).compact()
    assert await entries_of(Bee(log)) == entries
    assert done.appended == log.length - length == 1
    assert done.rewritten > 5
    # Each key's block, that with the nodes, and few in which enough of them lived.
    assert done.kept <= len(entries) + 10


async def test_one_lost_block_costs_one_key() -> None:
    """A node whose first key the disk has lost is not given up for that."""
    thin, entries = await thinned()
    compacted = 0
    for lost in entries:
        log = BeeLog(thin.blocks)
        entry = await Bee(log).get(lost)
        assert entry is not None
        await log.clear_many([entry.seq])
        readable = await those_that_can_be_read(log, entries)
        with contextlib.suppress(BlockNotAvailable):
            compacted += (await Bee(log).compact()).blocks > 0
        assert await those_that_can_be_read(log, entries) == readable
    assert compacted > 30


async def those_that_can_be_read(log: BeeLog, names: Iterable[bytes]) -> set[bytes]:
    bee = Bee(log)
    found = set()
    for name in names:
        with contextlib.suppress(BlockNotAvailable):
            found.add(name if await bee.get(name) else b"")
    return found


async def test_many_nodes_are_brought_by_several_blocks() -> None:
    log, entries = await thinned(8_000)
    bee = Bee(log)
    done = await bee.compact()
    assert done.appended == 2
    assert await entries_of(Bee(log)) == entries
    assert await bee.dead_share() < 0.2
    await bee.compact()
    assert held(log) == reachable(log.blocks, log.length)


async def test_the_share_of_the_dead() -> None:
    assert await Bee(BeeLog()).dead_share() == 0
    log, _ = await thinned(2_000)
    bee = Bee(log)
    needed = reachable(log.blocks, log.length)
    share = 1 - len(needed) / (log.length - 1)
    assert abs(await bee.dead_share() - share) < 0.06
    await bee.compact()
    await bee.compact()
    assert await bee.dead_share() == 0
    # Also where few of the blocks of the log are left.
    names = [entry.key async for entry in bee.range()]
    for name in names:
        await bee.put(name, b"again")
    needed = reachable(log.blocks, log.length)
    share = 1 - len(needed) / len(held(log))
    assert abs(await bee.dead_share(1_000) - share) < 0.06


async def test_where_every_second_block_is_dead() -> None:
    """A writer with a pattern: samples at even distances would see one kind only."""
    log = BeeLog()
    bee = Bee(log)
    for number in range(2_000):
        await bee.put(b"last", b"%d" % number)
        await bee.put(b"row %05d" % number, b"1")
    needed = reachable(log.blocks, log.length)
    assert abs(await bee.dead_share() - (1 - len(needed) / (log.length - 1))) < 0.06


async def test_it_goes_on_where_erasures_were() -> None:
    """The index of blocks forgets those that are gone, and finds the others."""
    log, entries = await thinned()
    bee = Bee(log)
    await bee.erase(gte=b"001", lt=b"002")
    await bee.compact()
    rows = [key for key in log.local if key.startswith(b"bee/key/")]
    assert {int.from_bytes(row[-8:], "big") for row in rows} <= held(log)
    await bee.erase(gte=b"002", lt=b"004")
    left = {name: value for name, value in entries.items() if not b"001" <= name < b"004"}
    assert await entries_of(Bee(log)) == left
    for seq in held(log):
        assert not b"001" <= decode_record(log.blocks[seq]).key < b"004"


async def test_only_the_writer_compacts_and_only_for_versions_there_are() -> None:
    log, _ = await thinned()
    with pytest.raises(NotWritable):
        await Bee(RemoteLog(log)).compact()
    bee = Bee(log)
    for wrong in (-1, log.length + 1):
        with pytest.raises(OutOfRange):
            await bee.compact(since=wrong)
        with pytest.raises(OutOfRange):
            await bee.compact(versions=[wrong])
    assert not log.cleared


async def test_a_tree_that_cannot_be_read_is_left_alone() -> None:
    log, _ = await thinned()
    bee = Bee(log)
    root = decode_levels(decode_record(log.blocks[-1]).index)[0]
    seq = decode_ref(root.children[-1])[0]
    await log.clear_many([seq])
    with pytest.raises(BlockNotAvailable):
        await bee.compact()
    log.cleared.clear()
    log.bitfield.set_range(0, log.length)
    log.blocks[seq] = b"\x07nonsense"
    with pytest.raises(CorruptTree):
        await Bee(log).compact()
    assert not log.cleared


async def test_a_remote_reader_needs_nothing_of_what_is_gone() -> None:
    log, entries = await thinned()
    await Bee(log).compact()
    remote = RemoteLog(log)
    assert await entries_of(Bee(remote)) == entries
    assert not log.cleared & set(remote.held)


class CrashError(Exception):
    """The process is gone."""


class CrashingLog(BeeLog):
    """Does so many changes, each of them atomic, and then stops for good."""

    def __init__(self, log: BeeLog, changes: int) -> None:
        super().__init__(log.blocks)
        self.changes = changes

    def append_nowait(
        self, blocks: Sequence[bytes], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> int:
        if blocks or local:
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


async def test_a_crash_at_any_step_leaves_all_that_is_kept() -> None:
    full, entries = await thinned(2_000)
    crashes = 0
    for changes in range(1_000):
        log = CrashingLog(full, changes)
        try:
            await Bee(log).compact()
        except CrashError:
            crashes += 1
        else:
            break
        log.changes = 1_000_000
        assert await entries_of(Bee(log)) == entries
        await Bee(log).compact()
        await Bee(log).compact()
        assert await entries_of(Bee(log)) == entries
        assert held(log) == reachable(log.blocks, log.length)
    assert crashes > 10


async def test_cancelled_anywhere_it_is_done_by_the_next() -> None:
    log, entries = await thinned(300)
    bee = Bee(log)

    async def compact() -> None:
        await trio.lowlevel.checkpoint()
        await bee.compact()

    assert await cancel_everywhere(compact) > 0
    await bee.compact()
    assert await entries_of(Bee(log)) == entries
    assert held(log) == reachable(log.blocks, log.length)


async def test_writers_go_on_meanwhile() -> None:
    log, entries = await thinned(3_000)
    bee = Bee(log)
    expected = dict(entries)
    is_over = False

    async def write() -> None:
        chance = random.Random(1)
        while not is_over:
            key, value = b"%05d" % chance.randrange(3_000), b"%d" % log.length
            if chance.random() < 0.5:
                await bee.put(key, value)
                expected[key] = value
            else:
                await bee.delete(key)
                expected.pop(key, None)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        await trio.lowlevel.checkpoint()
        await bee.compact()
        await bee.compact()
        is_over = True
    assert await entries_of(Bee(log, cache_bytes=0)) == expected
    assert await entries_of(bee) == expected


async def test_an_empty_bee() -> None:
    log = BeeLog()
    bee = Bee(log)
    assert await bee.compact() == Compaction()
    await bee.put(b"a", b"1")
    await bee.delete(b"a")
    assert (await bee.compact()).blocks == 1
    assert held(log) == {2}, "the block of the deletion has the root, of nothing"
    assert await entries_of(Bee(log)) == {}
    await bee.put(b"b", b"2")
    assert await entries_of(Bee(log)) == {b"b": b"2"}


class CutLog(BeeLog):
    """Is cut by somebody else, and grows again, while the first blocks are given up."""

    is_cut = False

    async def clear_many(
        self, indices: Iterable[int], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        await super().clear_many(indices, local=local)
        if not self.is_cut:
            self.is_cut = True
            self.truncate(1)
            await Bee(self).put(b"first", b"1")
            async with Bee(self).batch() as batch:
                for number in range(900):
                    await batch.put(b"%05d" % number, b"again")


async def test_a_log_that_is_cut_meanwhile_keeps_its_new_blocks() -> None:
    whole, _ = await thinned()
    log = CutLog(whole.blocks)
    bee = Bee(log)
    with pytest.raises(HistoryReplaced):
        await bee.compact()
    assert len(await entries_of(Bee(log, cache_bytes=0))) == 901
    await bee.compact()
    assert len(await entries_of(Bee(log, cache_bytes=0))) == 901


class ErasedLog(BeeLog):
    """Another key is erased whenever others may run, as long as there are any to erase."""

    def __init__(self, blocks: Iterable[bytes], doomed: Iterable[bytes]) -> None:
        super().__init__(blocks)
        self.doomed = list(doomed)
        self.is_erasing = False

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        if not rows and self.doomed and not self.is_erasing:
            self.is_erasing = True
            key = self.doomed.pop()
            await Bee(self, cache_bytes=0).erase(gte=key, lte=key)
            self.is_erasing = False


async def with_late_keys(count: int, share: float) -> tuple[BeeLog, list[bytes], list[bytes]]:
    """A bee, its keys but for three, and these: their blocks bring the nodes that are read last."""
    log, entries = await thinned(count, share)
    *others, one, two, three = sorted(entries)
    late = [one, two, three]
    for key in late:
        await Bee(log).put(key, b"again")
    return log, others, late


@pytest.mark.parametrize(("count", "share"), [(600, 0.9), (2_000, 0.5)])
async def test_what_others_erase_meanwhile_is_no_damage(count: int, share: float) -> None:
    whole, kept, doomed = await with_late_keys(count, share)
    log = ErasedLog(whole.blocks, doomed)
    bee = Bee(log, cache_bytes=0)
    while log.doomed:
        assert (await bee.estimate_dead()).byte_share > 0
    log = ErasedLog(whole.blocks, doomed[-1:])
    await Bee(log, cache_bytes=0).compact()
    assert not log.doomed
    assert sorted(await entries_of(Bee(log))) == [*kept, *doomed[:-1]]
    await Bee(log).compact()
    assert held(log) == reachable(log.blocks, log.length)


async def test_a_block_that_is_lost_while_others_erase_is_told() -> None:
    whole, _, doomed = await with_late_keys(2_000, 0.5)
    log = ErasedLog(whole.blocks, doomed)
    lost = max(reachable(log.blocks, log.length) & {*range(log.length - len(doomed))})
    log.cleared.add(lost)
    log.bitfield.set_range(lost, lost + 1, value=False)
    with pytest.raises(BlockNotAvailable):
        await Bee(log, cache_bytes=0).compact()


class BusyLog(BeeLog):
    """A key is put, and the one before it erased, whenever others may run, without end."""

    rounds = 0
    is_writing = False

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        if not rows and not self.is_writing:
            self.is_writing = True
            bee = Bee(self, cache_bytes=0)
            before = b"a%d" % self.rounds
            self.rounds += 1
            assert self.rounds < 1_000, "it begins anew without end"
            await bee.put(b"a%d" % self.rounds, b"new")
            await bee.erase(gte=before, lte=before)
            self.is_writing = False


async def test_what_is_lost_is_told_though_others_erase_without_end() -> None:
    whole, _, _ = await with_late_keys(2_000, 0.5)
    lost = max(reachable(whole.blocks, whole.length) & {*range(whole.length - 3)})
    await Bee(whole).put(b"a0", b"old")
    log = BusyLog(whole.blocks)
    log.cleared.add(lost)
    log.bitfield.set_range(lost, lost + 1, value=False)
    with pytest.raises(BlockNotAvailable):
        await Bee(log, cache_bytes=0).compact()
