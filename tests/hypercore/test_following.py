"""Who follows a log hears at once when it is cut, however short it stays."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import Core, SnapshotNotAvailable, open_corestore
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of


async def test_a_cut_below_what_was_given_out_ends_the_wait_for_more() -> None:
    async with open_corestore(None) as store, trio.open_nursery() as nursery:
        core = await store.get(name="log")
        await core.append([b"0", b"1", b"2", b"3"])
        told: list[int] = []

        async def follow(core: Core) -> None:
            with pytest.raises(SnapshotNotAvailable) as caught:
                async for _ in core.follow():
                    pass
            told.append(caught.value.length)

        nursery.start_soon(follow, core)
        await trio.testing.wait_all_tasks_blocked()
        assert not told
        await core.truncate(1)
        await trio.testing.wait_all_tasks_blocked()
        assert told == [1]


async def test_a_cut_that_takes_back_nothing_given_out_goes_unnoticed() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        await core.append([b"0", b"1", b"2", b"3"])
        behind, ahead = core.follow(), core.follow(3)
        assert [await anext(behind), await anext(behind)] == [b"0", b"1"]
        found: list[bytes] = []

        async def read() -> None:
            found.append(await anext(ahead))

        await core.truncate(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await core.truncate(1)
            await core.append([b"new 1", b"new 2"])
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            await core.append(b"new 3")
        assert found == [b"new 3"]
        with pytest.raises(SnapshotNotAvailable):
            await anext(behind)


async def test_a_reader_elsewhere_hears_of_it_as_well() -> None:
    async with stores(2) as (first, second), trio.open_nursery() as nursery:
        writer = await writer_of(first, 5)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            follower = reader.follow()
            for _ in range(5):
                await anext(follower)
            is_told = trio.Event()

            async def wait() -> None:
                with pytest.raises(SnapshotNotAvailable):
                    await anext(follower)
                is_told.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await writer.truncate(3)
            with trio.fail_after(5):
                await is_told.wait()
