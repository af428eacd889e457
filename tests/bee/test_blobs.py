"""Blobs in a log, and a bee whose large values are blobs."""

from __future__ import annotations

import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from bee import Bee, BlobId, Blobs, CorruptTree, LargeValueBee
from bee.errors import BatchEnded, LogChanged
from hypercore import Core, Corestore, Durability, open_corestore
from hypercore.encoding import DecodeError, encode_uint
from hypercore.errors import BlockNotAvailable, NotWritable, OutOfRange, UsageError
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.replicating_cores import replicating


@given(st.data())
def test_any_part_of_any_blob(data: st.DataObject) -> None:
    block_bytes = data.draw(st.integers(1, 9))
    contents = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))

    async def run() -> None:
        async with open_corestore(None) as store:
            core = await store.get(name="blobs")
            blobs = Blobs(core, block_bytes=block_bytes)
            ids = [await blobs.put(content) for content in contents]
            # Somebody who cuts otherwise, or believes that others do.
            reader = Blobs(core, block_bytes=data.draw(st.integers(1, 9)))
            for blob, content in zip(ids, contents, strict=True):
                assert BlobId.decode(blob.encode()) == blob == BlobId.from_json(blob.to_json())
                assert await reader.get(blob) == content
                start = data.draw(st.integers(0, len(content)))
                stop = data.draw(st.integers(start, len(content)))
                assert await reader.get(blob, start, stop) == content[start:stop]

    trio.run(run)


async def test_writing_piece_by_piece() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=10)
        await blobs.put(b"first")
        async with blobs.writer() as writer:
            for number in range(100):
                await writer.write(b"%03d" % number)
            with pytest.raises(BatchEnded):
                _ = writer.id
        assert writer.id == (1, 30, 5, 300)
        assert await blobs.get(writer.id, 30, 36) == b"010011"
        with pytest.raises(BatchEnded):
            await writer.write(b"late")
        empty = await blobs.put(b"")
        assert empty == (31, 0, 305, 0)
        assert await blobs.get(empty) == b""


async def test_a_blob_that_fails_leaves_no_room_taken() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=10)
        writer = blobs.writer()

        async def fail() -> None:
            async with writer:
                await writer.write(bytes(1000))
                raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            await fail()
        assert core.info().blocks_held == 0
        with pytest.raises(BatchEnded):
            _ = writer.id
        blob = await blobs.put(b"next")
        assert await blobs.get(blob, 1, 3) == b"ex"


async def test_a_blob_that_is_canceled_anywhere_leaves_no_room_taken(tmp_path: Path) -> None:
    """Found in review: nobody knew the name of one that was complete, and not yet on the disk."""
    async with open_corestore(tmp_path, durability=Durability.group(1)) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=1_000)

        async def put() -> None:
            assert core.info().blocks_held == 0
            await blobs.put(bytes(4_000))

        assert await cancel_everywhere(put) > 0
        assert core.info().blocks_held == 4


async def test_cleared_and_foreign_blobs() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core)
        blob = await blobs.put(b"data")
        await blobs.clear(blob)
        assert core.info().blocks_held == 0
        foreign = await store.get(key=bytes(32))
        with pytest.raises(NotWritable):
            await Blobs(foreign).put(b"data")


@pytest.mark.parametrize("fields", [(0, 9, 0, 99), (5, 1, 3, 4), (0, 1, 0, 40)])
async def test_ids_that_do_not_fit_the_log(fields: tuple[int, int, int, int]) -> None:
    async with open_corestore(None) as store:
        blobs = Blobs(await store.get(name="blobs"), block_bytes=4)
        await blobs.put(b"abcdefg")
        wrong = BlobId(*fields)
        for start in (0, 1):
            with pytest.raises(OutOfRange):
                await blobs.get(wrong, start)
    with pytest.raises(OutOfRange):
        blobs.stream(wrong, 0, wrong.byte_length + 1)


