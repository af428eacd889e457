"""Readers that are left while blocks that they asked for ahead have not come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.replication.prefetched import MAX_PREFETCHED
from hypercore.value_encoding import UTF8
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

COUNT = 10


async def first_of(values: AsyncIterator[object]) -> None:
    async for _ in values:
        break


async def read_bytes(core: Core) -> None:
    async with aclosing(core.byte_stream()) as stream:
        assert await stream.receive_some(1) == b"#"


READS: list[Callable[[Core], Awaitable[None]]] = [
    lambda core: first_of(core.blocks()),
    lambda core: first_of(core.blocks(reverse=True)),
    lambda core: first_of(core.follow()),
    lambda core: first_of(core.encoded(UTF8).values()),
    read_bytes,
]


@pytest.mark.parametrize("read", READS)
async def test_nobody_is_asked_for_what_a_reader_wanted_that_was_left(
    read: Callable[[Core], Awaitable[None]],
) -> None:
    async with stores(3) as (first, second, third):
        writer = await writer_of(first, COUNT)
        partial = await reader_of(third, writer)
        async with replicating(writer, partial):
            await partial.wait_length(COUNT)
            await partial.get_many([0, COUNT - 1])
        reader = await reader_of(second, writer)
        async with replicating(partial, reader):
            await reader.wait_length(COUNT)
            await read(reader)
        held = reader.count(0, COUNT)
        assert held in (1, 2)
        async with replicating(writer, reader):
            await trio.testing.wait_all_tasks_blocked()
        assert reader.count(0, COUNT) == held


async def read_to_the_end(blocks: list[AsyncIterator[bytes]], core: Core) -> None:
    with pytest.raises(StopAsyncIteration):
        await anext(blocks[0])


async def leave(blocks: list[AsyncIterator[bytes]], core: Core) -> None:
    blocks.clear()


async def read_ahead_elsewhere(blocks: list[AsyncIterator[bytes]], core: Core) -> None:
    for index in range(COUNT, COUNT + MAX_PREFETCHED + 1):
        core.prefetch(range(index, index + 1))


@pytest.mark.parametrize("end", [read_to_the_end, leave, read_ahead_elsewhere])
async def test_a_reader_that_ends_takes_back_nothing_that_another_waits_for(
    end: Callable[[list[AsyncIterator[bytes]], Core], Awaitable[None]],
) -> None:
    last = range(COUNT - 1, COUNT)
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(COUNT)
            reader.prefetch(last)
            blocks = [reader.blocks(last.start)]
            await anext(blocks[0])
        await reader.clear(last.start, last.stop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.get, last.start)
            await trio.testing.wait_all_tasks_blocked()
            await end(blocks, reader)
            await trio.testing.wait_all_tasks_blocked()
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()
            assert reader.has(last.start)
            nursery.cancel_scope.cancel()
