"""Follows those tests of hypercore 11.37.1 test/replicate.js where both sides are ours.

They are about what one side decides alone; the others, and those that have no counterpart, are
listed in `tests/interop/originals/test_replicate.py`. "uses hotswaps to avoid long download tail"
and "hotswap works for a download with many slow peers" are in
`tests/hypercore/replication/test_fairness.py`, in virtual time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.downloading import LIVE, Order
from hypercore.errors import OutOfRange, UsageError
from hypercore.replication.messages import PROTOCOL
from hypercore.replication.settings import PushMode, ReplicationSettings
from tests.support.cancel_everywhere import cancel_everywhere
from tests.support.memory_mux import MemoryMux, memory_mux_pair
from tests.support.stream_pair import open_mux_pair

LIMIT_SECONDS = 60


@asynccontextmanager
async def replicating(one: Core, other: Core) -> AsyncIterator[tuple[MemoryMux, MemoryMux]]:
    """Joined for as long as the block lasts."""
    muxes = memory_mux_pair()
    for mux in muxes:
        mux.expected.add((PROTOCOL, one.discovery_key))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.serve, muxes[0])
        nursery.start_soon(other.serve, muxes[1])
        await trio.testing.wait_all_tasks_blocked()
        yield muxes
        nursery.cancel_scope.cancel()
    await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def stores(count: int) -> AsyncIterator[list[Corestore]]:
    async with AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(LIMIT_SECONDS))
        yield [await stack.enter_async_context(open_corestore(None)) for _ in range(count)]


def peer_count(core: Core) -> int:
    return len(core.replication.peers)


async def writer_of(store: Corestore, count: int) -> Core:
    core = await store.get(name="log")
    await core.append([b"#%d" % index for index in range(count)])
    return core


async def reader_of(store: Corestore, core: Core) -> Core:
    return await store.get(key=core.key)


async def test_readers_are_downloading_from_the_start() -> None:
    """ "basic downloading is set immediately after ready"."""
    async with stores(3) as (first, second, third):
        a = await writer_of(first, 1)
        b, c = await reader_of(second, a), await reader_of(third, a)
        assert b.replication.is_active
        c.replication.configure(ReplicationSettings(linger_seconds=0.0))
        c.replication.set_active(False)
        assert not c.replication.is_active
        async with replicating(a, b):
            assert peer_count(a) == 1
        async with replicating(a, c):
            assert peer_count(a) == 0, "neither wants anything"


async def test_a_closed_core_raises_for_all_that_wait() -> None:
    """ "request cancellation regression"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        closed: list[int] = []

        async def get(index: int) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await b.get(index)
            closed.append(index)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, 0)
            nursery.start_soon(get, 2)
            with trio.CancelScope() as scope:
                scope.cancel()
                await b.get(1)
            await trio.testing.wait_all_tasks_blocked()
            await b.close()
        assert sorted(closed) == [0, 2]


