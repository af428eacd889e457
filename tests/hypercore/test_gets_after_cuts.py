"""Blocks beyond the end that come with one history, and are cut off before they are given out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from hypercore import log
from hypercore.core import Core
from hypercore.errors import SnapshotNotAvailable
from hypercore.log import Changeset, Head
from hypercore.merkle import MerkleNode
from tests.hypercore.originals.test_replicate import reader_of, replicating, stores, writer_of

COUNT = 8
CUT = 2


async def grown_and_cut(writer: Core) -> list[Changeset]:
    """What the writer's log was, and what it is once it is cut, as a peer takes it in."""
    before = writer.head
    await writer.truncate(CUT)
    after = writer.head
    blocks = [b"#%d" % index for index in range(COUNT)]
    grown = log.append(Head(0, 0, 0, ()), blocks, lambda _: before.signature)
    grown.manifest = writer.manifest
    nodes: dict[int, MerkleNode] = {node.index: node for node in grown.nodes}

    def read_node(index: int) -> MerkleNode | None:
        return nodes.get(index)

    return [grown, log.truncate(before, CUT, after.fork, read_node, lambda _: after.signature)]


async def test_a_block_is_not_of_the_history_that_its_commit_cuts_off() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        reader = await reader_of(second, writer)
        got: list[bytes] = []

        async def take(index: int) -> None:
            got.append(await reader.get(index))

        async with trio.open_nursery() as nursery:
            for index in (CUT - 1, COUNT - 1):
                nursery.start_soon(take, index)
            await trio.testing.wait_all_tasks_blocked()
            reader.commit(await grown_and_cut(writer))
            await trio.testing.wait_all_tasks_blocked()
            assert (reader.fork, reader.length) == (1, CUT)
            assert got == [b"#1"]
            await writer.append([b"new"] * (COUNT - CUT))
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()
            assert got == [b"#1", b"new"]
            nursery.cancel_scope.cancel()


async def test_blocks_that_come_one_by_one_are_all_of_one_history() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        await writer.clear(COUNT - 1, COUNT)
        reader = await reader_of(second, writer)
        got: list[bytes] = []

        async def take() -> None:
            got.extend(await reader.get_many([0, COUNT - 2, COUNT - 1]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()
                assert reader.has(COUNT - 2)
                await writer.truncate(CUT)
                await writer.append([b"new"] * (COUNT - CUT))
                await trio.testing.wait_all_tasks_blocked()
            assert got == [b"#0", b"new", b"new"]
            nursery.cancel_scope.cancel()


async def test_blocks_of_two_histories_that_are_given_up_are_given_beside_none() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        await writer.clear(COUNT - 1, COUNT)
        reader = await reader_of(second, writer)
        got: list[bytes] = []

        async def take() -> None:
            got.extend(await reader.get_many([COUNT - 2, COUNT - 1]))

        async def replicate() -> None:
            async with replicating(writer, reader):
                await trio.testing.wait_all_tasks_blocked()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            await replicate()
            await writer.truncate(CUT)
            await writer.append([b"new"] * (COUNT - CUT))
            await writer.clear(COUNT - 2, COUNT - 1)
            await replicate()
            assert reader.has(COUNT - 1)
            await writer.truncate(CUT)
            await writer.append([b"newer"] * (COUNT - CUT))
            await replicate()
            assert got == [b"newer", b"newer"]
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("held", [range(COUNT), [0, CUT - 1], []])
async def test_blocks_that_are_cut_off_are_not_given_beside_some_that_come_later(
    held: Sequence[int],
) -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        reader = await reader_of(second, writer)
        async with replicating(writer, reader):
            await reader.wait_length(COUNT)
            await reader.get_many(held)
            got: list[bytes] = []

            async def take() -> None:
                got.extend(await reader.get_many([0, CUT - 1, COUNT]))

            async def take_in_vain() -> None:
                with pytest.raises(SnapshotNotAvailable) as raised:
                    await reader.get_many([0, CUT, COUNT])
                assert (raised.value.index, raised.value.length) == (CUT, CUT)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(take)
                nursery.start_soon(take_in_vain)
                await trio.testing.wait_all_tasks_blocked()
                await writer.truncate(CUT)
                await writer.append([b"new"] * COUNT)
            assert got == [b"#0", b"#1", b"new"]


async def test_who_closes_the_core_after_a_cut_is_given_no_block_of_before() -> None:
    async with stores(2) as (first, second):
        writer = await writer_of(first, COUNT)
        reader = await reader_of(second, writer)
        refused = False

        async def take() -> None:
            nonlocal refused
            try:
                await reader.get(COUNT - 1)
            except trio.ClosedResourceError:
                refused = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            reader.commit(await grown_and_cut(writer))
            await reader.close()
        assert refused