@pytest.mark.parametrize(
    "encoded", [b"", bytes(3), bytes(5), b"".join(map(encode_uint, (0, 0, 0, 1)))]
)
def test_what_is_no_id(encoded: bytes) -> None:
    with pytest.raises(DecodeError):
        BlobId.decode(encoded)


@pytest.mark.parametrize(
    "change",
    [{"blockMap": True}, {"blockLength": -1}, {"byteOffset": "1"}, {"byteOffset": 2**64}],
)
def test_what_is_no_id_in_json(change: dict[str, object]) -> None:
    fields: dict[str, object] = dict(BlobId(0, 1, 0, 5).to_json())
    assert BlobId.from_json(fields) == (0, 1, 0, 5)
    for wrong in (None, {}, {**fields, **change}):
        with pytest.raises(ValueError, match="blob"):
            BlobId.from_json(wrong)


async def test_a_part_over_the_wire_costs_its_blocks() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=1000)
        await blobs.put(bytes(7000))
        blob = await blobs.put(bytes(50_000))
        remote = await other.get(key=core.key)
        async with replicating(core, remote):
            await remote.wait_length(1)
            reader = Blobs(remote, block_bytes=1000)
            assert await reader.get(blob, 20_500, 22_500) == bytes(2000)
            assert remote.info().blocks_held <= 4
            pieces = [piece async for piece in reader.stream(blob)]
        assert b"".join(pieces) == bytes(50_000)


async def large_values(store: Corestore, **options: bool) -> tuple[LargeValueBee[bytes], Core]:
    core = await store.get(name="blobs")
    bee = Bee(await store.get(name="bee"))
    return LargeValueBee(bee, Blobs(core), threshold_bytes=10, **options), core


async def test_values_in_the_bee_and_beside_it() -> None:
    async with open_corestore(None) as store:
        values, core = await large_values(store)
        await values.put(b"small", b"0123456789")
        await values.put(b"large", b"0123456789x")
        assert core.length == 1
        for key, value in [(b"small", b"0123456789"), (b"large", b"0123456789x"), (b"no", None)]:
            assert await values.get(key) == value
            assert await values.get_part(key, 2, 4) == (value and b"23")
            assert await values.get_part(key, 9, 99) == (value and value[9:])
            assert await values.get_part(key, 50, 99) == (None if value is None else b"")
            assert await values.size(key) == (value and len(value))


async def test_the_room_of_old_values() -> None:
    async with open_corestore(None) as store:
        values, core = await large_values(store)
        await values.put(b"k", bytes(100))
        before = values.bee.snapshot()
        await values.put(b"k", bytes(200))
        assert core.info().blocks_held == 1
        assert await values.delete(b"k")
        assert not await values.delete(b"k")
        assert core.info().blocks_held == 0
        entry = await before.get(b"k")
        assert entry is not None
        with trio.move_on_after(0), pytest.raises(BlockNotAvailable):
            await core.get(0, wait=False)


async def test_old_values_that_are_kept() -> None:
    async with open_corestore(None) as store:
        values, core = await large_values(store, keeps_old_values=True)
        await values.put(b"k", bytes(100))
        await values.put(b"k", b"short")
        await values.delete(b"k")
        assert core.info().blocks_held == 1


async def test_a_large_value_that_nobody_can_name_leaves_no_room_taken() -> None:
    """Found in review: its blob stayed for ever."""
    async with open_corestore(None) as store, open_corestore(None) as other:
        values, core = await large_values(store)
        copy = await other.get(key=(await store.get(name="bee")).key)
        with pytest.raises(NotWritable):
            await LargeValueBee(Bee(copy), values.blobs, threshold_bytes=10).put(b"k", bytes(20))
        assert core.info().blocks_held == 0
        async with trio.open_nursery() as nursery, values.bee.batch() as batch:
            nursery.start_soon(values.put, b"k", bytes(20))
            await trio.testing.wait_all_tasks_blocked()
            assert core.info().blocks_held == 1
            nursery.cancel_scope.cancel()
            await batch.put(b"other", b"")
        assert core.info().blocks_held == 0