async def test_update_waits_for_the_first_peer_while_peers_are_looked_for() -> None:
    """ "findingPeers makes update wait for first peer"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 1)
        b = await reader_of(second, a)
        assert not await b.update()
        updated: list[bool] = []

        async def update() -> None:
            updated.append(await b.update())

        async with trio.open_nursery() as nursery:
            with b.finding_peers():
                nursery.start_soon(update)
                await trio.testing.wait_all_tasks_blocked()
                assert not updated
                async with replicating(a, b):
                    while not updated:
                        await trio.lowlevel.checkpoint()
                    assert updated == [True]


async def test_update_returns_when_no_peer_was_found() -> None:
    """ "findingPeers + done makes update return false if no peers"."""
    async with stores(2) as (first, second):
        b = await reader_of(second, await writer_of(first, 1))
        updated: list[bool] = []

        async def update() -> None:
            updated.append(await b.update())

        async with trio.open_nursery() as nursery:
            with b.finding_peers(), b.finding_peers():
                nursery.start_soon(update)
                await trio.testing.wait_all_tasks_blocked()
                assert not updated
            await trio.testing.wait_all_tasks_blocked()
            assert updated == [False]


async def test_update_returns_when_the_only_peer_leaves() -> None:
    """ "update wait resolves when unsynced peer closes without inflight"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 1)
        b = await reader_of(second, a)
        updated: list[bool] = []

        async def update() -> None:
            updated.append(await b.update())

        mux, other = memory_mux_pair()
        for one in (mux, other):
            one.expected.add((PROTOCOL, a.discovery_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.serve, mux)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(update)
            await trio.testing.wait_all_tasks_blocked()
            assert not updated
            other.hang_up()
            await trio.testing.wait_all_tasks_blocked()
            assert updated == [False]
            nursery.cancel_scope.cancel()


async def test_a_writers_second_store_catches_up() -> None:
    """ "force update writable cores" and "local writable caught up by remote"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 5)
        assert a.key_pair is not None
        b = await second.get(key_pair=a.key_pair)
        assert b.is_writable
        assert b.key == a.key
        assert not await b.update()
        await b.append(b"#0")
        updated: list[bool] = []

        async def update() -> None:
            updated.append(await b.update())

        async with trio.open_nursery() as nursery:
            with b.finding_peers():
                nursery.start_soon(update)
                await trio.testing.wait_all_tasks_blocked()
                async with replicating(a, b):
                    assert updated == [True]
        assert b.head.tree_hash == a.head.tree_hash
        await b.append(b"#5")
        assert b.length == 6


@pytest.mark.parametrize("length", [2**15, 2**15 + 1])
async def test_replicate_range_around_the_first_page_of_the_bitfield(length: int) -> None:
    """ "replicate range that fills / overflows initial size of bitfield page"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, length)
        b = await reader_of(second, a)
        async with replicating(a, b):
            await b.wait_length(length)
            async with b.downloading() as download:
                await download.done()
            assert b.contiguous_length == length
            assert b.statistics().replication.total.blocks_received == length


async def test_requests_are_asked_again_of_another_peer() -> None:
    """ "retry failed block requests to another peer"."""
    async with stores(3) as (first, second, third):
        a = await writer_of(first, 3)
        b, c = await reader_of(second, a), await reader_of(third, a)
        async with replicating(a, b):
            await b.wait_length(3)
            await b.download()
        found: list[bytes] = []

        async def get() -> None:
            found.append(await c.get(0))

        async with trio.open_nursery() as nursery:
            async with replicating(a, c):
                await c.wait_length(3)
            nursery.start_soon(get)
            await trio.testing.wait_all_tasks_blocked()
            assert not found
            async with replicating(b, c):
                await trio.testing.wait_all_tasks_blocked()
                assert found == [b"#0"]


async def test_several_connections_to_one_remote_key() -> None:
    """ "multiple peers with the same remotePublicKey"."""
    async with stores(3) as (first, second, third):
        a = await writer_of(first, 100)
        b, c = await reader_of(second, a), await reader_of(third, a)
        async with replicating(a, b), replicating(a, c):
            keys = {peer.remote_public_key for peer in a.replication.peers}
            assert peer_count(a) == 2
            assert len(keys) == 1
            for reader in (b, c):
                await reader.wait_length(100)
                async with reader.downloading() as download:
                    await download.done()
        for reader in (b, c):
            assert [reader.get_local(index) for index in range(100)] == [
                b"#%d" % index for index in range(100)
            ]


async def test_the_requests_in_flight_can_be_chosen() -> None:
    """ "can define default max-inflight blocks for replicator peers"."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 1)
        b = await reader_of(second, a)
        b.replication.configure(ReplicationSettings(first_window=16, max_window=123))
        async with replicating(a, b):
            await b.wait_length(1)
            (peer,) = b.statistics().replication.peers
            assert peer.max_requests_in_flight == 123
            (peer,) = a.statistics().replication.peers
            assert peer.max_requests_in_flight == 512
    with pytest.raises(UsageError):
        ReplicationSettings(first_window=1)
    with pytest.raises(UsageError):
        ReplicationSettings(first_window=100, max_window=50)
    with pytest.raises(UsageError):
        ReplicationSettings(linger_seconds=-1.0)


async def test_a_hundred_downloads_that_wait_do_not_hold_up_others() -> None:
    """ "crossing max range boundary ..." and "idle range completion ...": there is no boundary."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 150)
        await a.clear(0, 100)
        b = await reader_of(second, a)
        done: list[int] = []

        async def download(index: int) -> None:
            async with b.downloading(index, index + 1) as one:
                await one.done()
            done.append(index)

        async with replicating(a, b), trio.open_nursery() as nursery:
            await b.wait_length(150)
            for index in range(150):
                nursery.start_soon(download, index)
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(done) == list(range(100, 150))
            nursery.cancel_scope.cancel()


