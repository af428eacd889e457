"""Update groups: what corestore's test/groups.js and test/notify.js ask.

Here a watch is an iterator that is dropped, so that the tests of `destroy`, of handles that never
were attached and of streams left halfway have no counterpart. A slow reader is told of the last
change of each core; there every change is an event.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import Corestore, Durability, GroupUpdate, UsageError, open_corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.storage_rows import all_rows
from tests.support.stream_pair import open_mux_pair

TOPIC = b"\x01" * 32
OTHER = b"\x02" * 32


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    path = None if request.param == "memory" else tmp_path / "store"
    async with open_corestore(path, durability=Durability.OS) as opened:
        yield opened


async def next_millisecond() -> None:
    """Changes within one are in the order of the cores."""
    now = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == now:
        await trio.lowlevel.checkpoint()


async def test_the_last_change_comes_first(store: Corestore) -> None:
    """returns keys of cores that have been active in group; empty when no cores in group."""
    assert store.group_updates(TOPIC) == []
    one, other = await store.get(name="a", group=TOPIC), await store.get(name="b", group=TOPIC)
    await store.get(name="never changed", group=TOPIC)
    elsewhere = await store.get(name="c", group=OTHER)
    assert store.group_updates(TOPIC) == []
    for core in (one, other, elsewhere):
        await core.append(b"hello")
        await next_millisecond()
    assert store.group_updates(TOPIC) == [other.key, one.key]
    await one.truncate(0)
    await next_millisecond()
    assert store.group_updates(TOPIC) == [one.key, other.key]
    assert store.group_updates(OTHER) == [elsewhere.key]
    updates = [key for key in all_rows(store.storage) if key[:1] == b"\x06"]
    assert len(updates) == 3, "one row a core, however often it changes"


async def test_one_group_a_core(store: Corestore) -> None:
    core = await store.get(name="a", group=TOPIC)
    assert (await store.get(name="a", group=TOPIC)).key == core.key
    with pytest.raises(UsageError, match="another group"):
        await store.get(key=core.key, group=OTHER)
    await core.append(b"still open")
    assert store.group_updates(TOPIC) == [core.key]
    await store.purge(name="a")
    assert store.group_updates(TOPIC) == []


async def test_the_group_is_remembered(tmp_path: Path) -> None:
    """group - persistance."""
    async with open_corestore(tmp_path) as store:
        one, other = await store.get(name="a", group=TOPIC), await store.get(name="b", group=TOPIC)
        await one.append(b"hello")
    async with open_corestore(tmp_path) as store:
        await next_millisecond()
        await (await store.get(name="b")).append(b"goodbye")
        assert store.group_updates(TOPIC) == [other.key, one.key]


async def test_being_told(store: Corestore) -> None:
    """notifyGroup handle; group-active - fired per core not per session."""
    core = await store.get(name="a", group=TOPIC)
    same = await store.get(name="a")
    watch, another, silent = (store.watch_group(topic) for topic in (TOPIC, TOPIC, OTHER))
    await same.append(b"hello")
    assert await anext(watch) == GroupUpdate(core.key, 1, 0)
    await same.append(b"hello")
    await core.truncate(1)
    assert await anext(watch) == GroupUpdate(core.key, 1, 1)
    assert await anext(another) == GroupUpdate(core.key, 1, 1)
    other = await store.get(name="b", group=TOPIC)
    async with store.atom(core, other) as atom:
        atom[core].append(b"x")
        atom[other].append(b"x")
    assert {(await anext(watch)).key for _ in range(2)} == {core.key, other.key}
    with trio.move_on_after(0):
        await anext(silent)
        raise AssertionError("told of another group")


async def test_told_of_what_peers_bring_and_of_the_end(tmp_path: Path) -> None:
    """groups; group-active - fired via passive: nobody here has the core open."""
    async with open_corestore(tmp_path / "ours") as ours:
        core = await ours.get(name="foo")
        async with open_corestore(tmp_path / "theirs") as theirs:
            await theirs.get(key=core.key, group=TOPIC)
        async with (
            open_corestore(tmp_path / "theirs") as theirs,
            open_mux_pair(PROTOCOL) as (our_mux, their_mux),
            trio.open_nursery() as nursery,
        ):
            watch = theirs.watch_group(TOPIC)
            nursery.start_soon(ours.replicate, our_mux)
            nursery.start_soon(theirs.replicate, their_mux)
            await core.append(b"hello")
            with trio.fail_after(20):
                assert await anext(watch) == GroupUpdate(core.key, 1, 0)
            assert theirs.group_updates(TOPIC) == [core.key]
            nursery.cancel_scope.cancel()
        assert [update async for update in watch] == []
