"""Appends whose blocks come in pieces: one commit, with others running in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from hypercore import Core, Durability, NotWritable, UsageError, open_corestore
from hypercore.errors import BlockTooLarge, StorageFailed, StoreSuspended
from hypercore.given_blocks import MAX_BLOCK_BYTES
from hypercore.long_append import LongAppend
from hypercore.storage.rocks import RocksStorage
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.storage_rows import rows_of_directory, verify_core
from tests.support.stored_logs import FaultyStorage, open_log

PIECES = [[b"piece %d block %d" % (number, index) for index in range(11)] for number in range(7)]
BLOCKS = [block for piece in PIECES for block in piece]


async def append_once(core: Core) -> int:
    return await core.append(BLOCKS, local={b"row": b"1"})


async def append_pieces(core: Core) -> int:
    return await core.append_pieces(PIECES, local={b"row": b"1"})


async def fill(path: Path, append: Callable[[Core], Awaitable[int]], key: bytes | None) -> None:
    async with open_corestore(path, durability=Durability.OS, primary_key=bytes(32)) as store:
        core = await store.get(name="log", encryption_key=key)
        await core.append([b"before", b"them"])
        assert await append(core) == 2
        assert await core.get_many(range(2, core.length)) == BLOCKS
        assert core.statistics().blocks_appended == 2 + len(BLOCKS)


async def test_the_store_is_as_after_one_append(tmp_path: Path) -> None:
    await fill(tmp_path / "once", append_once, None)
    await fill(tmp_path / "pieces", append_pieces, None)
    assert rows_of_directory(tmp_path / "pieces") == rows_of_directory(tmp_path / "once")


async def test_an_encrypted_core(tmp_path: Path) -> None:
    await fill(tmp_path, append_pieces, bytes(32))
    stored = b"".join(rows_of_directory(tmp_path).values())
    assert BLOCKS[0] not in stored


async def test_others_run_and_see_nothing_of_it() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        lengths: list[int] = []

        def pieces() -> Iterator[list[bytes]]:
            for piece in PIECES:
                lengths.append(core.length)
                yield piece

        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.wait_length, len(BLOCKS))
            nursery.start_soon(core.append_pieces, pieces())
            while not lengths:
                await trio.lowlevel.checkpoint()
            assert len(lengths) < len(PIECES)
            assert await core.append(b"after") == len(BLOCKS)
        assert lengths == [0] * len(PIECES)
        assert await core.get_many(range(core.length)) == [*BLOCKS, b"after"]


async def test_cancelled_at_each_step_nothing_was_appended() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")

        async def append() -> None:
            assert core.length == 0
            await append_pieces(core)

        assert await cancel_everywhere(append) >= len(PIECES) - 1
        assert core.length == len(BLOCKS)
        assert core.get_local_value(b"row") == b"1"


async def test_a_block_that_is_too_large_ends_it() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")
        with pytest.raises(BlockTooLarge):
            await core.append_pieces([[b"small"], [bytes(MAX_BLOCK_BYTES + 1)]])
        assert core.length == 0
        assert await append_pieces(core) == 0


async def test_who_appends_without_the_lock_ends_it() -> None:
    async with open_corestore(None) as store:
        core = await store.get(name="log")

        def pieces() -> Iterator[list[bytes]]:
            yield [b"ours"]
            core.append_nowait([b"theirs"])
            yield [b"ours, too"]

        with pytest.raises(UsageError, match="had 0 blocks, now 1"):
            await core.append_pieces(pieces())
        assert await append_pieces(core) == 1
        assert await core.get(0) == b"theirs"


async def test_only_the_writer_appends() -> None:
    async with open_corestore(None) as store, open_corestore(None) as other:
        copy = await other.get(key=(await store.get(name="log")).key)
        with pytest.raises(NotWritable):
            await append_pieces(copy)


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_commit_that_fails(is_stored: bool) -> None:
    storage = FaultyStorage()
    stored = open_log(storage)
    stored.append([b"before"])
    append = LongAppend(stored, None)
    for piece in PIECES:
        append.add(piece)
    storage.fails_before, storage.fails_after = not is_stored, is_stored
    with pytest.raises(OSError, match=r"no space left|input/output"):
        append.commit(None)
    assert stored.head.length == 1
    with pytest.raises(StorageFailed):
        stored.append([b"more"])
    length = 1 + len(BLOCKS) if is_stored else 1
    assert verify_core(storage, stored.discovery_key) == length


async def test_a_suspended_store_gives_its_files_back_and_nothing_was_appended(
    tmp_path: Path,
) -> None:
    async with open_corestore(tmp_path, durability=Durability.OS) as store:
        core = await store.get(name="log")
        is_begun = trio.Event()

        def pieces() -> Iterator[list[bytes]]:
            for number in range(1_000):
                is_begun.set()
                yield [b"block %d" % number]

        async def append() -> None:
            with pytest.raises(StoreSuspended):
                await core.append_pieces(pieces())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            await is_begun.wait()
            await store.suspend()
            async with open_corestore(tmp_path) as other:
                assert (await other.get(name="log")).length == 0
        await store.resume()
        assert await append_pieces(core) == 0


def test_a_batch_is_lost_with_the_files(tmp_path: Path) -> None:
    storage = RocksStorage(tmp_path, Durability.OS)
    append = LongAppend(open_log(storage), None)
    append.add(PIECES[0])
    storage.close()
    with pytest.raises(trio.ClosedResourceError):
        append.add(PIECES[1])
    with pytest.raises(trio.ClosedResourceError):
        append.commit(None)
    storage = RocksStorage(tmp_path, Durability.OS)  # it was unlocked
    assert open_log(storage).head.length == 0
    storage.close()