async def test_downloads_of_what_is_here_are_done() -> None:
    """ "range download, repeated": at once, and nothing is asked for."""
    async with stores(1) as (store,):
        a = await writer_of(store, 100)
        for order in Order:
            async with a.downloading(0, 100, order=order) as download:
                assert download.is_done
                assert download.missing(100) == 0
                await download.done()
        async with a.downloading(blocks=[3, 99, 3]) as download:
            assert download.is_done
        async with a.downloading(5, 5) as download:
            assert download.is_done


async def test_a_live_download_follows_the_writer() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        async with replicating(a, b), b.downloading(1, LIVE) as download:
            for length in range(4, 30):
                await a.append(b"#%d" % (length - 1))
                await trio.testing.wait_all_tasks_blocked()
                assert b.has_range(1, length)
            assert not b.has(0)
            assert download.missing(b.length) == 0
            assert not download.is_done


async def test_a_download_can_be_paused_and_given_up() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 50)
        b = await reader_of(second, a)
        async with b.downloading(0, 50, order=Order.RANDOM) as download:
            download.pause()
            assert download.is_paused
            async with replicating(a, b):
                await b.wait_length(50)
                await trio.testing.wait_all_tasks_blocked()
                assert download.missing(50) == 50
                download.resume()
                await download.done()
                assert b.contiguous_length == 50
                # Blocks that are here already are not asked for again.
                download.pause()
                download.resume()
        await b.clear(0, 50)
        async with b.downloading(0, 50) as download:
            pass
        async with replicating(a, b):
            with pytest.raises(trio.ClosedResourceError):
                await download.done()
            download.resume()
            await trio.testing.wait_all_tasks_blocked()
            assert b.info().blocks_held == 0


async def test_an_ended_download_takes_its_requests_back() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 10)
        b = await reader_of(second, a)
        async with b.downloading(0, LIVE):
            assert b.replication.statistics().total.requests_sent == 0
        async with b.downloading(blocks=[1, 4]):
            pass
        async with replicating(a, b):
            await b.wait_length(10)
            await trio.testing.wait_all_tasks_blocked()
            assert b.info().blocks_held == 0
        with pytest.raises(OutOfRange):
            await a.get(10)


async def test_an_inactive_core_ends_idle_channels_and_opens_them_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """JavaScript's `setActive` and its linger."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        async with replicating(a, b):
            await b.wait_length(3)
            b.replication.set_active(False)
            await trio.sleep(29.0)
            assert peer_count(a) == 1
            await trio.sleep(2.0)
            assert peer_count(a) == 0
            assert peer_count(b) == 0


async def test_an_inactive_core_is_served_again_when_it_is_wanted() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        b.replication.configure(ReplicationSettings(linger_seconds=0.0))
        mux, other = memory_mux_pair()
        for one in (mux, other):
            one.expected.add((PROTOCOL, a.discovery_key))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.serve, other)
            nursery.start_soon(b.serve, mux)
            await b.wait_length(3)
            b.replication.set_active(False)
            await trio.testing.wait_all_tasks_blocked()
            assert peer_count(b) == 0
            nursery.start_soon(a.serve, other)
            b.replication.set_active(True)
            assert await b.get(2) == b"#2"
            assert b.replication.is_active
            # Or when the remote opens the channel.
            b.replication.set_active(False)
            await trio.testing.wait_all_tasks_blocked()
            assert peer_count(b) == 0
            nursery.start_soon(a.serve, other)
            b.prefetch([1])
            b.replication.remote_opened(mux)
            await trio.testing.wait_all_tasks_blocked()
            assert b.has(1)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def connected(one: Corestore, other: Corestore) -> AsyncIterator[None]:
    """Two stores on one connection, which opens channels on demand."""
    async with open_mux_pair(PROTOCOL) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(one.replicate, left)
        nursery.start_soon(other.replicate, right)
        yield
        nursery.cancel_scope.cancel()


async def test_stores_open_the_channel_of_an_inactive_core_when_it_is_wanted() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        b.replication.configure(ReplicationSettings(linger_seconds=0.0))
        async with connected(first, second):
            await b.wait_length(3)
            b.replication.set_active(False)
            await trio.testing.wait_all_tasks_blocked()
            assert peer_count(a) == peer_count(b) == 0
            # Here: it becomes active again.
            b.replication.set_active(True)
            assert await b.get(0) == b"#0"
            b.replication.set_active(False)
            await trio.testing.wait_all_tasks_blocked()
            assert peer_count(a) == 0
            # There: the core is opened anew by its name, and wants a block back.
            await a.clear(0, 1)
            await a.close()
            a = await first.get(name="log")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.get, 0)
            assert a.get_local(0) == b"#0"


async def test_downloads_cancelled_at_any_point_leave_nothing_asked_for() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 40)
        b = await reader_of(second, a)
        async with replicating(a, b):
            await b.wait_length(40)

            async def download() -> None:
                async with b.downloading(0, 40, order=Order.RANDOM) as one:
                    await one.done()

            await cancel_everywhere(download)
            assert b.contiguous_length == 40
            await b.clear(0, 40)
            requests = b.statistics().replication.total.requests_sent
            await trio.testing.wait_all_tasks_blocked()
            assert b.statistics().replication.total.requests_sent == requests


async def test_a_reader_may_be_told_not_to_follow_forks() -> None:
    """JavaScript's `allowFork`."""
    async with stores(2) as (first, second):
        a = await writer_of(first, 5)
        b = await reader_of(second, a)
        b.replication.configure(ReplicationSettings(follows_forks=False))
        async with replicating(a, b):
            await b.wait_length(5)
            await a.truncate(3)
            await trio.testing.wait_all_tasks_blocked()
            assert (b.length, b.fork) == (5, 0)
            b.replication.configure(ReplicationSettings())
            await trio.testing.wait_all_tasks_blocked()
            assert (b.length, b.fork) == (3, 1)


