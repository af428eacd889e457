"""Giving up blocks: what hypercore's test/clear.js asks.

A clear returns how many blocks it freed (there: `{ diff: true }`); a range beyond the end is an
error and not ignored. "clear - large cores" looks into the storage at 300,000 blocks, here at
70,000, which cross the same border of bitfield pages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import BlockNotAvailable, Core, Corestore, Durability, OutOfRange, open_corestore
from hypercore.replication.messages import PROTOCOL
from tests.support.stream_pair import open_mux_pair


@pytest.fixture
async def store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


@asynccontextmanager
async def replicated(*stores: Corestore) -> AsyncIterator[None]:
    """Each store connected with the next one."""
    async with trio.open_nursery() as nursery:
        for one, other in pairwise(stores):
            nursery.start_soon(connect, one, other)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(20):
            yield
        nursery.cancel_scope.cancel()


async def connect(one: Corestore, other: Corestore) -> None:
    async with open_mux_pair(PROTOCOL) as (mux, other_mux), trio.open_nursery() as nursery:
        nursery.start_soon(one.replicate, mux)
        nursery.start_soon(other.replicate, other_mux)


async def test_a_hole(store: Corestore) -> None:
    """clear."""
    core = await store.get(name="log")
    await core.append([b"a", b"b", b"c"])
    assert core.contiguous_length == 3
    assert await core.clear(1, 2) == 1
    assert core.contiguous_length == 1
    assert [core.has(index) for index in range(3)] == [True, False, True]


async def test_fetched_again_from_a_peer_that_kept_it(store: Corestore) -> None:
    """clear + replication. The original's writer fetches its own block back; ours never does.

    What a writer cleared was given up, and a reader is not to bring it back (README, decisions).
    """
    async with open_corestore(None) as other, open_corestore(None) as third:
        core = await store.get(name="log")
        await core.append([b"a", b"b", b"c"])
        copy, reader = await other.get(key=core.key), await third.get(key=core.key)
        async with replicated(store, other, third):
            await copy.wait_length(3)
            await copy.download()
            await core.clear(1, 2)
            assert not core.has(1)
            assert copy.has(1)
            with pytest.raises(BlockNotAvailable):
                await core.get(1, wait=False)
            assert await reader.get(1) == b"b"


async def test_gossip(store: Corestore) -> None:
    """clear + replication, gossip."""
    async with open_corestore(None) as other, open_corestore(None) as third:
        core = await store.get(name="log")
        copy, reader = await other.get(key=core.key), await third.get(key=core.key)
        async with replicated(store, other, third):
            await core.append([b"a", b"b", b"c"])
            await copy.wait_length(3)
            await copy.download()
            await reader.wait_length(3)
            assert await copy.clear(1, 2) == 1
            assert core.has(1)
            assert not copy.has(1)
            async with trio.open_nursery() as nursery:
                blocks = []

                async def read() -> None:
                    blocks.append(await reader.get(1))

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()
                assert blocks == []
                assert await copy.get(1) == b"b"
            assert blocks == [b"b"]


async def test_the_block_before_a_single_last_one(store: Corestore) -> None:
    """incorrect clear."""
    core = await store.get(name="log")
    await core.append([b"tick"] * 129)
    await core.clear(127, 128)
    assert not core.has(127)
    assert core.has(128)
    assert await core.get(128) == b"tick"


async def test_how_many_were_freed(store: Corestore) -> None:
    """clear blocks with diff option."""
    core = await store.get(name="log")
    await core.append([bytes(128)] * 3)
    with pytest.raises(OutOfRange):
        await core.clear(1337, 1338)
    assert await core.clear(0, 0) == 0
    assert await core.clear(0, 2) == 2
    assert await core.clear(0, 3) == 1
    assert await core.clear(0, 3) == 0
    await core.append([b"x"] * 4)
    assert await core.clear_many([0, 6, 4]) == 2


async def test_blocks_that_never_were_here(store: Corestore) -> None:
    """clear - no side effect from clearing unknown nodes."""
    async with open_corestore(None) as other:
        core = await store.get(name="log")
        await core.append([b"a", b"b", b"c", b"d"])
        copy = await other.get(key=core.key)
        async with replicated(store, other):
            await copy.wait_length(4)
            for index in range(3):
                assert await copy.clear(index, index + 1) == 0
            assert await copy.get(3) == b"d"
            assert await copy.get(1) == b"b"


async def test_large_cores(tmp_path: Path) -> None:
    """clear - large cores."""
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        await core.append([b"Block-%d" % index for index in range(70_000)])
        assert core.contiguous_length == 70_000
        page = 2**16  # where the third page of bits begins
        holes = [(100, 1000), (page - 10, page + 10), (69_000, 69_998)]
        for start, stop in holes:
            assert await core.clear(start, stop) == stop - start
        for start, stop in holes:
            assert await core.get(start - 1) == b"Block-%d" % (start - 1)
            assert await core.get(stop) == b"Block-%d" % stop
            for index in (start, stop - 1):
                with pytest.raises(BlockNotAvailable):
                    await core.get(index, wait=False)
            assert held(core, start - 1, stop + 1) == [start - 1, stop]
        assert core.contiguous_length == 100
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        assert core.info().blocks_held == 70_000 - sum(stop - start for start, stop in holes)


def held(core: Core, start: int, stop: int) -> list[int]:
    blocks = core.read_blocks(range(start, stop))
    return [index for index, block in enumerate(blocks, start) if block is not None]