async def test_a_large_value_whose_put_is_canceled_anywhere_is_there_or_not(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.group(1)) as store:
        values, core = await large_values(store)
        keys = [b"%d" % number for number in range(100)]
        put: list[bytes] = []

        async def check() -> None:
            found = [await values.get(key) for key in put]
            assert core.info().blocks_held == sum(value == bytes(20) for value in found)
            assert all(value in (None, bytes(20)) for value in found)

        async def put_next() -> None:
            put.append(keys[len(put)])
            await values.put(put[-1], bytes(20))

        async def check_and_put() -> None:
            with trio.CancelScope(shield=True):
                await check()
            await put_next()

        assert await cancel_everywhere(check_and_put) > 1
        await check()


_KILLED = """
import os, signal, sys, trio, trio.testing
from bee import Bee, Blobs, LargeValueBee
from hypercore import open_corestore

async def main():
    async with open_corestore(sys.argv[1]) as store:
        bee = Bee(await store.get(name="bee"))
        core = await store.get(name="blobs")
        values = LargeValueBee(bee, Blobs(core), threshold_bytes=10)
        await values.put(b"k", bytes(100))
        async with trio.open_nursery() as nursery, bee.batch():
            nursery.start_soon(values.put, b"l", bytes(200))
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert core.length == 2
            os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


async def test_a_kill_between_a_blob_and_its_name_leaves_what_a_sweep_gives_up(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "store")]
    assert (await trio.run_process(command, check=False)).returncode == -signal.SIGKILL
    async with open_corestore(tmp_path / "store") as store:
        values, core = await large_values(store)
        assert await values.get(b"l") is None
        assert core.info().blocks_held == 2
        assert await values.sweep() == 1
        assert core.info().blocks_held == 1
        assert await values.get(b"k") == bytes(100)
        assert await values.sweep() == 0


async def test_a_sweep_leaves_what_is_being_put() -> None:
    async with open_corestore(None) as store:
        values, core = await large_values(store)
        await values.put(b"old", bytes(99))
        await values.blobs.put(bytes(100))
        async with trio.open_nursery() as nursery:
            async with values.bee.batch():
                nursery.start_soon(values.put, b"k", bytes(200))
                await trio.testing.wait_all_tasks_blocked()
                assert core.length == 3
                assert await values.sweep() == 1
            nursery.start_soon(values.put, b"old", bytes(300))
            assert await values.sweep() == 0
        assert await values.get(b"k") == bytes(200)
        assert await values.get(b"old") == bytes(300)
        assert core.info().blocks_held == 2
        assert await values.sweep() == 0


async def test_a_sweep_where_old_values_are_kept() -> None:
    async with open_corestore(None) as store:
        values, core = await large_values(store, keeps_old_values=True)
        await values.put(b"k", bytes(100))
        await values.put(b"k", b"short")
        await values.delete(b"k")
        await values.blobs.put(bytes(100))
        assert await values.sweep() == 1
        assert core.info().blocks_held == 1
        others, _ = await large_values(store)
        assert await others.sweep() == 1
        await values.bee.put(b"k", b"what others put")
        with pytest.raises(CorruptTree):
            await values.sweep()


async def test_only_the_writer_sweeps() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        values, core = await large_values(store)
        copy = Blobs(await other.get(key=core.key))
        with pytest.raises(NotWritable):
            await LargeValueBee(values.bee, copy).sweep()


@pytest.mark.parametrize("stored", [b"", b"\2abc", b"\1", b"\1\0\0\0"])
async def test_values_that_others_put(stored: bytes) -> None:
    async with open_corestore(None) as store:
        values, _ = await large_values(store)
        await values.bee.put(b"k", stored)
        with pytest.raises(CorruptTree):
            await values.get(b"k")


async def test_a_value_that_is_replaced_while_it_is_read() -> None:
    """The blob that was begun is gone then: not waited for, what is there now is read."""
    async with open_corestore(None) as store:
        values, _ = await large_values(store)
        contents = [bytes((number,)) * 3_000_000 for number in range(8)]
        await values.put(b"key", contents[0])

        async def replace() -> None:
            for content in contents[1:]:
                await values.put(b"key", content)

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(replace)
                while await values.get(b"key") != contents[-1]:
                    assert await values.get_part(b"key", 1_000_000, 2_500_000)
            await values.blobs.clear(BlobId(0, 1, 0, 1))
            with pytest.raises(BlockNotAvailable):
                await values.blobs.get(BlobId(0, 1, 0, 1))


async def test_a_blob_within_a_blob_ends_the_outer_one() -> None:
    """One task may take the writer's lock twice: the outer blob would have held the inner one."""
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=10)
        outer, inner = blobs.writer(), []

        async def write() -> None:
            async with outer:
                await outer.write(bytes(400))
                inner.append(await blobs.put(b"inner"))
                await outer.write(bytes(400))

        with pytest.raises(LogChanged):
            await write()
        with pytest.raises(BatchEnded):
            _ = outer.id
        assert await blobs.get(inner[0]) == b"inner"
        assert core.count(0, core.length) == 1


