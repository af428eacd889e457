"""An update returns what honest peers allow, whatever the others claim or keep to themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from hypercore import BlockNotAvailable, open_corestore
from hypercore.crypto import KeyPair
from hypercore.replication.heads import PATIENCE_SECONDS
from hypercore.replication.hotswap import MAX_SILENT_SECONDS
from hypercore.replication.messages import (
    MessageType,
    NoData,
    Range,
    Request,
    Sync,
)
from hypercore.replication.session import CoreReplication
from tests.support.claiming_peers import FAR_AHEAD, NEVER_HEARS, pair_for, stranger
from tests.support.memory_log import MemoryLog
from tests.support.memory_mux import MemoryChannel

SILENT = None
SYNC = int(MessageType.SYNC), Sync(0, 3, 3, True, True, True, True, False).encode()
HAS_ALL = int(MessageType.RANGE), Range(0, 3).encode()


class Core(MemoryLog):
    def __init__(self, key_pair: KeyPair | None = None, key: bytes | None = None) -> None:
        super().__init__(key_pair, key)
        self.replication = CoreReplication(self)


def writer(length: int = 3) -> Core:
    core = Core(KeyPair.from_seed(bytes(32)))
    core.append([b"block %d" % index for index in range(length)])
    return core


@asynccontextmanager
async def honest(core: Core, source: Core) -> AsyncIterator[None]:
    muxes = pair_for(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, muxes[0])
        nursery.start_soon(source.replication.serve, muxes[1])
        yield
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("says", [SILENT, FAR_AHEAD, NEVER_HEARS])
async def test_a_peer_that_says_or_proves_nothing_is_not_waited_for_without_end(
    autojump_clock: trio.testing.MockClock, says: Sync | None
) -> None:
    core = Core(key=writer().key)
    async with stranger(core, says):
        with trio.fail_after(MAX_SILENT_SECONDS):
            assert not await core.replication.wait_update()
        started = trio.current_time()
        assert not await core.replication.wait_update()
        assert trio.current_time() == started, "it has said nothing new since"


@pytest.mark.parametrize("says", [SILENT, FAR_AHEAD, NEVER_HEARS])
async def test_many_who_say_or_prove_nothing_take_hardly_longer_than_one(
    autojump_clock: trio.testing.MockClock, says: Sync | None
) -> None:
    """One after another they would keep an update waiting for as long as each of them may."""
    core = Core(key=writer().key)
    async with AsyncExitStack() as strangers:
        for _ in range(12):
            await strangers.enter_async_context(stranger(core, says))
        started = trio.current_time()
        assert not await core.replication.wait_update()
        assert trio.current_time() - started <= 2 * PATIENCE_SECONDS


async def test_an_honest_head_comes_soon_though_many_claim_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = writer()
    core = Core(key=source.key)
    async with AsyncExitStack() as peers:
        for _ in range(12):
            await peers.enter_async_context(stranger(core, FAR_AHEAD))
        await peers.enter_async_context(honest(core, source))
        started = trio.current_time()
        assert await core.replication.wait_update()
        assert trio.current_time() - started <= PATIENCE_SECONDS
        assert core.head.length == source.head.length


async def test_an_honest_fork_comes_soon_though_many_claim_later_ones(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = writer()
    core = Core(key=source.key)
    async with honest(core, source):
        await trio.testing.wait_all_tasks_blocked()
    assert core.head == source.head
    source.truncate(1)
    claimed = Sync(7, 1000, 0, False, True, True, True, False)
    async with AsyncExitStack() as peers:
        for _ in range(12):
            await peers.enter_async_context(stranger(core, claimed))
        await peers.enter_async_context(honest(core, source))
        started = trio.current_time()
        assert await core.replication.wait_update()
        assert trio.current_time() - started <= PATIENCE_SECONDS
        assert core.head == source.head
        assert not await core.replication.wait_update()
        assert trio.current_time() - started <= 3 * PATIENCE_SECONDS


async def test_after_one_was_late_the_next_head_is_asked_of_one_peer_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    source = writer()
    core = Core(key=source.key)
    async with (
        stranger(core, FAR_AHEAD),
        honest(core, source),
        honest(core, source),
        honest(core, source),
    ):
        assert await core.replication.wait_update()
        await trio.sleep(PATIENCE_SECONDS)
        before = core.replication.totals().requests_sent
        source.append([b"more"])
        source.replication.log_changed()
        await trio.sleep(PATIENCE_SECONDS / 2)
        assert core.head.length == 4
        assert core.replication.totals().requests_sent == before + 1


async def test_a_channel_that_is_never_answered_is_not_waited_for_without_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    core = Core(key=writer().key)
    ours, _ = pair_for(core)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, ours)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(MAX_SILENT_SECONDS):
            assert not await core.replication.wait_update()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("says", [SILENT, FAR_AHEAD, NEVER_HEARS])
async def test_an_honest_peer_s_head_comes_though_others_claim_more(
    autojump_clock: trio.testing.MockClock, says: Sync | None
) -> None:
    source = writer()
    core = Core(key=source.key)
    async with stranger(core, says), stranger(core, says), honest(core, source):
        with trio.fail_after(MAX_SILENT_SECONDS):
            assert await core.replication.wait_update()
        assert core.head.length == source.head.length
        with trio.fail_after(MAX_SILENT_SECONDS):
            assert not await core.replication.wait_update()


@pytest.mark.parametrize("forks", [0, 1])
async def test_who_goes_on_claiming_and_refusing_keeps_nobody_from_an_honest_head(
    autojump_clock: trio.testing.MockClock,
    forks: int,
) -> None:
    source = writer()
    core = Core(key=source.key)

    async def claim(channel: MemoryChannel) -> None:
        length = 1000
        while True:
            for kind, payload in await channel.receive():
                if kind == MessageType.REQUEST:
                    await trio.sleep(0.01)
                    length += 1
                    sync = Sync(
                        forks * length, length, core.head.length, True, True, True, True, False
                    )
                    refusal = NoData(Request.decode(payload).id)
                    assert channel.other is not None
                    channel.other.arrive(
                        [
                            (MessageType.NO_DATA, refusal.encode()),
                            (MessageType.SYNC, sync.encode()),
                        ]
                    )

    async with stranger(core, FAR_AHEAD) as channel, trio.open_nursery() as nursery:
        nursery.start_soon(claim, channel)
        async with honest(core, source):
            with trio.fail_after(MAX_SILENT_SECONDS):
                assert await core.replication.wait_update()
            assert core.head.length == source.head.length
            with trio.fail_after(2 * MAX_SILENT_SECONDS):
                assert not await core.replication.wait_update()
        nursery.cancel_scope.cancel()


async def test_a_slow_peer_is_given_its_time(autojump_clock: trio.testing.MockClock) -> None:
    source = writer()
    core = Core(key=source.key)
    muxes = pair_for(core)

    async def serve_late() -> None:
        await trio.sleep(PATIENCE_SECONDS - 0.1)
        await source.replication.serve(muxes[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(core.replication.serve, muxes[0])
        nursery.start_soon(serve_late)
        await trio.testing.wait_all_tasks_blocked()
        assert await core.replication.wait_update()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("claims", [(), (SYNC,), (SYNC, HAS_ALL)])
async def test_a_block_that_its_keeper_lacks_is_told_to_be_lost_beside_who_says_nothing(
    autojump_clock: trio.testing.MockClock, claims: Sequence[tuple[int, bytes]]
) -> None:
    """Found in review: one such stranger held up all reads of what a member had erased."""
    async with open_corestore(None) as far, open_corestore(None) as store:
        source = await far.get(name="log")
        await source.append([b"a", b"b", b"c"])
        await source.clear(1, 2)
        core = await store.get(key=source.key)
        ours, theirs = pair_for(core)
        keeper = ours.link.remote_public_key
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.replication.serve, ours)
            nursery.start_soon(source.replication.serve, theirs)
            await core.wait_length(3)
            async with stranger(core, None) as channel:
                for claim in claims:
                    channel.send(*claim)
                for read in (partial(core.get_many, [1]), partial(core.download, 1, 2)):
                    with (
                        trio.fail_after(2 * MAX_SILENT_SECONDS),
                        pytest.raises(BlockNotAvailable),
                    ):
                        await read(keeper=keeper)
            nursery.cancel_scope.cancel()