async def test_what_is_pushed_is_durable_and_not_pushed_twice() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 0)
        b = await reader_of(second, a)
        b.replication.configure(ReplicationSettings(push=PushMode.ONLY))
        async with replicating(a, b):
            assert a.push([0]) == 1  # as soon as it is there
            await a.append([b"#0", b"#1"])
            await trio.testing.wait_all_tasks_blocked()
            assert b.get_local(0) == b"#0"
            assert b.length == 2
            a.push([0])
            await trio.testing.wait_all_tasks_blocked()
            total = a.statistics().replication.total
            assert total.pushes_sent == total.blocks_sent == 1
            assert b.statistics().replication.total.pushes_received == 1
            assert b.statistics().replication.total.requests_sent == 0
        assert a.push([1]) == 0


async def test_metrics_have_the_names_of_hypercore_stats() -> None:
    async with stores(2) as (first, second):
        a = await writer_of(first, 3)
        b = await reader_of(second, a)
        async with replicating(a, b):
            await b.wait_length(3)
            await b.get(0)
            metrics = second.statistics().metrics
            assert metrics["hypercore_total_peers"] == 1
            assert metrics["hypercore_total_max_inflight_blocks"] == 512
            assert metrics["hypercore_total_inflight_blocks"] == 0
            assert metrics["hypercore_total_fully_downloaded_cores"] == 0
            await b.download()
        metrics, served = second.statistics().metrics, first.statistics().metrics
        assert metrics["hypercore_total_cores"] == 1
        assert metrics["hypercore_total_fully_downloaded_cores"] == 1
        assert metrics["hypercore_total_length"] == 3
        assert metrics["hypercore_total_peers"] == 0
        assert metrics["hypercore_total_blocks_downloaded"] == 3
        assert served["hypercore_total_blocks_uploaded"] == 3
        assert served["hypercore_total_bytes_uploaded"] == a.byte_length
        for kind in ("sync", "request", "cancel", "data", "want", "bitfield", "range", "extension"):
            name = f"hypercore_total_wire_{kind}"
            assert metrics[f"{name}_received"] == served[f"{name}_transmitted"], kind
        assert metrics["hypercore_total_wire_data_received"] == 4
        for name in ("hypercore_total_hotswaps", "hypercore_invalid_data"):
            assert metrics[name] == 0
        assert metrics["hypercore_invalid_requests"] == 0
        assert metrics["hypercore_round_trip_time_avg_seconds"] >= 0
