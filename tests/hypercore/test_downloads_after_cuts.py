"""Downloads of what is here, is cut off, and grows again: it is fetched again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.downloading import Download, Order
from hypercore.errors import SnapshotNotAvailable
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

Start = Callable[[Core], AbstractAsyncContextManager[Download]]

DOWNLOADS: list[Start] = [
    lambda core: core.downloading(0, 10),
    lambda core: core.downloading(0, 10, order=Order.RANDOM),
    lambda core: core.downloading(9, 10),
    lambda core: core.downloading(blocks=[3, 6, 9]),
    lambda core: core.downloading(blocks=range(3, 10, 3)),
    lambda core: core.downloading(blocks=range(9, 0, -3)),
    lambda core: core.downloading(blocks=[3, 6, 9], order=Order.RANDOM),
]


@pytest.mark.parametrize("start", DOWNLOADS)
@pytest.mark.parametrize("is_asked_before", [True, False])
async def test_a_download_is_of_the_history_that_there_is(
    start: Start, is_asked_before: bool
) -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader), start(reader) as download:
            await reader.wait_length(10)
            await trio.testing.wait_all_tasks_blocked()
            assert not is_asked_before or download.is_done
            await writer.truncate(5)
            await trio.testing.wait_all_tasks_blocked()
            assert (reader.fork, reader.length) == (1, 5)
            assert not download.is_done
            await writer.append([b"new"] * 5)
            with trio.fail_after(5):
                await download.done()
            assert download.missing(10) == 0


@pytest.mark.parametrize("start", DOWNLOADS)
async def test_a_download_goes_on_though_nobody_waits(start: Start) -> None:
    """As a mirror does. What is given up is not asked for any more."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)
            for number in range(3):
                async with start(reader) as download:
                    await download.done()
                    await writer.truncate(5 - number)
                    await writer.append([b"new"] * (5 + number))
                    await trio.testing.wait_all_tasks_blocked()
                    assert reader.fork == 2 * number + 1
                    assert download.missing(10) == 0
                await writer.truncate(3)
                await writer.append([b"newer"] * 7)
                await trio.testing.wait_all_tasks_blocked()
                assert reader.fork == 2 * number + 2
                assert not reader.has(9)


async def test_a_list_of_which_a_part_is_cut_off() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader), reader.downloading(blocks=[3, 6, 12]) as download:
            await reader.wait_length(10)
            await trio.testing.wait_all_tasks_blocked()
            assert download.missing(13) == 1
            await writer.truncate(5)
            await trio.testing.wait_all_tasks_blocked()
            await writer.append([b"new"] * 8)
            with trio.fail_after(5):
                await download.done()


async def test_a_download_that_waits_looks_at_all_of_it_again() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        await writer.clear(8, 10)
        reader = await reader_of(second, writer)
        is_over = False

        async def download() -> None:
            nonlocal is_over
            await reader.download(0, 10)
            is_over = True

        async with replicating(writer, reader), trio.open_nursery() as nursery:
            await reader.wait_length(10)
            nursery.start_soon(download)
            await trio.testing.wait_all_tasks_blocked()
            assert reader.contiguous_length == 8
            await writer.truncate(5)
            await writer.append([b"new"] * 5)
            await writer.clear(5, 7)
            await trio.testing.wait_all_tasks_blocked()
            assert reader.has_range(7, 10)
            assert not reader.has(5)
            assert not is_over
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_of_snapshot", [True, False])
async def test_what_was_prefetched_is_not_fetched_again(is_of_snapshot: bool) -> None:
    """Nobody takes that back: it would be wanted for ever."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)
            async with reader.snapshot() as snapshot:
                (snapshot if is_of_snapshot else reader).prefetch(range(10))
                await trio.testing.wait_all_tasks_blocked()
            assert reader.contiguous_length == 10
            await writer.truncate(5)
            await writer.append([b"new"] * 5)
            await trio.testing.wait_all_tasks_blocked()
            assert (reader.length, reader.contiguous_length) == (10, 5)


@pytest.mark.parametrize("grown", [0, 2, 5, 9])
@pytest.mark.parametrize("held", [8, 10])
async def test_a_snapshots_download_is_of_its_own_history(held: int, grown: int) -> None:
    """It went by what is here of the new one: some was said to be gone, or here, and was not."""
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)
            await reader.download(0, held)
            async with reader.snapshot() as snapshot:
                await writer.truncate(5)
                await writer.append([b"new"] * grown)
                await trio.testing.wait_all_tasks_blocked()
                await reader.download()
                assert (reader.fork, reader.length) == (1, 5 + grown)
                with trio.fail_after(5):
                    await snapshot.download(0, held)
                    if held < 10:
                        with pytest.raises(SnapshotNotAvailable, match="block 8 is gone"):
                            await snapshot.download()


@pytest.mark.parametrize("grown", [0, 5])
async def test_a_snapshots_download_ends_when_what_it_waits_for_is_cut_off(grown: int) -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, 10)
        await writer.clear(8, 10)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(10)

            async def download() -> None:
                async with reader.snapshot() as snapshot:
                    with pytest.raises(SnapshotNotAvailable, match="block 8 is gone"):
                        await snapshot.download()

            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(download)
                    await trio.testing.wait_all_tasks_blocked()
                    await writer.truncate(5)
                    await writer.append([b"new"] * grown)
