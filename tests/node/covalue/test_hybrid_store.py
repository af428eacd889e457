"""SQLite and a bee under one roof: they never stay apart."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from hypercore.errors import StorageFailed
from hypercore.storage import Durability
from node.covalue.content import Content, Transaction
from node.covalue.ids import CoSessionId, RawCoId
from node.covalue.known_state import NOTHING, KnownState
from node.covalue.sqlite_store import SqliteStore
from node.covalue.sqlite_writer import SqliteWriter
from node.covalue.store import CoValueStore, ValueAppend
from node.covalue.totals import Totals
from tests.support.authors import Author, edits, map_header
from tests.support.data_log import DataLog
from tests.support.stores import Appender, HybridHome, StoreHome, deletion, joined, load_all

ANN = Author("ann")
HEADERS = [map_header(f"value {n}") for n in range(3)]
SESSION = ANN.session_id(as_agent=True)
SIZES = [10, 60_000, 110_000]

Held = dict[RawCoId, tuple[bool, dict[CoSessionId, list[Transaction]]]]


async def contents_of(store: CoValueStore) -> Held:
    """All that a store can load."""
    held: Held = {}
    async for co_id in store.ids():
        value = await store.load_value(co_id)
        assert value is not None
        held[co_id] = (value.is_deleted, joined(await load_all(store, co_id, NOTHING, None)))
    return held


async def read(home: StoreHome) -> Held:
    async with home.open() as store:
        return await contents_of(store)


def transactions_of(number: int) -> list[Transaction]:
    return [Transaction(n, "x" * SIZES[(n + number) % 3]) for n in range(12)]


_steps = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 4), st.booleans(), st.sampled_from(["both", "one"]))
)


@given(_steps, st.sampled_from(["sqlite", "bee"]), st.booleans())
@settings(max_examples=40)
def test_whichever_is_behind_is_brought_up(
    steps: Sequence[tuple[int, int, bool, str]], ahead: str, erases: bool
) -> None:
    """Each step stores or deletes, in both or in the one that is ahead."""

    async def run(home: HybridHome) -> None:
        appender = Appender()
        counts = [0, 0, 0]
        deleted: set[int] = set()
        leader: StoreHome = home.sqlite if ahead == "sqlite" else home.bee
        for number, count, is_deletion, where in steps:
            header = HEADERS[number]
            if number in deleted or (is_deletion and not counts[number]):
                continue
            if is_deletion:
                deleted.add(number)
                append = appender.append(deletion(header.id, ANN), is_deletion=True)
            else:
                start = counts[number]
                stop = counts[number] = min(start + count, 12)
                content = ANN.content(
                    header,
                    transactions_of(number)[:stop],
                    after=start,
                    as_agent=True,
                    with_header=not start,
                )
                if start == stop:
                    continue
                append = appender.append(content)
            async with (home if where == "both" else leader).open() as store:
                await store.store([append])
                if is_deletion and erases:
                    await store.erase(header.id)
        expected = await read(leader)
        async with home.open() as store:
            assert await contents_of(store) == expected
            assert store.count() == len(expected)
        assert await read(home.sqlite) == expected
        assert await read(home.bee) == expected
        appends = home.bee.log.appends
        await read(home)
        assert home.bee.log.appends == appends  # nothing was left to do

    with tempfile.TemporaryDirectory() as directory:
        trio.run(run, HybridHome(Path(directory)))


async def test_both_may_have_what_the_other_lacks(tmp_path: Path) -> None:
    home = HybridHome(tmp_path)
    async with home.sqlite.open() as store:
        await Appender().put(store, ANN.content(HEADERS[0], edits(3), as_agent=True))
        await Appender().put(store, ANN.content(HEADERS[1], edits(1), as_agent=True))
    async with home.bee.open() as store:
        await Appender().put(store, ANN.content(HEADERS[0], edits(1), as_agent=True))
        await Appender().put(store, ANN.content(HEADERS[2], edits(2), as_agent=True))
    async with home.open() as store:
        held = await contents_of(store)
    assert {co_id: len(sessions[SESSION]) for co_id, (_, sessions) in held.items()} == {
        HEADERS[0].id: 3,
        HEADERS[1].id: 1,
        HEADERS[2].id: 2,
    }
    assert await read(home.bee) == held


async def test_a_deletion_that_only_one_was_told_of_is_copied(tmp_path: Path) -> None:
    home = HybridHome(tmp_path)
    appender = Appender()
    delete = deletion(HEADERS[0].id, ANN)
    async with home.open() as store:
        await appender.put(store, ANN.content(HEADERS[0], edits(3), as_agent=True), delete)
    async with home.sqlite.open() as store:
        await store.store([ValueAppend(HEADERS[0].id, None, {}, is_deletion=True)])
    async with home.open() as store:
        assert await store.pending_erasures() == [HEADERS[0].id]
        assert (await store.erase(HEADERS[0].id)).transactions == 3
        (piece,) = (await store.load(HEADERS[0].id)).pieces
        assert piece == replace(delete, header=HEADERS[0])
    for part in (home.sqlite, home.bee):
        async with part.open() as store:
            assert (await contents_of(store))[HEADERS[0].id][0]
            assert await store.pending_erasures() == []


async def test_damage_in_one_leaves_the_others_alone(tmp_path: Path) -> None:
    home = HybridHome(tmp_path)
    async with home.open() as store:
        for header in HEADERS:
            await Appender().put(store, ANN.content(header, edits(2), as_agent=True))
    async with home.sqlite.open() as store:
        await store.store([_appended(0)])
    key = f"{HEADERS[1].id}:header".encode()
    home.bee.log.blocks = [
        block.replace(b"unsafeAllowAll", b"unsafeAllowNil") if key in block else block
        for block in home.bee.log.blocks
    ]
    async with home.open() as store:
        held = await contents_of(store)
        assert [len(held[header.id][1][SESSION]) for header in HEADERS] == [3, 2, 2]
        await store.store([_appended(2)])


async def test_what_the_bee_cannot_take_for_damage_is_stored_all_the_same(tmp_path: Path) -> None:
    home = HybridHome(tmp_path)
    old = [
        ANN.content(map_header(f"old {n}"), edits(1, size=5000), as_agent=True) for n in range(30)
    ]
    new = [ANN.content(map_header(f"new {n}"), edits(1), as_agent=True) for n in range(30)]
    async with home.open() as store:
        for content in old:
            await Appender().put(store, content)
    home.bee.log.cleared.update(range(home.bee.log.length // 2, home.bee.log.length // 2 + 3))
    async with home.open() as store:
        await Appender().put(store, *new)
        await Appender().put(store, ANN.content(map_header("late"), edits(1), as_agent=True))
    async with home.bee.open() as bee:
        shared = {co_id async for co_id in bee.ids()}
        assert 10 < len(shared & {content.co_id for content in new}) < 30
    async with home.open() as store:
        assert len(await contents_of(store)) == 61


def _more(number: int) -> Content:
    """A third transaction, on top of two."""
    return ANN.content(HEADERS[number], edits(3), after=2, as_agent=True, with_header=False)


def _appended(number: int) -> ValueAppend:
    appender = Appender()
    appender.append(ANN.content(HEADERS[number], edits(2), as_agent=True))
    return appender.append(_more(number))


async def test_after_a_store_that_was_cut_short_nothing_more_is_stored(tmp_path: Path) -> None:
    home = HybridHome(tmp_path)
    log: DataLog = home.bee.log
    appender = Appender()
    async with home.open() as store:
        await appender.put(store, ANN.content(HEADERS[0], edits(2), as_agent=True))
        log.durable = trio.Event()
        append = appender.append(_more(0))
        with trio.move_on_after(0):
            await store.store([append])
        log.durable.set()
        (piece,) = (await store.load(HEADERS[0].id, KnownState(True))).pieces
        assert piece.new[SESSION].stop in (2, 3)
        if piece.new[SESSION].stop == 3:
            with pytest.raises(StorageFailed):
                await store.store([append])
    async with home.open() as store:
        assert (await contents_of(store)) == await read_bee(home)


async def read_bee(home: HybridHome) -> Held:
    return await read(home.bee)


def test_totals() -> None:
    held = Totals(3, 1, 5)
    assert not held.is_ahead_of(held)
    for more in (Totals(4, 1, 5), Totals(3, 1, 6), Totals(3, 2, 1)):
        assert more.is_ahead_of(held)
        assert not held.is_ahead_of(more)


async def test_nothing_is_appended_to_the_log_before_it_may_be(tmp_path: Path) -> None:
    """The bee's log may have been longer, and what SQLite has of it signed already."""
    home = HybridHome(tmp_path)
    async with home.sqlite.open() as store:
        await Appender().put(store, ANN.content(HEADERS[0], edits(3), as_agent=True))
    async with home.open(catches_up=False) as hybrid:
        assert home.bee.log.appends == 0
        assert (await contents_of(hybrid)).keys() == {HEADERS[0].id}
        await hybrid.catch_up()
        appends = home.bee.log.appends
        await hybrid.catch_up()
        assert home.bee.log.appends == appends > 0
    assert await read(home.bee) == await read(home.sqlite)


