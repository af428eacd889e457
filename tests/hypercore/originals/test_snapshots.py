"""What hypercore 11.37.1's test/snapshots.js covers.

Without a counterpart: "snapshots wait for ready" and "works with an active atomized session", for
nothing here is ever half open, and "snapshot over named batch", for there are no named drafts.

Where JavaScript takes a snapshot of the database at once, ours begins when the log is cut: so a
block that a snapshot fetched before the cut stays readable, where there it is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    BlockNotAvailable,
    Core,
    Corestore,
    Durability,
    OutOfRange,
    Snapshot,
    SnapshotNotAvailable,
    open_corestore,
)
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.replicating_cores import replicating


@pytest.fixture(params=["memory", "os"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    path = None if request.param == "memory" else tmp_path
    async with open_corestore(path, durability=Durability.OS) as opened:
        yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    return await store.get(name="log")


@pytest.fixture
async def other_store() -> AsyncIterator[Corestore]:
    async with open_corestore(None) as opened:
        yield opened


async def all_of(snapshot: Snapshot, *, reverse: bool = False) -> list[bytes]:
    return [block async for block in snapshot.blocks(reverse=reverse)]


async def test_a_snapshot_does_not_change_when_the_log_does(core: Core) -> None:
    blocks = [b"block0", b"block1", b"block2"]
    await core.append(blocks)
    async with core.snapshot() as snapshot:
        await core.append(b"Block3")
        assert (snapshot.length, snapshot.intact_length) == (3, 3)
        assert await snapshot.get(2) == b"block2"
        await core.truncate(3)
        assert (snapshot.length, snapshot.intact_length) == (3, 3)
        assert await snapshot.get(2) == b"block2"
        await core.truncate(2)
        assert (snapshot.length, snapshot.intact_length) == (3, 2)
        assert await snapshot.get(2) == b"block2"
        await core.append(b"new Block2")
        assert (snapshot.length, snapshot.intact_length) == (3, 2)
        assert snapshot.fork == 0
        assert snapshot.byte_length == 18
        assert await snapshot.get(2) == b"block2"
        assert await snapshot.get_many([2, 0]) == [b"block2", b"block0"]
        assert await all_of(snapshot) == blocks
        assert await all_of(snapshot, reverse=True) == blocks[::-1]
        assert snapshot.has_range(0, 3)
        assert snapshot.bitfield.count(0, 3) == 3
        assert [await snapshot.seek(offset) for offset in (0, 7, 17, 18)] == [
            (0, 0),
            (1, 1),
            (2, 5),
            (3, 0),
        ]
        async with snapshot.byte_stream(4, 16) as stream:
            assert b"".join([bytes(chunk) async for chunk in stream]) == b"k0block1bloc"
    assert await core.get(2) == b"new Block2"


async def test_deeper_cuts_take_nothing_more(core: Core) -> None:
    blocks = [b"%d" % index for index in range(600)]
    await core.append(blocks)
    async with core.snapshot() as first:
        await core.truncate(400)
        async with core.snapshot() as second:
            await core.append([b"new"] * 100)
            await core.truncate(10)
            await core.append([b"newer"] * 700)
            assert await all_of(first) == blocks
            assert await all_of(second) == blocks[:400]
            assert (first.intact_length, second.intact_length) == (10, 10)


async def test_a_reader_in_the_middle_of_a_cut(core: Core) -> None:
    """Rows that were read ahead and rows that are read later fit together."""
    blocks = [b"%d" % index for index in range(1000)]
    await core.append(blocks)
    async with core.snapshot() as snapshot:
        reader = snapshot.blocks()
        got = [await anext(reader) for _ in range(100)]
        await core.truncate(50)
        await core.append([b"new"] * 2000)
        got.extend([block async for block in reader])
        assert got == blocks


async def test_requests_are_of_the_history_they_were_made_in(
    core: Core, other_store: Corestore
) -> None:
    """JavaScript: implicit snapshot - gets are snapshotted at call time."""
    await core.append([b"block #0.0", b"block #1.0", b"block #2.0"])
    clone = await other_store.get(key=core.key)
    async with replicating(core, clone):
        assert await clone.get(0) == b"block #0.0"
    got: list[bytes] = []

    async def get(index: int) -> None:
        got.append(await clone.get(index))

    async def get_in_vain() -> None:
        with pytest.raises(SnapshotNotAvailable, match=r"block 2 is gone.* 2 blocks") as caught:
            await clone.get(2)
        assert (caught.value.index, caught.value.length) == (2, 2)
        got.append(b"gone")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get, 1)
        nursery.start_soon(get_in_vain)
        nursery.start_soon(get, 3)  # of no history yet
        await trio.testing.wait_all_tasks_blocked()
        await core.truncate(2)
        await core.append([b"block #2.1", b"block #3.1"])
        nursery.start_soon(clone.download, 0, 4)
        with trio.fail_after(20):
            async with replicating(core, clone):
                while len(got) < 3 or not clone.has_range(0, 4):
                    await trio.testing.wait_all_tasks_blocked()
                assert await clone.get(2) == b"block #2.1"
    assert sorted(got) == [b"block #1.0", b"block #3.1", b"gone"]


async def test_snapshots_are_static(core: Core) -> None:
    empty = core.snapshot()
    await core.append([b"block #0.0", b"block #1.0"])
    two = core.snapshot()
    await core.append(b"block #2.0")
    assert (empty.length, two.length) == (0, 2)
    assert await all_of(empty) == []
    assert await all_of(two) == [b"block #0.0", b"block #1.0"]
    await empty.close()
    await two.close()


async def test_snapshots_of_a_copy_are_consistent(core: Core, other_store: Corestore) -> None:
    await core.append([b"block #0.0", b"block #1.0", b"block #2.0"])
    clone = await other_store.get(key=core.key)
    with trio.fail_after(20):
        async with replicating(core, clone):
            await clone.wait_length(3)
            async with clone.snapshot() as snapshot:
                assert await snapshot.get(1) == b"block #1.0"
                await core.truncate(1)
                await core.append([b"block #1.1", b"block #2.1"])
                while clone.fork == 0:
                    await trio.testing.wait_all_tasks_blocked()
                assert snapshot.length == 3
                assert await snapshot.get(1) == b"block #1.0"
                assert snapshot.get_local(2) is None
                for call in (lambda: snapshot.get(2), lambda: snapshot.get_many([0, 2])):
                    with pytest.raises(SnapshotNotAvailable):
                        await call()
                with pytest.raises(SnapshotNotAvailable):
                    await snapshot.download()
                assert await snapshot.get(0) == b"block #0.0"
                assert await clone.get(1) == b"block #1.1"


async def test_bytes_of_a_copy_that_was_cut(core: Core, other_store: Corestore) -> None:
    """What is left of the history can still be searched, and fetched."""
    blocks = [b"%03d" % index for index in range(200)]
    await core.append(blocks)
    copy = await other_store.get(key=core.key)
    async with replicating(core, copy):
        await copy.wait_length(200)
        async with copy.snapshot() as snapshot:
            assert await snapshot.get_many([50, 150]) == [b"050", b"150"]
            await core.truncate(100)
            await core.append([b"other"] * 50)
            while copy.fork == 0:
                await trio.testing.wait_all_tasks_blocked()
            # As much as this sparse copy could prove to be common.
            assert snapshot.intact_length == 64
            assert await snapshot.seek(121) == (40, 1)
            assert await snapshot.seek(451) == (150, 1)
            assert snapshot.byte_length == 600
            async with snapshot.byte_stream(30, 90) as stream:
                assert b"".join([bytes(piece) async for piece in stream]) == b"".join(blocks[10:30])
            with pytest.raises(SnapshotNotAvailable):
                await snapshot.seek(511)


@pytest.mark.parametrize(
    "wait", [Snapshot.download, lambda snapshot: snapshot.seek(1)], ids=["download", "seek"]
)
async def test_a_wait_at_a_snapshot_ends_when_the_log_is_cut(
    core: Core, other_store: Corestore, wait: Callable[[Snapshot], Awaitable[object]]
) -> None:
    await core.append([b"0", b"1", b"2"])
    clone = await other_store.get(key=core.key)
    async with replicating(core, clone):
        await clone.wait_length(3)
    async with clone.snapshot() as snapshot, trio.open_nursery() as nursery:
        ended = trio.Event()

        async def expect_gone() -> None:
            with pytest.raises(SnapshotNotAvailable):
                await wait(snapshot)
            ended.set()

        nursery.start_soon(expect_gone)
        await trio.testing.wait_all_tasks_blocked()
        await core.truncate(1)
        with trio.fail_after(20):
            async with replicating(core, clone):
                while clone.fork == 0:
                    await trio.testing.wait_all_tasks_blocked()
                await ended.wait()


async def test_beyond_a_snapshot_there_is_nothing(core: Core) -> None:
    """JavaScript: error when using inconsistent snapshot."""
    await core.append([b"block #0.0", b"block #1.0", b"block #2.0"])
    async with core.snapshot() as snapshot:
        for index in (-1, 3, 1000):
            with pytest.raises(OutOfRange):
                await snapshot.get(index)
            assert not snapshot.has(index)
        with pytest.raises(OutOfRange, match="byte 31"):
            await snapshot.seek(31)


async def test_checkouts(core: Core, other_store: Corestore) -> None:
    await core.append([b"%d" % index for index in range(100)])
    heads = {}
    async with open_corestore(None) as twin_store:
        twin = await twin_store.get(name="twin")
        for index in range(100):
            heads[index] = twin.head.tree_hash
            await twin.append(b"%d" % index)
    for length in (0, 1, 63, 99):
        async with await core.checkout(length) as checkout:
            assert checkout.length == length
            assert checkout.head.tree_hash == heads[length]
            assert checkout.byte_length == len(b"".join(b"%d" % i for i in range(length)))
            assert await all_of(checkout) == [b"%d" % index for index in range(length)]
    for length in (-1, 101):
        with pytest.raises(OutOfRange):
            await core.checkout(length)
    clone = await other_store.get(key=core.key)
    with trio.fail_after(20):
        async with replicating(core, clone):
            await clone.wait_length(100)
            with pytest.raises(BlockNotAvailable):
                await clone.checkout(63, wait=False)
            async with await clone.checkout(63) as checkout:
                assert checkout.head.tree_hash == heads[63]
                assert clone.statistics().replication.total.blocks_received == 1
                assert await checkout.get(5) == b"5"


async def test_a_snapshot_outlives_the_handle_it_was_made_from(store: Corestore) -> None:
    core = await store.get(name="log")
    await core.append(b"one")
    snapshot = core.snapshot()
    await core.close()
    assert await snapshot.get(0) == b"one"
    await snapshot.close()
    assert store.open_cores() == []
    with pytest.raises(trio.ClosedResourceError):
        await snapshot.get(0)
    with pytest.raises(trio.ClosedResourceError):
        core.snapshot()


async def test_a_store_can_be_opened_again_after_a_cut_snapshot(tmp_path: Path) -> None:
    """RocksDB stays locked as long as anybody holds a snapshot of it."""
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log")
        await core.append([b"one", b"two"])
        left_open = core.snapshot()
        await core.truncate(1)
        assert await left_open.get(1) == b"two"
    async with open_corestore(tmp_path) as store:
        assert (await store.get(name="log")).length == 1
    with pytest.raises(trio.ClosedResourceError):
        left_open.get_local(1)


async def test_encrypted_snapshots(store: Corestore) -> None:
    core = await store.get(name="secret", encryption_key=b"\x05" * 32)
    await core.append([b"one", b"three"])
    async with core.snapshot() as snapshot:
        await core.truncate(1)
        await core.append(b"other")
        assert snapshot.byte_length == 8
        assert await all_of(snapshot) == [b"one", b"three"]
        assert await snapshot.seek(5) == (1, 2)


async def test_cancelling_leaves_a_snapshot_usable(core: Core) -> None:
    await core.append([b"one", b"two"])

    async def use() -> None:
        async with core.snapshot() as snapshot:
            await core.truncate(1)
            await core.append(b"two")
            assert await snapshot.get_many([0, 1]) == [b"one", b"two"]
            assert await all_of(snapshot) == [b"one", b"two"]

    await cancel_everywhere(use)
    async with await core.checkout(1) as checkout:
        assert await all_of(checkout) == [b"one"]
