"""What is asked for ahead, by readers that take nothing back."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore.replication.prefetched import MAX_PREFETCHED
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

BLOCKS = 2 * MAX_PREFETCHED + 20


@pytest.mark.parametrize("through_a_snapshot", [False, True])
async def test_of_many_ranges_the_newest_are_asked_for(through_a_snapshot: bool) -> None:
    """Without peers all were kept: to look through 16,000 of them took a minute when one came."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, BLOCKS)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(BLOCKS)
        async with reader.snapshot() as snapshot:
            for start in range(0, BLOCKS, 2):
                (snapshot if through_a_snapshot else reader).prefetch(range(start, start + 2))
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()
        given_up = BLOCKS - 2 * MAX_PREFETCHED
        held = [index for index in range(BLOCKS) if reader.has(index)]
        assert held == list(range(given_up, BLOCKS))


async def test_what_is_here_is_not_asked_for_in_place_of_what_is_not() -> None:
    """A reader of blobs asks ahead for each piece, whether or not it has come."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, 20)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.download(0, 10)
        reader.prefetch(range(12, 15))
        for _ in range(2 * MAX_PREFETCHED):
            reader.prefetch(range(10))
        async with replicating(writer, reader):
            await trio.testing.wait_all_tasks_blocked()
        assert [index for index in range(10, 20) if reader.has(index)] == [12, 13, 14]


async def test_what_has_come_makes_room_first() -> None:
    """The oldest may be what a reader is about to come to."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, BLOCKS)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(BLOCKS)
            reader.prefetch(range(BLOCKS, BLOCKS + 2))
            for start in range(0, BLOCKS, 2):
                reader.prefetch(range(start, start + 2))
                await trio.testing.wait_all_tasks_blocked()
            await writer.append([b"what it waits for"] * 2)
            await trio.testing.wait_all_tasks_blocked()
            assert reader.contiguous_length == BLOCKS + 2
