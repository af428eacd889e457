"""Many blocks at once, of which some come while others are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from hypercore import Core, open_corestore
from tests.support.replicating_cores import replicating

COUNT = 600
BLOCKS = [b"%d" % number + bytes(100_000) for number in range(COUNT)]
"""So large that others run now and then while they are read."""

Read = Callable[[Core], Awaitable[list[bytes]]]


async def of_core(core: Core) -> list[bytes]:
    return await core.get_many(range(COUNT))


async def of_snapshot(core: Core) -> list[bytes]:
    async with core.snapshot() as snapshot:
        return await snapshot.get_many(range(COUNT))


@pytest.mark.parametrize("read", [of_core, of_snapshot])
async def test_a_block_that_comes_for_somebody_else_meanwhile_is_not_waited_for(
    read: Read,
) -> None:
    """It was missing when it was looked for, and here when it was to be asked for."""
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="log")
        await core.append(BLOCKS)
        copy = await other.get(key=core.key)
        async with replicating(core, copy):
            await copy.wait_length(COUNT)
            await copy.get_many(range(1, COUNT))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(copy.get, 0)
                assert await read(copy) == BLOCKS


async def test_a_block_that_is_named_twice_is_wanted_once() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="log")
        await core.append([b"first", b"second"])
        copy = await other.get(key=core.key)
        with trio.move_on_after(0) as scope:
            await copy.get_many([1, 1])
        assert scope.cancelled_caught
        async with replicating(core, copy):
            await copy.wait_length(2)
            assert await copy.get(0) == b"first"
            await trio.testing.wait_all_tasks_blocked()
            assert copy.get_local(1) is None
