"""Being told what changes, and reading the history while it is written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from bee import UTF8, Bee, Change, Difference, Entry, HistoryReplaced, Update, Version, Watch
from bee.keyspace import KeyRange
from bee.watching import MAX_SHARED, merge_ranges
from hypercore import open_corestore
from hypercore.errors import BlockNotAvailable, OutOfRange, UsageError
from tests.bee.test_compaction import thinned
from tests.support.bee_log import BeeLog, RemoteLog

Told = list[tuple[bytes, bytes | None, bytes | None]]


async def tell(update: Update) -> Told:
    """Key, value before, value after."""
    told: Told = []
    async for left, right in update:
        either = left or right
        assert either is not None
        told.append((either.key, right and right.value, left and left.value))
    return told


async def next_told(watch: Watch) -> Told:
    with trio.fail_after(20):
        return await tell(await watch.__anext__())


async def put_all(bee: Bee, keys: Sequence[bytes]) -> None:
    async with bee.batch() as batch:
        for key in keys:
            await batch.put(key, b"v" + key)


async def test_every_change_is_told_once() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"old", b"1")
    with bee.watch() as watch:
        await bee.put(b"a", b"1")
        assert await next_told(watch) == [(b"a", None, b"1")]
        await bee.put(b"a", b"2")
        assert await next_told(watch) == [(b"a", b"1", b"2")]
        await bee.delete(b"old")
        assert await next_told(watch) == [(b"old", b"1", None)]


async def test_who_is_slow_gets_the_sum() -> None:
    bee = Bee(BeeLog())
    with bee.watch() as watch:
        await bee.put(b"a", b"1")
        await bee.put(b"b", b"1")
        await bee.put(b"a", b"2")
        await bee.put(b"gone", b"1")
        await bee.delete(b"gone")
        assert await next_told(watch) == [(b"a", None, b"2"), (b"b", None, b"1")]


async def test_changes_elsewhere_wake_nobody() -> None:
    bee = Bee(BeeLog())
    updates: list[Told] = []

    async def follow(watch: Watch) -> None:
        while True:
            updates.append(await tell(await watch.__anext__()))

    async with trio.open_nursery() as nursery:
        with bee.watch(gte=b"m", lt=b"n") as inside, bee.watch(prefix=b"x") as below:
            nursery.start_soon(follow, inside)
            nursery.start_soon(follow, below)
            for key in (b"a", b"lz", b"n", b"w\xff", b"y"):
                await bee.put(key, b"1")
                await wait_all_tasks_blocked()
            assert updates == []
            assert inside.version.version == below.version.version == bee.version
            await bee.put(b"m", b"1")
            await bee.put(b"x\xff\xff", b"1")
            await wait_all_tasks_blocked()
            assert sorted(updates) == [[(b"m", None, b"1")], [(b"x\xff\xff", None, b"1")]]
            nursery.cancel_scope.cancel()


async def test_a_sub_database_with_its_own_codecs() -> None:
    bee = Bee(BeeLog())
    towns = bee.sub("towns", key_encoding=UTF8, value_encoding=UTF8)
    with towns.watch() as watch:
        await bee.put(b"elsewhere", b"1")
        await towns.put("Bern", "CH")
        update = await watch.__anext__()
        assert [difference async for difference in update] == [
            Difference(Entry(2, "Bern", "CH"), None)
        ]
    await bee.sub("towns").put(b"Rome", b"IT")
    found = await towns.snapshot().sub("").get("Rome")
    assert found is None
    assert await towns.get("Rome") == Entry(3, "Rome", "IT")


async def test_going_on_from_a_token() -> None:
    bee = Bee(BeeLog())
    with bee.watch() as watch:
        await bee.put(b"a", b"1")
        assert await next_told(watch) == [(b"a", None, b"1")]
        token = watch.version
    await bee.put(b"b", b"1")
    assert token == Version(2, 0)
    with bee.watch(since=token) as watch:
        assert await next_told(watch) == [(b"b", None, b"1")]
    with bee.watch(since=Version(0, 0)) as watch:
        assert await next_told(watch) == [(b"a", None, b"1"), (b"b", None, b"1")]
    with pytest.raises(OutOfRange):
        bee.watch(since=Version(9, 0))
    with pytest.raises(UsageError):
        bee.watch(prefix=b"a", gte=b"b")


async def test_a_truncated_log() -> None:
    log = BeeLog()
    bee = Bee(log)
    await put_all(bee, [b"a", b"b"])
    with bee.watch() as watch:
        log.truncate(2)
        with pytest.raises(HistoryReplaced):
            await next_told(watch)
    with pytest.raises(HistoryReplaced):
        bee.watch(since=watch.version)


async def test_cancelling_loses_no_update() -> None:
    bee = Bee(BeeLog())
    with bee.watch() as watch:
        with trio.move_on_after(0):
            await watch.__anext__()
        await bee.put(b"a", b"1")
        assert await next_told(watch) == [(b"a", None, b"1")]


async def test_many_watches_read_a_change_once() -> None:
    """Of a remote bee: the blocks of one diff, however many look at it."""
    owner = BeeLog()
    writer = Bee(owner)
    await put_all(writer, [b"%04d" % number for number in range(500)])

    async def trips(count: int) -> int:
        log = RemoteLog(owner, length=501)
        bee = Bee(log)
        told: list[Told] = []

        async def follow() -> None:
            with bee.watch(prefix=b"01") as watch:
                told.append(await tell(await watch.__anext__()))

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(follow)
            await wait_all_tasks_blocked()
            log.grow(owner.length)
        assert told == [[(b"0150", b"v0150", b"new")]] * count
        return len({block for asked in log.asked for block in asked})

    await writer.put(b"0150", b"new")
    assert await trips(1) == await trips(20)


async def test_a_watch_that_starts_during_a_change() -> None:
    bee = Bee(BeeLog())
    with bee.watch(prefix=b"a") as first:
        token = first.version
        await put_all(bee, [b"a", b"z"])
        assert await next_told(first) == [(b"a", None, b"va")]
        with bee.watch(prefix=b"z", since=token) as second:
            assert await next_told(second) == [(b"z", None, b"vz")]


@pytest.mark.parametrize("bounds", [{}, {"gte": b"%06d" % 100}, {"gte": b"%06d" % 5000}])
async def test_more_than_is_kept_for_others(bounds: dict[str, bytes]) -> None:
    bee = Bee(BeeLog())
    keys = [b"%06d" % number for number in range(MAX_SHARED + 2000)]
    with bee.watch() as other, bee.watch(gte=bounds.get("gte")) as watch:
        await put_all(bee, keys)
        expected = [(key, None, b"v" + key) for key in keys if key >= bounds.get("gte", b"")]
        assert await next_told(watch) == expected
        assert len(await next_told(other)) == len(keys)


async def test_compaction_keeps_what_an_update_has_still_to_tell() -> None:
    async with open_corestore(None) as store:
        bee = Bee(await store.get(name="bee"))
        await put_all(bee, [b"%03d" % number for number in range(300)])
        with bee.watch() as watch:
            await put_all(bee, [b"%03d" % number for number in range(300)])
            update = await watch.__anext__()
            first = await update.__anext__()
            await put_all(bee, [b"%03d" % number for number in range(300)])
            await bee.compact()
            rest = [difference async for difference in update]
            assert [(left.seq, right.seq) for left, right in (first, *rest) if left and right] == [
                (seq + 300, seq) for seq in range(1, 301)
            ]
            with trio.move_on_after(0):
                await watch.__anext__()  # another is asked for: the former is not needed any more
            assert (await bee.compact()).blocks == 300


class ToldLog(BeeLog):
    """Calls somebody whenever blocks were given up."""

    on_clear: Callable[[], object] = int

    async def clear_many(
        self, indices: Iterable[int], *, local: Mapping[bytes, bytes | None] | None = None
    ) -> None:
        await super().clear_many(indices, local=local)
        self.on_clear()


async def test_compaction_keeps_what_is_watched_since_it_began() -> None:
    thin, entries = await thinned()
    log = ToldLog(thin.blocks)
    bee = Bee(log)
    with ExitStack() as watching:
        watches: list[Watch] = []
        log.on_clear = lambda: watches.append(watching.enter_context(bee.watch()))
        await bee.compact()
        async with bee.batch() as batch:
            for key in entries:
                await batch.delete(key)
        for watch in watches:
            assert await next_told(watch) == [(key, entries[key], None) for key in sorted(entries)]


async def test_compaction_keeps_what_a_watch_stands_at() -> None:
    async with open_corestore(None) as store:
        bee = Bee(await store.get(name="bee"))
        await put_all(bee, [b"%03d" % number for number in range(300)])
        with bee.watch() as watch:
            for number in range(0, 300, 2):
                await bee.delete(b"%03d" % number)
            await bee.compact()
            told = await next_told(watch)
            assert told == [(b"%03d" % n, b"v%03d" % n, None) for n in range(0, 300, 2)]
            token = watch.version
        for number in range(1, 290, 2):
            await bee.delete(b"%03d" % number)
        await bee.compact()
        with bee.watch(since=token) as watch, pytest.raises(BlockNotAvailable):
            await next_told(watch)


async def test_one_key_that_is_erased() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"k", b"1")
    with bee.watch_key(b"k") as entries, bee.watch_key(b"k") as late:
        assert await entries.__anext__() == Entry(1, b"k", b"1")
        await bee.erase(gte=b"k")
        with trio.fail_after(20):
            assert await entries.__anext__() is None
            assert await late.__anext__() is None
        await bee.put(b"k", b"2")
        assert await entries.__anext__() == Entry(3, b"k", b"2")


async def test_one_key() -> None:
    bee = Bee(BeeLog())
    with bee.watch_key(b"k") as entries:
        assert await entries.__anext__() is None
        await bee.put(b"j", b"1")
        await bee.put(b"k", b"1")
        assert await entries.__anext__() == Entry(2, b"k", b"1")
        await bee.put(b"k", b"2")
        await bee.put(b"k", b"3")
        assert await entries.__anext__() == Entry(4, b"k", b"3")
        await bee.delete(b"k")
        assert await entries.__anext__() is None


async def test_history_that_goes_on() -> None:
    log = BeeLog()
    bee = Bee(log)
    await put_all(bee, [b"a", b"b", b"c"])
    history = bee.live_history(gte=-2)
    seen = []
    with trio.fail_after(20):
        async for change in history:
            seen.append((change.seq, change.key, change.is_deletion))
            if change.key == b"c":
                await bee.delete(b"a")
            if change.is_deletion:
                break
    assert seen == [(2, b"b", False), (3, b"c", False), (4, b"a", True)]
    assert history.seq == 5
    from_now = bee.live_history()
    await bee.put(b"d", b"1")
    assert (await from_now.__anext__()).key == b"d"
    log.truncate(3)
    with pytest.raises(HistoryReplaced):
        await from_now.__anext__()


ranges = st.builds(
    KeyRange,
    st.one_of(st.none(), st.binary(max_size=2)),
    st.one_of(st.none(), st.binary(max_size=2)),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(ranges, max_size=6), st.binary(max_size=3))
def test_merged_ranges_hold_the_same_keys(some: list[KeyRange], key: bytes) -> None:
    merged = merge_ranges(some)
    holders = [each for each in merged if each.contains(key)]
    assert len(holders) <= 1
    if any(each.contains(key) for each in some):
        assert holders


@given(st.data())
def test_updates_of_random_changes_add_up(data: st.DataObject) -> None:
    """Whoever applies the updates to what it read first has what the bee has."""
    keys = st.integers(0, 40).map(lambda number: b"%02d" % number)
    low, high = sorted((data.draw(keys), data.draw(keys)))

    async def run() -> None:
        bee = Bee(BeeLog())
        await put_all(bee, data.draw(st.lists(keys, max_size=30)))
        copy = {e.key: e.value async for e in bee.range(gte=low, lte=high)}
        with bee.watch(gte=low, lte=high) as watch, bee.watch(prefix=b"1") as other:
            for _ in range(data.draw(st.integers(1, 4))):
                async with bee.batch() as batch:
                    for key in data.draw(st.lists(keys, max_size=12)):
                        if data.draw(st.booleans()):
                            await batch.put(key, data.draw(st.binary(max_size=2)))
                        else:
                            await batch.delete(key)
                for each in (watch, other)[:: data.draw(st.sampled_from([1, -1]))]:
                    with trio.move_on_after(0):
                        update = await each.__anext__()
                        with trio.CancelScope(shield=True):
                            async for left, right in update:
                                either = left or right
                                assert either is not None
                                if each is other:
                                    assert either.key.startswith(b"1")
                                elif left is None:
                                    del copy[either.key]
                                else:
                                    copy[left.key] = left.value
                assert copy == {e.key: e.value async for e in bee.range(gte=low, lte=high)}

    trio.run(run)


async def test_a_watch_is_read_within_its_block() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"a", b"1")
    watch, entries = bee.watch(since=Version(1, 0)), bee.watch_key(b"a")
    calls: list[Callable[[], Awaitable[object]]] = [watch.__anext__, entries.__anext__]
    for call in calls:
        with pytest.raises(UsageError, match="within its `with` block"):
            await call()
    with entries:
        await entries.__anext__()
    with watch:
        await watch.__anext__()
        await bee.put(b"a", b"2")
    for call in calls:
        with pytest.raises(UsageError, match="within its `with` block"):
            await call()


@pytest.mark.parametrize("steps", range(5))
async def test_tasks_that_share_a_live_history_get_each_change_once(steps: int) -> None:
    owner = BeeLog()
    bee = Bee(owner)
    for number in range(20):
        await bee.put(b"%02d" % number, b"v")
    remote = RemoteLog(owner)
    history = Bee(remote).live_history(gte=1)
    told: list[int] = []

    async def follow() -> None:
        async for change in history:
            told.append(change.seq)  # noqa: PERF401

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(follow)
        await wait_all_tasks_blocked()
        for number in range(20, 40):
            await bee.put(b"%02d" % number, b"v")
            remote.grow(owner.length)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(told) == list(range(1, max(told) + 1))
    assert history.seq == max(told) + 1


class PausingLog(RemoteLog):
    """Others run whenever it is told of a write, as they do in a core now and then."""

    async def write_local(self, rows: Mapping[bytes, bytes | None]) -> None:
        await super().write_local(rows)
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("count", [31, 63, 200])
async def test_who_shares_a_history_is_not_at_its_end_while_another_has_the_rest(
    count: int,
) -> None:
    """It had read that and paused. A live history was begun anew there, and told it twice."""
    owner = BeeLog()
    bee = Bee(owner)
    for number in range(count):
        await bee.put(b"%03d" % number, b"v")
    told: list[int] = []

    async def follow(history: AsyncIterator[Change[bytes, bytes]]) -> None:
        async for change in history:
            told.append(change.seq)  # noqa: PERF401
        assert len(told) == count

    for history in (Bee(PausingLog(owner)).history(), Bee(PausingLog(owner)).live_history(gte=1)):
        told.clear()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(follow, history)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert sorted(told) == list(range(1, count + 1))


async def test_a_second_task_cannot_wait_at_a_watch() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"a", b"1")
    told: list[Update[bytes, bytes]] = []

    async def wait(watch: Watch[bytes, bytes]) -> None:
        told.append(await anext(watch))

    with bee.watch() as watch:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, watch)
            await wait_all_tasks_blocked()
            with pytest.raises(UsageError):
                await anext(watch)
            await bee.put(b"b", b"2")
        assert len(told) == 1
        await bee.put(b"c", b"3")
        assert (await anext(watch)).after.version == 4
