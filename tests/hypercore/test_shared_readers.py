"""Two tasks at one reader of blocks: none comes twice, and none is passed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
import trio.testing

from bee import Blobs
from hypercore.core import Core
from hypercore.errors import UsageError
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

READERS: list[Callable[[Core], AsyncIterator[bytes]]] = [
    lambda core: core.blocks(),
    lambda core: core.blocks(reverse=True),
    lambda core: core.follow(),
    lambda core: core.follow(1_200),
]


@pytest.mark.parametrize("read", READERS)
async def test_blocks_that_are_here(read: Callable[[Core], AsyncIterator[bytes]]) -> None:
    async with stores(1) as (store,):
        core = await writer_of(store, 1_200)
        expected = [block async for block in core.blocks()]
        blocks = read(core)
        got: list[bytes] = []
        refused = 0

        async def take() -> None:
            nonlocal got, refused
            try:
                async for block in blocks:
                    got += [block]
            except UsageError:
                refused += 1

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            await core.append(b"last")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert len(got) == len(set(got))
        assert set(got) >= set(expected) or got == [b"last"]
        assert refused in (0, 2)


@pytest.mark.parametrize("read", [*READERS[:3], lambda core: core.follow(3)])
async def test_a_block_that_is_waited_for(read: Callable[[Core], AsyncIterator[bytes]]) -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 3)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(3)
        blocks = read(reader)
        got: list[bytes] = []

        async def take(count: int) -> None:
            nonlocal got
            for _ in range(count):
                got += [await anext(blocks)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(UsageError):
                await anext(blocks)
            async with replicating(writer, reader):
                await writer.append(b"#3")
                await trio.testing.wait_all_tasks_blocked()
        async with replicating(writer, reader):
            if got != [b"#3"]:
                await take(2)
        assert got in ([b"#0", b"#1", b"#2"], [b"#2", b"#1", b"#0"], [b"#3"])


async def test_bytes_of_a_blob() -> None:
    async with stores(2) as (first, second):
        writer = await first.get(name="blobs")
        blobs = Blobs(writer)
        blob = await blobs.put(bytes(range(256)) * 4_096)
        reader = await reader_of(second, writer)
        pieces = Blobs(reader).stream(blob)
        got: list[bytes] = []

        async def take() -> None:
            nonlocal got
            async for piece in pieces:
                got += [piece]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(UsageError):
                await anext(pieces)
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()
        assert b"".join(got) == bytes(range(256)) * 4_096
