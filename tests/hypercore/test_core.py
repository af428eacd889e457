"""What applications do with one core, on both storages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from hypercore import (
    BlockNotAvailable,
    Core,
    Corestore,
    Durability,
    NotWritable,
    OutOfRange,
    PrunedHistory,
    StorageError,
    UsageError,
    open_corestore,
)
from hypercore.encoding import MAX_UINT
from hypercore.flat_tree import TreeIndex, full_roots, parent, sibling
from hypercore.log import Changeset
from hypercore.replication.messages import PROTOCOL
from hypercore.replication.peer_handle import PeerHandle
from hypercore.replication.settings import ReplicationSettings
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.storage_rows import verify_core
from tests.support.stream_pair import INITIATOR, RESPONDER, open_mux_pair
from tests.support.turns import counting_turns


@pytest.fixture(params=["memory", "commit", "group(0.1)", "os"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Corestore]:
    if request.param == "memory":
        async with open_corestore(None) as opened:
            yield opened
    else:
        durability = Durability.parse(request.param)
        async with open_corestore(tmp_path, durability=durability) as opened:
            yield opened


@pytest.fixture
async def core(store: Corestore) -> Core:
    return await store.get(name="log")


async def copy_of(core: Core, store: Corestore, blocks: range) -> Core:
    """The same log as a reader has it, in a store of its own, with some of the blocks."""
    copy = await store.get(key=core.key)
    head = core.head
    nodes = [core.read_node(index) for index in range(2 * core.length)]
    changes = Changeset(head, [node for node in nodes if node], [], core.manifest)
    values = core.read_blocks(blocks)
    changes.blocks = [(i, value) for i, value in zip(blocks, values, strict=True) if value]
    copy.commit([changes])
    return copy


async def test_appending_and_reading(core: Core) -> None:
    assert await core.append(b"one") == 0
    assert await core.append([b"two", b"", b"four"]) == 1
    assert await core.append([]) == 4
    assert (core.length, core.byte_length, core.fork) == (4, 10, 0)
    assert core.contiguous_length == core.durable_length == 4
    assert await core.get(0) == b"one"
    assert await core.get(2) == b""
    assert core.get_local(3) == b"four"
    assert await core.get_many([3, 0, 3]) == [b"four", b"one", b"four"]
    assert [block async for block in core.blocks()] == [b"one", b"two", b"", b"four"]
    assert [block async for block in core.blocks(1, 3)] == [b"two", b""]
    assert [block async for block in core.blocks(4)] == []
    assert core.has(3)
    assert not core.has(4)
    assert not core.has(-1)
    assert core.has_range(0, 4)
    assert [core.count(0, 4), core.count(1, 9), core.count(-1, 2), core.count(3, 2)] == [4, 3, 2, 0]
    assert not core.has_range(0, 5)
    assert core.has_range(7, 7)


async def test_what_cannot_be_read(core: Core) -> None:
    await core.append(b"one")
    for index in (1, -1):
        with pytest.raises(OutOfRange):
            await core.get(index)
    with pytest.raises(BlockNotAvailable) as caught:
        await core.get(1, wait=False)
    assert caught.value.index == 1
    with pytest.raises(BlockNotAvailable):
        await core.get_many([0, 1], wait=False)
    with pytest.raises(OutOfRange):
        await core.get_many([0, 5])
    assert core.get_local(1) is None


async def test_info_and_statistics(core: Core) -> None:
    await core.append([b"one", b"two"])
    info = core.info()
    assert info.key == core.key
    assert info.discovery_key == core.discovery_key
    assert (info.length, info.blocks_held, info.peers) == (2, 2, 0)
    assert info.is_writable
    assert not info.is_encrypted
    assert core.statistics().blocks_appended == 2
    assert core.statistics().blocks_verified == 0


async def test_many_blocks_are_verified_when_read_again(core: Core, store: Corestore) -> None:
    blocks = [b"block %d" % index for index in range(3000)]
    for start in range(0, 3000, 500):
        await core.append(blocks[start : start + 500])
    assert [block async for block in core.blocks()] == blocks
    assert verify_core(store.storage, core.discovery_key) == 3000


async def test_large_blocks(core: Core) -> None:
    blocks = [bytes((index,)) * 300_000 for index in range(10)]
    await core.append(blocks)
    assert [block async for block in core.blocks()] == blocks


async def test_local_rows(core: Core) -> None:
    await core.append(b"block", local={b"a": b"1", b"b": b"2"})
    await core.append([], local={b"c": b"3"})
    await core.write_local({b"a": None, b"d": b""})
    await core.write_local({})
    assert core.length == 1
    assert core.get_local_value(b"a") is None
    assert list(core.local_items(b"", b"\xff")) == [(b"b", b"2"), (b"c", b"3"), (b"d", b"")]
    assert list(core.local_items(b"b", b"c")) == [(b"b", b"2")]


async def test_user_data(core: Core) -> None:
    assert core.get_user_data("note") is None
    await core.set_user_data("note", b"hello")
    await core.set_user_data("note", b"hello")
    assert core.get_user_data("note") == b"hello"


async def test_truncating(core: Core) -> None:
    await core.append([b"one", b"two", b"three"])
    await core.truncate(1)
    assert (core.length, core.fork, core.byte_length) == (1, 1, 3)
    assert not core.has(1)
    await core.append(b"other")
    assert await core.get(1) == b"other"
    with pytest.raises(OutOfRange):
        await core.truncate(3)
    for fork in (1, MAX_UINT + 1, 2**64):
        with pytest.raises(UsageError, match="fork"):
            await core.truncate(0, fork=fork)
    await core.truncate(0, fork=MAX_UINT)
    with pytest.raises(UsageError, match="fork"):
        await core.truncate(0)


async def test_clearing(core: Core) -> None:
    await core.append([b"%d" % index for index in range(10)])
    head = core.head
    await core.clear(3, 5)
    await core.clear(7, 7)
    assert core.head == head
    assert core.contiguous_length == 3
    assert [core.has(index) for index in range(6)] == [True, True, True, False, False, True]
    assert core.get_local(4) is None
    assert await core.get(5) == b"5"
    with pytest.raises(BlockNotAvailable):
        await core.get(3, wait=False)
    assert core.read_node(8) is not None
    for start, stop in ((-1, 2), (2, 1), (0, 11)):
        with pytest.raises(OutOfRange):
            await core.clear(start, stop)
    core.commit([Changeset(blocks=[(3, b"3"), (4, b"4")])])
    assert core.contiguous_length == 10


async def test_a_block_that_is_cleared_twice_at_once_counts_once(core: Core) -> None:
    await core.append([b"a", b"b", b"c"])
    assert await core.clear_many([1, 1]) == 1


async def test_clearing_many_with_local_rows(core: Core) -> None:
    await core.append([b"%d" % index for index in range(100)], local={b"todo": b"1"})
    await core.clear_many([70, 5, 6, *range(20, 60)], local={b"todo": None, b"done": b"2"})
    held = [index for index in range(100) if core.has(index)]
    assert held == [*range(5), *range(7, 20), *range(60, 70), *range(71, 100)]
    assert [index for index in range(100) if core.get_local(index) is not None] == held
    assert core.contiguous_length == 5
    assert (core.get_local_value(b"todo"), core.get_local_value(b"done")) == (None, b"2")
    await core.clear_many([], local={b"done": None})
    assert core.get_local_value(b"done") is None
    for wrong in ([-1, 3], [3, 100]):
        with pytest.raises(OutOfRange):
            await core.clear_many(wrong, local={b"wrong": b"1"})
    assert core.has(3)
    assert core.get_local_value(b"wrong") is None


async def test_pruning(core: Core) -> None:
    await core.append([b"%d" % index for index in range(100)])
    head = core.head
    assert await core.prune() == 0
    await core.clear(8, 50)
    assert await core.prune(lengths=[21]) > 0
    # Blocks 8 to 15, tops at 23: its children are gone, what leads a peer of 21 blocks is there.
    assert [core.read_node(index) is not None for index in (19, 23, 27)] == [False, True, False]
    assert core.read_node(42) is not None
    assert await core.prune() > 0
    assert core.read_node(42) is None
    assert await core.prune() == 0
    for index in (*range(8), *range(50, 100)):
        for node in siblings(index, core.length):
            assert core.read_node(node) is not None
    await core.append(b"more")
    assert core.length == head.length + 1
    with pytest.raises(PrunedHistory, match="cannot truncate to 21 blocks") as caught:
        await core.truncate(21)
    assert not isinstance(caught.value, StorageError)
    await core.truncate(56)  # of which all roots are here


def siblings(index: int, length: int) -> list[TreeIndex]:
    """What a proof of the block has, up to the root."""
    roots = full_roots(length)
    node, found = TreeIndex(2 * index), []
    while node not in roots:
        found.append(sibling(node))
        node = parent(node)
    return found


async def test_a_reader_does_not_write(core: Core) -> None:
    await core.append(b"one")
    async with open_corestore(None) as other:
        copy = await copy_of(core, other, range(1))
        assert not copy.is_writable
        assert await copy.get(0) == b"one"
        for call in (lambda: copy.append(b"x"), lambda: copy.truncate(0), copy.prune):
            with pytest.raises(NotWritable):
                await call()
        assert copy.length == 1


async def test_encrypted_blocks_are_read_with_their_key_only(store: Corestore) -> None:
    key = b"\x05" * 32
    core = await store.get(name="secret", encryption_key=key)
    await core.append([b"one", b""])
    assert await core.get(0) == b"one"
    assert [block async for block in core.blocks()] == [b"one", b""]
    assert core.byte_length == 3
    assert core.info().is_encrypted
    assert core.read_blocks([0]) != [b"one"]
    with pytest.raises(UsageError, match="another encryption key"):
        await store.get(name="secret", encryption_key=b"\x06" * 32)
    await core.close()
    core = await store.get(name="secret")
    assert await core.get(0) != b"one"


async def test_getting_waits_for_what_a_peer_brings(core: Core) -> None:
    await core.append([b"one", b"two", b"three"])
    async with open_corestore(None) as other, trio.open_nursery() as nursery:
        copy = await copy_of(core, other, range(0))
        got: list[bytes] = []

        async def read(index: int) -> None:
            got.append(await copy.get(index))

        async def read_all() -> None:
            got.extend(await copy.get_many([2, 1]))

        nursery.start_soon(read, 0)
        nursery.start_soon(read, 0)
        nursery.start_soon(read_all)
        await trio.testing.wait_all_tasks_blocked()
        copy.commit([Changeset(blocks=[(0, b"one"), (2, b"three")])])
        await trio.testing.wait_all_tasks_blocked()
        assert got == [b"one", b"one"]
        copy.commit([Changeset(blocks=[(1, b"two")])])
        await trio.testing.wait_all_tasks_blocked()
        assert got[2:] == [b"three", b"two"]
        assert copy.statistics().blocks_verified == 3


async def test_a_cancelled_get_is_forgotten(core: Core) -> None:
    await core.append([b"one", b"two"])
    async with open_corestore(None) as other:
        copy = await copy_of(core, other, range(0))
        with trio.CancelScope() as scope:
            scope.cancel()
            await copy.get(0)
        assert scope.cancelled_caught
        copy.commit([Changeset(blocks=[(0, b"one")])])
        assert await copy.get(0) == b"one"


async def test_reading_ahead_waits_for_each_block_in_order(core: Core) -> None:
    await core.append([b"%d" % index for index in range(600)])
    async with open_corestore(None) as other, trio.open_nursery() as nursery:
        copy = await copy_of(core, other, range(100, 200))
        got: list[bytes] = []

        async def read_all() -> None:
            got.extend([block async for block in copy.blocks()])

        nursery.start_soon(read_all)
        await trio.testing.wait_all_tasks_blocked()
        for start, stop in ((0, 50), (500, 600), (50, 100), (200, 500)):
            missing = range(start, stop)
            copy.commit([Changeset(blocks=[(index, b"%d" % index) for index in missing])])
            await trio.testing.wait_all_tasks_blocked()
        assert got == [b"%d" % index for index in range(600)]


async def test_waiting_for_a_length(core: Core) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.wait_length, 2)
        await core.append(b"one")
        await trio.testing.wait_all_tasks_blocked()
        await core.append(b"two")
    await core.wait_length(0)


async def test_no_peers_no_update(core: Core) -> None:
    assert not await core.update()


async def test_durable_lengths_follow(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.COMMIT) as store:
        core = await store.get(name="log")
        await core.append(b"one")
        assert core.append_nowait([b"two", b"three"]) == 1
        assert (core.length, core.durable_length) == (3, 1)
        for _ in range(3000):
            core.append_nowait(b"x")
        assert core.durable_length == 1
        await core.wait_durable(3)
        assert core.durable_length >= 3
        await core.wait_durable()
        assert core.durable_length == core.length == 3003
        with trio.CancelScope() as scope:
            scope.cancel()
            await core.wait_durable(7)
        assert not scope.cancelled_caught


async def test_local_rows_alone_are_durable_too(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.COMMIT) as store:
        core = await store.get(name="log")
        committed = store.storage.commit(store.storage.batch())
        await core.append([], local={b"row": b"1"})
        assert store.storage.durable_sequence > committed


async def test_appends_at_the_same_time_share_one_sync(tmp_path: Path) -> None:
    async with open_corestore(tmp_path, durability=Durability.COMMIT) as store:
        core = await store.get(name="log")
        places: list[int] = []

        async def append() -> None:
            places.append(await core.append(b"x"))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(append)
        assert sorted(places) == list(range(200))
        assert core.durable_length == 200


async def test_the_writers_lock(core: Core) -> None:
    order: list[str] = []

    async def append_other() -> None:
        await core.append(b"other")
        order.append("other")

    async with trio.open_nursery() as nursery, core.exclusive(), core.exclusive():
        nursery.start_soon(append_other)
        await trio.testing.wait_all_tasks_blocked()
        await core.append(b"first")
        core.append_nowait(b"second")
        order.append("holder")
    assert order == ["holder", "other"]
    assert await core.get_many(range(3)) == [b"first", b"second", b"other"]


async def test_a_busy_writer_hands_the_lock_over(core: Core) -> None:
    appended: list[str] = []

    async def append_often(name: str) -> None:
        for _ in range(10):
            async with core.exclusive():
                appended.append(name)
                await trio.lowlevel.checkpoint()
                core.append_nowait(name.encode())

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            nursery.start_soon(append_often, name)
    assert [block.decode() async for block in core.blocks()] == appended
    assert all(len(set(appended[place : place + 3])) == 3 for place in range(0, 30, 3))


async def test_a_lock_that_another_task_gives_back_is_the_next_ones(core: Core) -> None:
    held = AsyncExitStack()
    await held.enter_async_context(core.exclusive())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.append, b"first")
        await trio.testing.wait_all_tasks_blocked()
        assert core.length == 0
        nursery.start_soon(held.aclose)
        await trio.testing.wait_all_tasks_blocked()
        assert core.length == 1
        nursery.cancel_scope.cancel()
    assert await core.append(b"second") == 1


async def test_giving_up_the_wait_for_the_lock(core: Core) -> None:
    async with core.exclusive():
        waiting = trio.CancelScope()

        async def wait() -> None:
            with waiting:
                await core.append(b"never")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel()
    assert await core.append(b"first") == 0


async def test_cancelled_appends_are_whole_or_nothing(core: Core, store: Corestore) -> None:
    calls = 0

    async def append() -> None:
        nonlocal calls
        calls += 1
        await core.append([b"%d" % calls] * 3, local={b"last": b"%d" % calls})

    for _ in range(20):
        await cancel_everywhere(append)
        assert core.length % 3 == 0
        if core.length:
            assert core.get_local_value(b"last") == core.get_local(core.length - 1)
    await core.wait_durable()
    assert verify_core(store.storage, core.discovery_key) == core.length >= 60


CALLS: dict[str, Callable[[Core], object]] = {
    "get": lambda core: core.get(0),
    "get_many": lambda core: core.get_many([0, 1]),
    "wait_durable": lambda core: core.wait_durable(),
    "write_local": lambda core: core.write_local({b"a": b"1"}),
    "set_user_data": lambda core: core.set_user_data("a", b"1"),
    "truncate": lambda core: core.truncate(1),
    "clear": lambda core: core.clear(0, 0),
    "clear_many": lambda core: core.clear_many([]),
    "prune": lambda core: core.prune(),
    "blocks": lambda core: anext(core.blocks()),
    "update": lambda core: core.update(),
}


@pytest.mark.parametrize("name", list(CALLS))
async def test_cancelling_anything_leaves_a_sound_core(
    core: Core, store: Corestore, name: str
) -> None:
    await core.append([b"one", b"two"])
    await cancel_everywhere(lambda: CALLS[name](core))  # type: ignore[arg-type,return-value]  # all async
    await core.append(b"more")
    assert verify_core(store.storage, core.discovery_key) == core.length


async def test_loops_do_not_starve_others(core: Core) -> None:
    await core.append([b"x"] * 10)
    async with counting_turns() as turns:
        turns.count = 0
        for _ in range(5000):
            await core.get(3)
        assert turns.count > 2
        turns.count = 0
        for _ in range(300):
            await core.append(b"y")
        assert turns.count > 2


async def test_an_extension_without_peers_reaches_nobody(core: Core) -> None:
    async def handle(payload: bytes, peer: PeerHandle) -> list[bytes]:
        return [payload]

    core.set_extension("echo", handle)
    assert core.send_extension("echo", b"hello") == 0


async def test_closing_wakes_who_waits(store: Corestore, core: Core) -> None:
    await core.append(b"one")
    async with open_corestore(None) as other:
        copy = await copy_of(core, other, range(0))
        failures: list[str] = []

        async def expect_closed(name: str, call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call()
            failures.append(name)

        waits = {
            "get": lambda: copy.get(0),
            "length": lambda: copy.wait_length(9),
            "change": lambda: copy.wait_change(1, 0),
            "download": copy.download,
            "seek": lambda: copy.seek(1_000),
            "update": copy.update,
        }
        with trio.fail_after(10), copy.finding_peers():
            async with trio.open_nursery() as nursery:
                for name, wait in waits.items():
                    nursery.start_soon(expect_closed, name, wait)
                await trio.testing.wait_all_tasks_blocked()
                await copy.close()
        assert sorted(failures) == sorted(waits)
        assert copy.is_closed
        with pytest.raises(trio.ClosedResourceError):
            await copy.get(0)
        again = await other.get(key=core.key)
        assert again is not copy
        assert again.length == 1


async def test_the_last_user_closes(store: Corestore) -> None:
    one = await store.get(name="shared")
    other = await store.get(name="shared")
    await one.append(b"one")
    await one.close()
    assert one.is_closed
    with pytest.raises(trio.ClosedResourceError):
        await one.get(0)
    assert await other.get(0) == b"one"
    await other.append(b"still open")
    assert [core.key for core in store.open_cores()] == [other.key]
    await other.close()
    assert other.is_closed
    assert store.open_cores() == []
    with pytest.raises(trio.ClosedResourceError):
        await other.append(b"x")


async def test_what_the_keeper_and_everybody_else_gave_up_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_corestore(None) as theirs,
        open_corestore(None) as ours,
        open_mux_pair(PROTOCOL) as (their_mux, our_mux),
        trio.open_nursery() as nursery,
    ):
        source = await theirs.get(name="log")
        await source.append([b"%d" % index for index in range(100)])
        await source.clear(40, 60)
        copy = await ours.get(key=source.key)
        keeper = INITIATOR.public_key
        with trio.move_on_after(60) as scope:
            await copy.get_many([3], keeper=keeper)
        assert scope.cancelled_caught, "it may come, and have the block"
        nursery.start_soon(source.serve, their_mux)
        nursery.start_soon(copy.serve, our_mux)
        await copy.wait_length(100)
        started = trio.current_time()
        assert await copy.get_many([3, 99], keeper=keeper) == [b"3", b"99"]
        with pytest.raises(BlockNotAvailable) as caught:
            await copy.get_many([39, 59, 70], keeper=keeper)
        assert caught.value.index == 59
        with pytest.raises(BlockNotAvailable) as caught:
            await copy.download(keeper=keeper)
        assert caught.value.index == 40
        await copy.download(60, keeper=keeper)
        assert trio.current_time() == started
        # What it has not announced yet is waited for.
        source.replication.configure(ReplicationSettings(announce_delay_seconds=2.0))
        await source.append(b"100")
        assert await copy.get_many([100], keeper=keeper) == [b"100"]
        assert trio.current_time() <= started + 2.1
        # Another remote's word is not final.
        with trio.move_on_after(60) as scope:
            await copy.get_many([59], keeper=RESPONDER.public_key)
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_blocks_that_are_read_together_are_those_that_are_read_each(
    tmp_path: Path, is_encrypted: bool
) -> None:
    key = b"\x07" * 32 if is_encrypted else None
    async with open_corestore(tmp_path) as store:
        core = await store.get(name="log", encryption_key=key)
        await core.append([b"%d" % index * (index % 40) for index in range(200)])
        await core.clear(50, 60)
        for indices in (
            range(200),
            range(199, 100, -1),
            range(45, 100),
            [3, 199, 3, 0, 55, 120],
            [40],
            [],
        ):
            expected = [None if 50 <= index < 60 else core.get_local(index) for index in indices]
            assert core.get_local_many(indices) == expected
        assert core.get_local_many([199, 200, 1 << 20]) == [core.get_local(199), None, None]
        with pytest.raises(OutOfRange):
            core.get_local_many([1, -1])
        await core.truncate(150)
        assert core.get_local_many(range(120, 200)) == [
            *(core.get_local(index) for index in range(120, 150)),
            *[None] * 50,
        ]
