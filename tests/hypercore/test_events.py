"""What happens to a core, as somebody hears of it who looks."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from hypercore import (
    Appended,
    Core,
    CoreEvent,
    CoreEvents,
    Corestore,
    Downloaded,
    PeerAdded,
    PeerRemoved,
    RemoteContiguous,
    Truncated,
    Uploaded,
    open_corestore,
)
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.replicating_cores import replicating


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    return await store.get(name="log")


@pytest.fixture
async def copy(core: Core) -> AsyncIterator[Core]:
    async with open_corestore(None) as other:
        yield await other.get(key=core.key)


async def waiting(events: CoreEvents) -> list[CoreEvent]:
    """All that is to be heard now."""
    found: list[CoreEvent] = []

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen_into, events, found)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


async def listen_into(events: CoreEvents, found: list[CoreEvent]) -> None:
    async for event in events:
        found.append(event)  # noqa: PERF401  # what came before the cancellation counts


async def test_appends_and_cuts(core: Core) -> None:
    await core.append(b"before")
    events = core.events()
    assert await waiting(events) == []
    await core.append(b"one")
    assert await waiting(events) == [Appended(1, 2)]
    await core.append([b"two", b"three"])
    await core.append(b"four")
    assert await waiting(events) == [Appended(2, 5)], "seldom looked at they are one"
    await core.truncate(2)
    assert await waiting(events) == [Truncated(2, 1)]
    await core.truncate(1)
    await core.append([b"new"] * 9)
    await core.truncate(5)
    assert await waiting(events) == [Truncated(1, 3), Appended(1, 5)]
    await core.append(b"gone before anybody looked")
    await core.truncate(5)
    assert await waiting(events) == []


async def test_who_waits_is_woken(core: Core) -> None:
    events = core.events()
    found: list[CoreEvent] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen_into, events, found)
        for length in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            await core.append(b"x")
            await trio.testing.wait_all_tasks_blocked()
            assert found[-1] == Appended(length - 1, length)
        await core.close()
    assert len(found) == 2
    with pytest.raises(trio.ClosedResourceError):
        core.events()


async def test_two_listeners_hear_the_same(core: Core) -> None:
    one, other = core.events(), core.events()
    await core.append(b"x")
    assert await waiting(one) == await waiting(other) == [Appended(0, 1)]


async def test_what_peers_do(core: Core, copy: Core) -> None:
    await core.append([b"0" * 10, b"1" * 20, b"2" * 30])
    ours, theirs = core.events(), copy.events()
    async with replicating(core, copy):
        await copy.get_many([0, 2])
        seen, theirs_seen = await waiting(ours), await waiting(theirs)
        (added,) = [event.peer for event in seen if isinstance(event, PeerAdded)]
        assert added.is_connected
        assert [event for event in seen if isinstance(event, Uploaded)] == [Uploaded(2, 40)]
        assert theirs_seen[0] == Appended(0, 3)
        assert [type(event) for event in theirs_seen[1:]] == [
            PeerAdded,
            Downloaded,
            RemoteContiguous,
        ]
        assert theirs_seen[2:] == [Downloaded(2, 40), RemoteContiguous(3)]
        await copy.get(1)
        assert Downloaded(1, 20) in await waiting(theirs)
    assert PeerRemoved(added) in await waiting(ours)
    left = await waiting(theirs)
    assert [type(event) for event in left] == [PeerRemoved, RemoteContiguous]


async def test_a_copy_hears_of_a_cut(core: Core, copy: Core) -> None:
    await core.append([b"0", b"1", b"2"])
    async with replicating(core, copy):
        await copy.download(0, 3)
        await copy.wait_length(3)
        events = copy.events()
        await core.truncate(1)
        await core.append(b"new")
        found: list[CoreEvent] = []
        while not any(isinstance(event, Appended) for event in found):
            found += await waiting(events)
        told = [event for event in found if isinstance(event, Truncated | Appended)]
        assert told == [Truncated(1, 1), Appended(1, 2)]


async def test_a_cancelled_listener_misses_nothing(core: Core) -> None:
    events = core.events()
    told: list[CoreEvent] = []

    async def hear() -> None:
        told.append(await anext(events))

    for _ in range(300):
        await core.append(b"x")
        await cancel_everywhere(hear)
    assert [event.start for event in told if isinstance(event, Appended)] == list(range(300))


async def test_nobody_keeps_what_nobody_listens_to(core: Core) -> None:
    """Iterators that were dropped are not told any more, and not woken."""
    for _ in range(10):
        core.events()
        core.follow()
    await core.truncate(0)
    await core.append(b"x")
    assert core.info().sessions == 1
