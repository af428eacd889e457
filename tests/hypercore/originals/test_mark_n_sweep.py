"""Keeping what was marked: what hypercore's test/mark-n-sweep.js asks.

There a core in marking mode marks what is read from it; here `marks.get` does, and what is read
from the core itself is read only. There a sweep without marks clears everything, here it is
refused, unless a marking marked nothing on purpose. What is appended while blocks are marked, or
after, is no garbage here; there it is.

Without a counterpart: marking on a named or atomic session, and on a snapshot: marks are of a
core. "startMarking - large cores" is about JavaScript's memory; there, 250,000 blocks are
appended one by one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import BlockNotAvailable, Core, Corestore, Durability, UsageError, open_corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.storage_rows import verify_core
from tests.support.stream_pair import open_mux_pair


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


async def filled(store: Corestore, count: int) -> Core:
    core = await store.get(name="log")
    await core.append([b"i%d" % index for index in range(count)])
    return core


def held(core: Core) -> list[int]:
    return [index for index in range(core.length) if core.has(index)]


async def test_what_was_read_through_the_marks_stays(store: Corestore) -> None:
    """startMarking - basic; startMarking - on session."""
    count = 50_000
    core = await filled(store, count)
    await core.get(42)
    wanted = [count - 1 - (2**power if power else 0) for power in range(15)]
    async with core.marking() as marks:
        assert list(marks) == []
        assert await marks.get_many(wanted[:7]) == [b"i%d" % index for index in wanted[:7]]
        for index in wanted[7:]:
            assert await marks.get(index) == b"i%d" % index
        assert list(marks) == sorted(wanted)
        assert wanted[0] in marks
        assert 42 not in marks
    assert core.contiguous_length == count
    assert await core.sweep() == count - len(set(wanted))
    assert core.contiguous_length == 0
    assert held(core) == sorted(wanted)
    for index in wanted:
        assert await core.get(index, wait=False) == b"i%d" % index
    for index in (count - 1 - 3**power for power in range(1, 10)):
        with pytest.raises(BlockNotAvailable):
            await core.get(index, wait=False)
    with pytest.raises(UsageError, match="nothing was marked"):
        await core.sweep()


async def test_one_marking_at_a_time(store: Corestore) -> None:
    """startMarking - cant run 2x."""
    core = await filled(store, 1)
    async with core.marking():
        with pytest.raises(UsageError, match="being marked already"):
            await core.marking().__aenter__()
        with pytest.raises(UsageError, match="still being marked"):
            await core.sweep()
    async with core.marking() as marks:
        marks.add(0)
    with pytest.raises(UsageError, match="the marking is over"):
        marks.add(0)


async def test_nothing_marked_on_purpose(store: Corestore) -> None:
    """startMarking then immediate sweep."""
    core = await filled(store, 3)
    async with core.marking():
        pass
    assert await core.sweep() == 3
    assert held(core) == []


async def test_ranges(store: Corestore) -> None:
    """markBlock - range; marking works on simple sessions; works on snap but sweep on non-snap."""
    core = await filled(store, 10)
    same = await store.get(name="log")
    async with same.marking() as marks:
        marks.add_range(2, 7)
        for start, stop in ((5, 11), (-1, 2), (4, 3)):
            with pytest.raises(IndexError):
                marks.add_range(start, stop)
        with pytest.raises(IndexError):
            marks.add(10)
        assert held(core) == list(range(10))
    assert await core.sweep() == 5
    assert held(core) == held(same) == list(range(2, 7))
    assert verify_core(store.storage, core.discovery_key, may_have_gaps=True) == 10


async def test_what_is_appended_since_is_kept(store: Corestore) -> None:
    core = await filled(store, 3)
    async with core.marking() as marks:
        marks.add(1)
        await core.append(b"meanwhile")
    await core.append(b"since")
    assert await core.sweep() == 2
    assert held(core) == [1, 3, 4]


async def test_an_interrupted_marking_leaves_no_marks(store: Corestore) -> None:
    """Half of the marks would take needed blocks for garbage; those of before are gone, too."""
    core = await filled(store, 3)
    async with core.marking() as marks:
        marks.add(1)

    async def fail() -> None:
        async with core.marking() as marks:
            marks.add(2)
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    with pytest.raises(UsageError, match="nothing was marked"):
        await core.sweep()
    assert held(core) == [0, 1, 2]


async def test_marks_of_another_history_are_refused(store: Corestore) -> None:
    core = await filled(store, 10)
    async with core.marking() as marks:
        marks.add(1)
    await core.truncate(5)
    await core.append([b"new"] * 5)
    with pytest.raises(UsageError, match="fork 0"):
        await core.sweep()
    core.clear_marks()
    with pytest.raises(UsageError, match="nothing was marked"):
        await core.sweep()

    async def cut_while_marking() -> None:
        async with core.marking():
            await core.truncate(2)

    with pytest.raises(UsageError, match="truncated while"):
        await cut_while_marking()
    assert held(core) == [0, 1]


async def test_a_sweep_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await filled(store, 5000)
        async with core.marking() as marks:
            marks.add_range(100, 110)
            marks.add(4999)
        with trio.CancelScope() as scope:
            scope.cancel()
            await core.sweep()
        left = core.info().blocks_held
        assert 11 < left < 5000
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        assert core.info().blocks_held == left
        await core.append(b"since")
        assert await core.sweep() == left - 11
        assert held(core) == [*range(100, 110), 4999, 5000]
        assert verify_core(store.storage, core.discovery_key, may_have_gaps=True) == 5001


async def test_cancelled_anywhere(store: Corestore) -> None:
    core = await filled(store, 4000)

    async def mark_and_sweep() -> None:
        async with core.marking() as marks:
            await trio.lowlevel.checkpoint()
            marks.add_range(1000, 1010)
        await core.sweep()

    assert await cancel_everywhere(mark_and_sweep) > 2
    assert held(core) == list(range(1000, 1010))


async def test_peers_are_told(store: Corestore) -> None:
    core = await filled(store, 100)
    async with (
        open_corestore(None) as theirs,
        open_mux_pair(PROTOCOL) as (our_mux, their_mux),
        trio.open_nursery() as nursery,
    ):
        copy = await theirs.get(key=core.key)
        nursery.start_soon(store.replicate, our_mux)
        nursery.start_soon(theirs.replicate, their_mux)
        with trio.fail_after(20):
            await copy.wait_length(100)
            async with core.marking() as marks:
                marks.add_range(50, 60)
            await core.sweep()
            await trio.testing.wait_all_tasks_blocked()
            assert await copy.get(55) == b"i55"
            before = copy.replication.statistics().total.requests_sent
            nursery.start_soon(copy.get, 49)
            await trio.testing.wait_all_tasks_blocked()
            assert copy.replication.statistics().total.requests_sent == before
        nursery.cancel_scope.cancel()
