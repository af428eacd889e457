"""What callers see: changes, conditions, batches, snapshots, subs, errors."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import pytest
import trio
import trio.testing

from bee import (
    JSON,
    UTF8,
    BatchEnded,
    Bee,
    CorruptTree,
    Entry,
    Expected,
    Header,
    HistoryReplaced,
    LogChanged,
    Metadata,
    NotABee,
    UnknownFormat,
    is_bee,
)
from bee.keyspace import Bounds
from hypercore import open_corestore
from hypercore.errors import BlockNotAvailable, NotWritable, OutOfRange
from tests.support.bee_log import BeeLog, RemoteLog


async def keys_of(entries: AsyncIterator[Entry[bytes, bytes]]) -> list[bytes]:
    return [entry.key async for entry in entries]


async def numbered(count: int) -> tuple[BeeLog, Bee]:
    log = BeeLog()
    bee = Bee(log)
    async with bee.batch() as batch:
        for number in range(count):
            await batch.put(b"%04d" % number, b"v%d" % number)
    return log, bee


async def test_an_empty_bee() -> None:
    bee = Bee(BeeLog())
    assert bee.version == 1
    assert await bee.get(b"a") is None
    assert await bee.peek() is None
    assert await keys_of(bee.range()) == []
    assert [change async for change in bee.history()] == []
    assert [difference async for difference in bee.diff(1)] == []
    assert await bee.checkout(0).get(b"a") is None


async def test_nothing_is_put_behind_a_lone_block_of_which_nobody_knows_what_it_was() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        await core.append(b"no header")
        await core.clear(0, 1)
        bee = Bee(core)
        with pytest.raises(BlockNotAvailable):
            await bee.put(b"a", b"1")
        with pytest.raises(BlockNotAvailable):
            await bee.delete(b"a")
        with pytest.raises(BlockNotAvailable):
            async with bee.batch() as batch:
                await batch.put(b"a", b"1")
        assert core.length == 1


async def test_a_bee_goes_on_without_its_header() -> None:
    """Its other blocks show that it is one."""
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        await Bee(core).put(b"a", b"1")
        await core.clear(0, 1)
        bee = Bee(core)
        await bee.put(b"b", b"2")
        assert await keys_of(bee.range()) == [b"a", b"b"]


async def test_a_diff_is_with_a_version_or_with_a_bee() -> None:
    async with open_corestore(None) as store:
        bee = Bee(await store.get(name="bee"))
        await bee.put(b"a", b"1")
        with pytest.raises(TypeError, match="a version is int, or a bee, not float"):
            bee.diff(1.0)  # type: ignore[arg-type]  # as a program without types


async def test_a_diff_is_with_a_version_that_there_is() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        bee = Bee(core)
        for number in range(9):
            await bee.put(b"%d" % number, b"before")
        replaced = bee.snapshot()
        nodes = bee.cache_statistics().nodes
        with pytest.raises(OutOfRange):
            bee.diff(bee.version + 1)
        assert bee.cache_statistics().nodes == nodes, "nobody's block is to blame for it"
        await core.truncate(5)
        for number in range(9):
            await bee.put(b"%d" % number, b"after")
        with pytest.raises(HistoryReplaced):
            bee.diff(replaced)
        assert len([difference async for difference in bee.diff(5)]) == 9


async def test_put_says_whether_it_wrote() -> None:
    log = BeeLog()
    bee = Bee(log, always_duplicate=False)
    assert await bee.put(b"a", b"1")
    assert not await bee.put(b"a", b"1")
    assert await bee.put(b"a", b"2")
    assert await bee.delete(b"a")
    assert not await bee.delete(b"a")
    assert log.length == 4


async def test_values_none_and_empty_are_told_apart() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"none", None)
    await bee.put(b"empty", b"")
    assert await bee.get(b"none") == Entry(1, b"none", None)
    assert await bee.get(b"empty") == Entry(2, b"empty", b"")


async def test_conditions_see_both_entries() -> None:
    bee = Bee(BeeLog(), key_encoding=UTF8, value_encoding=JSON)
    asked: list[object] = []

    def refuse(previous: Entry[str, object], following: Entry[str, object]) -> bool:
        asked.append((previous, following))
        return False

    assert await bee.put("k", {"n": 1}, cas=refuse)  # nothing there: not asked
    assert not await bee.put("k", {"n": 2}, cas=refuse)
    assert not await bee.delete("k", cas=refuse)
    assert not await bee.delete("absent", cas=refuse)
    previous = Entry(1, "k", {"n": 1})
    assert asked == [(previous, Entry(2, "k", {"n": 2})), (previous, Entry(2, "k", None))]
    assert await bee.put("k", 3, cas=lambda _old, _new: True)
    found = await bee.get("k")
    assert found is not None
    assert found.value == 3


async def test_a_batch_is_one_append_and_reads_its_own_changes() -> None:
    log, bee = await numbered(30)
    before = log.appends
    async with bee.batch() as batch:
        await batch.put(b"new", b"1")
        await batch.delete(b"0003")
        assert await batch.get(b"new") == Entry(31, b"new", b"1")
        assert await batch.get(b"0003") is None
        assert await batch.get(b"0004") == Entry(5, b"0004", b"v4")
        assert await bee.get(b"new") is None
    assert log.appends == before + 1
    assert await bee.get(b"new") == Entry(31, b"new", b"1")


@pytest.mark.parametrize("always_duplicate", [True, False])
async def test_many_puts_are_as_one_by_one(always_duplicate: bool) -> None:
    entries = [(b"%03d" % (7 * number % 100), b"v%d" % (number % 60)) for number in range(300)]
    logs = BeeLog(), BeeLog()
    for start in range(0, 300, 100):
        one, other = (Bee(log, always_duplicate=always_duplicate) for log in logs)
        async with one.batch() as batch:
            for key, value in entries[start : start + 100]:
                await batch.put(key, value)
        async with other.batch() as batch:
            await batch.put_many(entries[start : start + 50])
            await batch.put_many([])
            await batch.put_many(entries[start + 50 : start + 100])
    assert logs[0].blocks == logs[1].blocks
    async with Bee(BeeLog()).batch() as ended:
        await ended.flush()
        with pytest.raises(BatchEnded):
            await ended.put_many([(b"a", b"1")])


async def test_an_exception_discards_a_batch() -> None:
    log, bee = await numbered(30)
    blocks = list(log.blocks)

    async def fail() -> None:
        async with bee.batch() as batch:
            await batch.put(b"new", b"1")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert log.blocks == blocks
    assert await bee.get(b"new") is None
    await bee.put(b"other", b"2")
    assert await keys_of(bee.range(gte=b"n")) == [b"other"]


async def test_local_rows_go_with_the_batch() -> None:
    log, bee = await numbered(1)
    before = log.appends
    async with bee.batch() as batch:
        await batch.put(b"a", b"1")
        await batch.flush(local={b"row": b"x"})
    assert (log.appends, log.local) == (before + 1, {b"row": b"x"})
    async with bee.batch() as batch:
        await batch.flush(local={b"row": None})
    assert log.local == {}
    assert log.length == 3


async def test_local_rows_alone_do_not_make_a_header() -> None:
    log = BeeLog()
    async with Bee(log).batch() as batch:
        await batch.flush(local={b"row": b"x"})
    assert log.length == 0
    assert log.local == {b"row": b"x"}


async def test_a_flushed_batch_takes_nothing_more() -> None:
    log, bee = await numbered(1)
    async with bee.batch() as batch:
        await batch.put(b"a", b"1")
        await batch.flush()
        with pytest.raises(BatchEnded):
            await batch.put(b"b", b"1")
        await bee.put(b"free", b"1")  # the next writer need not wait for the block to end
    with pytest.raises(BatchEnded):
        await batch.get(b"a")
    assert log.length == 4


async def test_one_batch_at_a_time() -> None:
    log = BeeLog()
    bee = Bee(log)

    async def write(name: bytes) -> None:
        async with bee.batch() as batch:
            for number in range(20):
                await batch.put(name + b"%d" % number, name)
                await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for name in (b"a", b"b", b"c"):
            nursery.start_soon(write, name)
        nursery.start_soon(bee.put, b"single", b"s")
    assert len(await keys_of(bee.range())) == 61
    assert len(await keys_of(Bee(log).range())) == 61


async def test_an_append_beside_a_batch_is_noticed() -> None:
    log, bee = await numbered(5)
    batch = await bee.batch().__aenter__()
    await batch.put(b"a", b"1")
    log.append_nowait([b"something else"])
    with pytest.raises(LogChanged):
        await batch.flush()


async def test_a_failed_append_leaves_the_bee_as_it_was() -> None:
    log, bee = await numbered(50)
    log.is_writable = False
    with pytest.raises(NotWritable):
        await bee.put(b"0007", b"changed")
    with pytest.raises(NotWritable):
        async with bee.batch() as batch:
            await batch.put(b"0007", b"changed")
    log.is_writable = True
    assert await bee.get(b"0007") == Entry(8, b"0007", b"v7")
    await bee.put(b"0008", b"next")
    assert await bee.get(b"0007") == Entry(8, b"0007", b"v7")
    assert len(await keys_of(Bee(log).range())) == 50


async def test_snapshots_stay_as_they_are() -> None:
    log, bee = await numbered(40)
    snapshot = bee.snapshot()
    entries = bee.range()
    first = await anext(entries)
    for number in range(40):
        await bee.delete(b"%04d" % number)
    assert await bee.peek() is None
    assert first.key == b"0000"
    assert len(await keys_of(entries)) == 39
    assert len(await keys_of(snapshot.range())) == 40
    assert await snapshot.get(b"0010") == Entry(11, b"0010", b"v10")
    assert (await keys_of(bee.checkout(snapshot.version).range(limit=2))) == [b"0000", b"0001"]
    with pytest.raises(OutOfRange):
        bee.checkout(log.length + 1)


async def test_a_truncated_log_ends_snapshots_and_not_the_bee() -> None:
    log, bee = await numbered(10)
    for number in range(10, 20):
        await bee.put(b"%04d" % number, b"old")
    snapshot = bee.snapshot()
    entries = bee.range()
    await anext(entries)
    log.truncate(11)
    assert len(await keys_of(bee.range())) == 10
    for number in range(10, 20):
        await bee.put(b"%04d" % number, b"new")
    for key, value in ((b"0009", b"v9"), (b"0015", b"new")):
        found = await bee.get(key)
        assert found is not None
        assert found.value == value
    with pytest.raises(HistoryReplaced) as raised:
        await snapshot.get(b"0015")
    assert (raised.value.fork, raised.value.current_fork) == (0, 1)
    for reading in (entries, snapshot.range()):
        with pytest.raises(HistoryReplaced):
            await keys_of(reading)


async def test_peek_and_limits() -> None:
    _, bee = await numbered(100)
    for reverse, gt, key in ((False, b"0042", b"0043"), (True, None, b"0099")):
        found = await bee.peek(gt=gt, reverse=reverse)
        assert found is not None
        assert found.key == key
    assert await keys_of(bee.range(limit=0)) == []
    assert len(await keys_of(bee.range(limit=7, reverse=True))) == 7
    # The exclusive bound counts where both are given.
    assert await keys_of(bee.range(gt=b"0001", gte=b"0000", limit=1)) == [b"0002"]


async def test_subs_of_snapshots_and_of_subs() -> None:
    bee = Bee(BeeLog())
    people = bee.sub("people")
    await people.put(b"ann", b"1")
    await people.sub(b"deep").put(b"x", b"2")
    await bee.put(b"root", b"3")
    snapshot = bee.snapshot()
    await people.put(b"bob", b"4")
    assert await keys_of(people.range()) == [b"ann", b"bob", b"deep\0x"]
    assert await keys_of(snapshot.sub("people").range()) == [b"ann", b"deep\0x"]
    assert await snapshot.sub("people").sub("deep").get(b"x") == Entry(2, b"x", b"2")
    assert await bee.get(b"people\0bob") == Entry(4, b"people\0bob", b"4")
    async with people.batch() as batch:
        await batch.delete(b"ann")
    assert await keys_of(people.range(lt=b"c")) == [b"bob"]


async def test_a_bound_of_another_name_is_refused() -> None:
    bee = Bee(BeeLog())
    with pytest.raises(TypeError, match="above"):
        bee.range(above=b"a")  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError, match="above"):
        bee.history(above=1)  # type: ignore[call-arg]  # on purpose


async def test_what_is_about_all_between_two_bounds_takes_no_limit() -> None:
    _, bee = await numbered(3)
    with pytest.raises(TypeError, match="limit"):
        await bee.erase(limit=1)  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError, match="limit"):
        bee.watch(limit=1)  # type: ignore[call-arg]  # on purpose
    with pytest.raises(TypeError, match="reverse"):
        bee.diff(1, reverse=True)  # type: ignore[call-arg]  # on purpose
    assert len(await keys_of(bee.range())) == 3


async def test_a_prefix_of_the_last_byte_has_a_range() -> None:
    bee = Bee(BeeLog()).sub(b"\xff", separator=b"\xff")
    await bee.put(b"a", b"1")
    assert await keys_of(bee.range()) == [b"a"]


async def test_the_header() -> None:
    log = BeeLog()
    bee = Bee(log, metadata=Metadata(user_data=b"mine"))
    await bee.put(b"a", b"1")
    assert await bee.header() == Header(metadata=Metadata(user_data=b"mine"))
    assert log.blocks[0] == Header(metadata=Metadata(user_data=b"mine")).encode()


async def test_a_header_that_our_own_log_gave_up_is_asked_of_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """`beemesh compact` waited an hour for it."""
    async with open_corestore(None) as store:
        core = await store.get(name="bee")
        await Bee(core).put(b"a", b"1")
        await core.clear(0, 1)
        with pytest.raises(BlockNotAvailable), trio.fail_after(1):
            await Bee(core).header()


async def test_nothing_is_written_to_what_is_no_bee() -> None:
    for first, error in ((b"hello", NotABee), (Header("hyperbee9").encode(), UnknownFormat)):
        log = BeeLog([first])
        bee = Bee(log)
        with pytest.raises(error):
            await bee.put(b"a", b"1")
        with pytest.raises(error):
            async with bee.batch() as batch:
                await batch.put(b"a", b"1")
        with pytest.raises(error):
            await bee.header()
        assert log.length == 1


async def test_keys_and_values_that_a_codec_refuses() -> None:
    log = BeeLog()
    await Bee(log).put(b"\xff", b"{")
    await Bee(log).put(b"k", b"[" * 100_000)
    with pytest.raises(CorruptTree):
        await anext(Bee(log, key_encoding=UTF8).range(reverse=True))
    for key in (b"\xff", b"k"):
        with pytest.raises(CorruptTree):
            await Bee(log, value_encoding=JSON).get(key)


async def test_deletions_in_the_history() -> None:
    bee = Bee(BeeLog())
    await bee.put(b"a", None)
    await bee.delete(b"a")
    await bee.put(b"b", b"")
    changes = [tuple(change) async for change in bee.history()]
    assert changes == [(1, b"a", None, False), (2, b"a", None, True), (3, b"b", b"", False)]
    assert [change.seq async for change in bee.history(gte=-2)] == [2, 3]
    assert [change.seq async for change in bee.history(gt=1, lte=2)] == [2]
    assert [change.seq async for change in bee.history(lt=0)] == []
    assert [change.seq async for change in bee.history(reverse=True, limit=2)] == [3, 2]


async def test_the_cache_stays_within_its_budget_and_is_warm_after_writing() -> None:
    log = BeeLog()
    bee = Bee(log, cache_bytes=60_000)
    for number in range(2_000):
        await bee.put(b"%04d" % (number * 7 % 2_000), b"v")
        assert bee.cache_statistics().size_bytes <= 62_000
    small = Bee(log, cache_bytes=1 << 20)
    await small.put(b"0001", b"x")
    read: list[int] = []
    get_local = log.get_local

    def counted(index: int) -> bytes | None:
        read.append(index)
        return get_local(index)

    log.get_local = counted  # type: ignore[method-assign]  # a tap on the log
    warm = Bee(log)
    await warm.put(b"0001", b"y")
    read.clear()
    await warm.put(b"0001", b"z")
    assert read == []


GHOSTLY = (1, 2, 3, 5, 6, 7, 8, 9, 4, 0, 10, 5, 4, 0)
"""Put, but for the second 5 and 4, which are deleted. See the test."""


async def test_a_deleted_key_is_not_found_by_a_block_that_put_it() -> None:
    """Its block brought a node beside the way to it, which deletions then put into that way.

    4 splits the leaf: 5 goes up, and 6 to 9 live in the block of 4. When 5 is deleted 4 goes up,
    when 4 is, 3: where 4 was looked for left of those nodes, it is now looked for in them.
    """
    log = BeeLog()
    bee = Bee(log)
    for number in GHOSTLY[:-3]:
        await bee.put(b"%d" % number, b"v")
    for number in GHOSTLY[-3:-1]:
        assert await bee.delete(b"%d" % number)
    await bee.put(b"%d" % GHOSTLY[-1], b"v")
    for reader in (bee, Bee(log, cache_bytes=0)):
        assert await reader.get(b"4") is None
        assert len([entry async for entry in reader.range()]) == 9


async def test_expected_values() -> None:
    bee = Bee(BeeLog(), value_encoding=JSON)
    assert await bee.put(b"k", {"a": 1}, expected=Expected.ABSENT)
    assert not await bee.put(b"k", 2, expected=Expected.ABSENT)
    assert not await bee.put(b"k", 2, expected={"a": 2})
    assert not await bee.put(b"other", 2, expected=2)
    assert await bee.put(b"k", None, expected={"a": 1})
    assert await bee.put(b"k", 3, expected=None)
    assert not await bee.delete(b"k", expected=4)
    assert not await bee.delete(b"other", expected=None)
    version = bee.version
    async with bee.batch() as batch:
        assert not await batch.put(b"k", 5, expected=4)
        assert await batch.put(b"k", 4, expected=3)
        assert not await batch.delete(b"k", expected=3)
        assert await batch.delete(b"k", expected=4)
        assert await batch.put(b"k", 5, expected=Expected.ABSENT)
    assert bee.version == version + 3
    assert await bee.delete(b"k", expected=5)
    assert await bee.get(b"k") is None


async def test_blocks_by_their_seq() -> None:
    bee = Bee(BeeLog())
    await bee.sub("deep").put(b"a", b"1")
    await bee.delete(b"missing")
    await bee.sub("deep").delete(b"a")
    assert await bee.get_by_seq(1) == Entry(1, b"deep\0a", b"1")
    assert await bee.sub("deep").get_by_seq(2) == Entry(2, b"deep\0a", None)
    for seq in (-1, 0, 3):
        with pytest.raises(OutOfRange):
            await bee.get_by_seq(seq)


async def test_whether_a_log_is_a_bee() -> None:
    log = BeeLog()
    assert not await is_bee(log)
    await Bee(log).put(b"a", b"1")
    assert await is_bee(log)
    remote = RemoteLog(log)
    assert not await is_bee(remote, wait=False)
    assert await is_bee(remote)
    assert await is_bee(remote, wait=False)
    for block in (b"", b"hyperbee", Header(protocol="hyperbee2").encode()):
        assert not await is_bee(BeeLog([block]))


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_range_reads_little_beyond_its_end(reverse: bool) -> None:
    log = BeeLog()
    keys = [b"%05d" % number for number in range(5_000)]
    async with Bee(log).batch() as batch:
        for key in random.Random(1).sample(keys, len(keys)):
            await batch.put(key, b"value")
    reads: set[int] = set()

    class CountingLog(BeeLog):
        def get_local(self, index: int) -> bytes | None:
            reads.add(index)
            return super().get_local(index)

        def get_local_many(self, indices: Sequence[int]) -> list[bytes | None]:
            return [self.get_local(index) for index in indices]

    bee = Bee(CountingLog(log.blocks))
    for start in range(0, 4_900, 700):
        bounds = Bounds(gte=keys[start], lt=keys[start + 100])
        assert len([entry async for entry in bee.range(reverse=reverse, **bounds)]) == 100
        reads.clear()
        assert len([entry async for entry in bee.range(reverse=reverse, **bounds)]) == 100
        # The blocks of the entries, of which those of the leaves are some, and the last leaf.
        assert 100 <= len(reads) < 110
