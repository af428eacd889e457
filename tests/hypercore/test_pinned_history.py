"""What a snapshot still shows of a log that is cut more than once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio.testing

from hypercore import BlockNotAvailable, SnapshotNotAvailable, open_corestore
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

BLOCKS = [b"block %d" % index for index in range(10)]


@pytest.mark.parametrize("is_on_disk", [True, False])
async def test_what_was_cleared_between_two_cuts_is_gone(is_on_disk: bool, tmp_path: Path) -> None:
    async with open_corestore(tmp_path if is_on_disk else None) as store:
        core = await store.get(name="log")
        await core.append(BLOCKS)
        async with core.snapshot() as snapshot:
            await core.truncate(8)
            await core.clear(4, 6)
            await core.truncate(3)
            await core.append(BLOCKS)
            held = [snapshot.has(index) for index in range(10)]
            assert held == [index not in (4, 5) for index in range(10)]
            assert [snapshot.get_local(index) for index in (3, 4, 5, 6, 8)] == [
                BLOCKS[3],
                None,
                None,
                BLOCKS[6],
                BLOCKS[8],
            ]
            assert not snapshot.has_range(3, 6)
            with pytest.raises(SnapshotNotAvailable):
                await snapshot.get(5)


async def test_what_came_between_two_cuts_stays() -> None:
    async with stores(2) as (first, second):
        writer = await first.get(name="log")
        await writer.append(BLOCKS)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)
            await reader.get(9)
            async with reader.snapshot() as snapshot:
                for length in (8, 6, 3):
                    await writer.truncate(length)
                    await trio.testing.wait_all_tasks_blocked()
                    assert reader.length == length
                    if length > 4:
                        assert await snapshot.get(length - 2) == BLOCKS[length - 2]
                assert [index for index in range(10) if snapshot.has(index)] == [4, 6, 9]
                assert await snapshot.get_many([4, 6, 9]) == [BLOCKS[4], BLOCKS[6], BLOCKS[9]]
                with pytest.raises(BlockNotAvailable):
                    await snapshot.get(5)


async def test_what_was_fetched_again_between_two_cuts_stays() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)
            await reader.download()
            async with reader.snapshot() as snapshot:
                whole = await snapshot.get_many(range(10))
                await writer.truncate(8)
                await trio.testing.wait_all_tasks_blocked()
                await reader.clear(2, 6)
                await reader.download(4, 6)
                await writer.truncate(1)
                await trio.testing.wait_all_tasks_blocked()
                held = [index for index in range(10) if snapshot.has(index)]
                assert held == [0, 1, 4, 5, 6, 7, 8, 9]
                assert [snapshot.get_local(index) for index in held] == [
                    whole[index] for index in held
                ]
