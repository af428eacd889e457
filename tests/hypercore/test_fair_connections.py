"""Several cores on one connection: none of them waits for another's backlog."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from hypercore.core import Core
from hypercore.corestore import Corestore, open_corestore
from hypercore.replication.channel import Multiplexer
from hypercore.replication.effort import Effort
from hypercore.replication.messages import PROTOCOL
from swarm.io.mux import BULK_BYTES
from tests.support.stream_pair import open_mux_pair

BLOCK_BYTES = 10_000


@asynccontextmanager
async def replicating_stores() -> AsyncIterator[tuple[Corestore, Corestore]]:
    """Two stores on one connection that holds nothing: who does not read is not written to."""
    async with (
        open_corestore(None) as one,
        open_corestore(None) as other,
        open_mux_pair(PROTOCOL, is_lockstep=True) as (left, right),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(one.replicate, left)
        nursery.start_soon(other.replicate, right)
        yield one, other
        nursery.cancel_scope.cancel()


async def copy_of(store: Corestore, name: str, count: int, other: Corestore) -> Core:
    """A reader in the other store of a new core of so many blocks."""
    core = await store.get(name=name)
    await core.append([b"%d" % index + bytes(BLOCK_BYTES) for index in range(count)])
    copy = await other.get(key=core.key)
    await copy.wait_length(count)
    return copy


def bytes_received(core: Core) -> int:
    return core.statistics().replication.total.bytes_received


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.lowlevel.checkpoint()


async def test_a_small_cores_get_does_not_wait_for_a_large_download() -> None:
    with trio.fail_after(60):
        async with replicating_stores() as (one, other):
            large = await copy_of(one, "large", 2_000, other)
            small = await copy_of(one, "small", 50, other)
            async with large.downloading():
                await until(lambda: large.contiguous_length > 400)
                (peer,) = large.statistics().replication.peers
                assert peer.requests_in_flight > 200
                for index in range(0, 50, 10):
                    before = bytes_received(large)
                    await small.get(index)
                    # What the writer had taken, and what was on its way: not the backlog.
                    assert bytes_received(large) - before < 4 * BULK_BYTES


async def test_downloads_of_several_cores_share_the_connection() -> None:
    with trio.fail_after(60):
        async with replicating_stores() as (one, other):
            copies = [await copy_of(one, f"core {number}", 400, other) for number in range(4)]
            first = copies[0]
            async with first.downloading():
                await until(lambda: first.contiguous_length > 30)
                start = bytes_received(first)
                async with (
                    copies[1].downloading(),
                    copies[2].downloading(),
                    copies[3].downloading(),
                ):
                    await until(lambda: all(copy.contiguous_length > 150 for copy in copies[1:]))
                    shares = [bytes_received(copy) for copy in copies]
                    shares[0] -= start
            assert max(shares[1:]) < 1.5 * min(shares[1:])
            assert shares[0] < 3 * min(shares[1:])


async def test_what_the_cores_of_a_connection_cost_is_one_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that had the keys of many cores had as many shares of a node's time."""
    sums: dict[str, list[Effort | None]] = {}
    serve = Core.serve

    async def record(core: Core, mux: Multiplexer, effort: Effort | None = None) -> None:
        sums.setdefault(str(core.is_writable), []).append(effort)
        await serve(core, mux, effort)

    monkeypatch.setattr(Core, "serve", record)
    with trio.fail_after(60):
        async with replicating_stores() as (one, other):
            for number in range(3):
                copy = await copy_of(one, f"core {number}", 1, other)
                await copy.get(0)
    for efforts in sums.values():
        assert len(efforts) >= 3
        assert efforts[0] is not None
        assert {*efforts} == {efforts[0]}
    assert len(sums) == 2