async def test_commits_wait_until_the_bee_has_caught_up(tmp_path: Path) -> None:
    """This one goes on with a session of which the bee has nothing."""
    home = HybridHome(tmp_path)
    appender = Appender()
    copied: list[RawCoId] = []
    async with home.sqlite.open() as store:
        await appender.put(store, ANN.content(HEADERS[0], edits(3), as_agent=True))
    async with home.open(catches_up=False) as hybrid, trio.open_nursery() as nursery:
        more = ANN.content(HEADERS[0], edits(5), after=3, as_agent=True, with_header=False)
        nursery.start_soon(appender.put, hybrid, more)
        await trio.testing.wait_all_tasks_blocked()
        assert home.bee.log.appends == 0
        await hybrid.catch_up(copied.extend)
    ((_, sessions),) = (await read(home.bee)).values()
    assert len(sessions[SESSION]) == 5
    assert copied == [HEADERS[0].id]


async def test_sqlite_has_at_once_what_only_the_bee_has(tmp_path: Path) -> None:
    """It serves what the node counts and sends, whenever the bee catches up."""
    home = HybridHome(tmp_path)
    async with home.bee.open() as store:
        await Appender().put(store, ANN.content(HEADERS[0], edits(3), as_agent=True))
    appends = home.bee.log.appends
    async with home.open(catches_up=False) as hybrid:
        assert hybrid.count() == 1
        assert len(joined(await load_all(hybrid, HEADERS[0].id, NOTHING, None))[SESSION]) == 3
        await hybrid.catch_up()
    assert home.bee.log.appends == appends