@pytest.mark.parametrize("size", [0, 5, 400])
async def test_a_block_that_comes_between_ends_a_blob(size: int) -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=10)
        between = []

        async def write() -> None:
            async with blobs.writer() as writer:
                await writer.write(bytes(size))
                between.append(await core.append(b"between"))

        with pytest.raises(LogChanged):
            await write()
        assert await core.get(between[0]) == b"between"
        assert core.count(0, core.length) == 1
        assert await blobs.get(await blobs.put(b"next")) == b"next"


async def test_a_cut_ends_a_blob_though_the_log_is_as_long_again() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="blobs")
        blobs = Blobs(core, block_bytes=10)

        async def write() -> None:
            async with blobs.writer() as writer:
                await writer.write(bytes(400))
                await core.truncate(core.length - 1)
                await core.append(b"between")

        with pytest.raises(LogChanged, match="cut"):
            await write()
        assert await core.get(core.length - 1) == b"between", "it is not the blob's to clear"


@pytest.mark.parametrize("block_bytes", [0, -5, 1 << 25])
async def test_blocks_of_no_bytes_hold_no_blobs(block_bytes: int) -> None:
    async with open_corestore(None) as store:
        with pytest.raises(UsageError, match=f"blocks of {block_bytes} bytes"):
            Blobs(await store.get(name="blobs"), block_bytes=block_bytes)


async def test_a_part_outside_a_blob_is_named() -> None:
    async with open_corestore(None) as store:
        blobs = Blobs(await store.get(name="blobs"))
        blob = await blobs.put(b"hello")
        for start, stop, wrong in ((-1, 2, -1), (0, 9, 9), (4, 2, 4)):
            with pytest.raises(OutOfRange, match=rf"byte {wrong} is outside \[0, 5\)"):
                await blobs.get(blob, start, stop)


async def test_a_writer_that_is_used_again_writes_another_blob() -> None:
    async with open_corestore(None) as store:
        blobs = Blobs(await store.get(name="blobs"))
        writer = blobs.writer()
        ids = []
        for data in (b"first", b"", b"second"):
            async with writer:
                await writer.write(data)
            ids.append(writer.id)
        assert [await blobs.get(blob) for blob in ids] == [b"first", b"", b"second"]
        async with writer:
            with pytest.raises(BatchEnded):
                assert writer.id


async def test_a_writer_that_another_task_leaves_has_written_its_blob() -> None:
    async with open_corestore(None) as store:
        blobs = Blobs(await store.get(name="blobs"))
        opened = AsyncExitStack()
        writer = await opened.enter_async_context(blobs.writer())
        await writer.write(b"first")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(opened.aclose)
        assert await blobs.get(writer.id) == b"first"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(blobs.put, b"second")
            await trio.testing.wait_all_tasks_blocked()
            assert blobs.length == 2
            nursery.cancel_scope.cancel()
