"""What hypercore 11.37.1's test/timeouts.js covers: here a time limit is its caller's cancel scope.

So there are no timeouts of cores and sessions, and none is inherited or overridden: of those tests
only what a scope around the calls does is left.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import BlockNotAvailable, Core, Corestore
from tests.support.replicating_cores import replicating


@pytest.fixture
async def reader(core: Core, other_store: Corestore) -> Core:
    return await other_store.get(key=core.key)


async def test_a_block_in_time(
    core: Core, reader: Core, autojump_clock: trio.testing.MockClock
) -> None:
    async def append_later() -> None:
        await trio.sleep(0.1)
        await core.append(b"hi")

    async with replicating(core, reader), trio.open_nursery() as nursery:
        nursery.start_soon(append_later)
        with trio.fail_after(5):
            assert await reader.get(0) == b"hi"


async def test_a_block_too_late(
    core: Core, reader: Core, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(trio.TooSlowError), trio.fail_after(0.001):
        await reader.get(0)
    with trio.move_on_after(1) as scope:
        await reader.get_many([0, 1])
    assert scope.cancelled_caught
    await core.append([b"hi", b"ho"])
    async with replicating(core, reader):
        assert await reader.get(1) == b"ho"
        assert not reader.has(0), "what was given up is not fetched"


async def test_one_limit_for_several_calls(
    core: Core, reader: Core, autojump_clock: trio.testing.MockClock
) -> None:
    async with reader.session() as session:
        with trio.move_on_after(1) as scope:
            with trio.move_on_after(0.1):
                await session.seek(5)
            with trio.move_on_after(0.1):
                await session.wait_length(1)
            await session.get(0)
        assert scope.cancelled_caught
        assert trio.current_time() == pytest.approx(scope.deadline)


async def test_a_closed_session_does_not_wait_for_its_time(reader: Core) -> None:
    async with trio.open_nursery() as nursery:
        session = reader.session()

        async def get() -> None:
            with pytest.raises(trio.ClosedResourceError), trio.fail_after(20):
                await session.get(0)

        nursery.start_soon(get)
        await trio.testing.wait_all_tasks_blocked()
        await session.close()


async def test_not_waiting_at_all(reader: Core) -> None:
    for call in (
        lambda: reader.get(0, wait=False),
        lambda: reader.get_many([0], wait=False),
        lambda: reader.seek(3, wait=False),
    ):
        with pytest.raises(BlockNotAvailable):
            await call()
    assert reader.get_local(0) is None