async def test_both_wait_for_the_disk_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = HybridHome(tmp_path)
    is_in_the_bee = threading.Event()
    commit = SqliteWriter.commit

    def wait(writer: SqliteWriter) -> None:
        assert is_in_the_bee.wait(5), "the bee gets it when SQLite has it"
        commit(writer)

    async with home.open(durability=Durability.COMMIT) as store, trio.open_nursery() as nursery:
        monkeypatch.setattr(SqliteWriter, "commit", wait)
        content = ANN.content(HEADERS[0], edits(1), as_agent=True)
        nursery.start_soon(Appender().put, store, content)
        while not home.bee.log.appends:
            await trio.lowlevel.checkpoint()
        is_in_the_bee.set()
    assert await read(home.sqlite) == await read(home.bee) != {}


@pytest.mark.parametrize("is_in_the_file", [False, True])
async def test_a_commit_that_failed_may_be_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_the_file: bool
) -> None:
    """Found by seed 900406: what came next was stored in the bee behind a gap."""
    home = HybridHome(tmp_path)
    appender = Appender()
    commit = SqliteWriter.commit

    def fail(writer: SqliteWriter) -> None:
        if is_in_the_file:
            commit(writer)
        raise StorageFailed("no space left on the device")

    async with home.open() as store:
        await appender.put(store, ANN.content(HEADERS[0], edits(1), as_agent=True))
        second = ANN.content(HEADERS[0], edits(2), after=1, as_agent=True, with_header=False)
        append = appender.append(second)
        monkeypatch.setattr(SqliteWriter, "commit", fail)
        with pytest.raises(StorageFailed):
            await store.store([append])
        monkeypatch.undo()
        with monkeypatch.context() as without_a_walk:  # over all that is stored, each time
            without_a_walk.setattr(SqliteStore, "ids", None)
            await store.recover()
        held = joined(await load_all(store, HEADERS[0].id, NOTHING, None))
        assert len(held[SESSION]) == 2  # the bee has it
        third = ANN.content(HEADERS[0], edits(3), after=2, as_agent=True, with_header=False)
        await appender.put(store, third)
    for part in (home.sqlite, home.bee):
        ((_, sessions),) = (await read(part)).values()
        assert len(sessions[SESSION]) == 3
