"""A log whose newest head may have been lost: nothing is appended until peers were asked."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import CoreFrozen, CoreRecovering, open_corestore
from tests.support.claiming_peers import FAR_AHEAD, stranger
from tests.support.forked_cores import open_writer
from tests.support.forked_logs import ONE, fork_proof
from tests.support.recovering_stores import BEFORE, LOST, mark_all_recovering, recovering
from tests.support.replicating_cores import replicating

SETTLE_SECONDS = 8.0


async def test_it_takes_nothing_until_peers_have_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with recovering() as (store, core, copy):
        assert core.is_recovering
        assert core.info().is_recovering
        with pytest.raises(CoreRecovering):
            await core.append(b"another d")
        with trio.move_on_after(60) as alone:
            await core.recover()
        assert alone.cancelled_caught, "nobody was there to be asked"
        async with replicating(core, copy):
            started = trio.current_time()
            await core.recover()
            assert trio.current_time() - started >= SETTLE_SECONDS
            assert not core.info().is_recovering
            assert core.length == 5
            await core.append(b"f")
            assert await core.get_many(range(6)) == [*BEFORE, *LOST, b"f"]
            await copy.wait_length(6)
        assert not copy.is_frozen
        await core.close()
        again = await store.get(name="log")
        assert not again.is_recovering
        assert again.length == 6


async def test_a_peer_that_leaves_too_soon_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with recovering() as (_, core, copy), trio.open_nursery() as nursery:
        nursery.start_soon(core.recover)
        async with replicating(core, copy):
            await core.wait_length(5)
            await trio.sleep(SETTLE_SECONDS - 0.5)
        await trio.sleep(60)
        assert core.is_recovering
        async with replicating(core, copy):
            await trio.sleep(SETTLE_SECONDS + 0.5)
            assert not core.is_recovering


async def test_who_claims_more_than_it_shows_is_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It keeps the recovery waiting, on purpose: so it can be looked at, and disconnected."""
    async with recovering() as (_, core, copy):
        assert core.unproven_claims() == ()
        async with replicating(core, copy), stranger(core, None), stranger(core, FAR_AHEAD):
            await core.wait_length(5)
            with trio.move_on_after(15) as waiting:
                await core.recover()
            assert waiting.cancelled_caught
            # Who comes first is up to the scheduler.
            silent, claiming = sorted(core.unproven_claims(), key=lambda claim: bool(claim.claimed))
            assert (silent.claimed, silent.shown) == (None, None)
            assert (claiming.claimed, claiming.shown) == ((0, 1000), None)
            assert str(silent) == f"{silent.public_key.hex()} has not said how far it is"
            assert str(claiming).endswith("claims 1,000 blocks, and has shown nothing")
            assert core.unproven_claims([bytes(32)]) == (), "their word does not count"
            shown = [peer.shown for peer in core.replication.peers]
            assert sorted(shown, key=str) == [(0, 5), None, None]


async def test_only_witnesses_are_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with recovering() as (_, core, copy), replicating(core, copy):
        await core.wait_length(5)
        (peer,) = core.replication.peers
        with trio.move_on_after(15) as scope:
            await core.recover([bytes(32)])
        assert scope.cancelled_caught
        assert core.is_recovering
    async with recovering() as (_, core, copy), replicating(core, copy):
        await core.wait_length(5)
        await core.recover([peer.remote_public_key], settle_seconds=1)
        assert not core.is_recovering


async def test_closing_and_freezing_end_the_waiting() -> None:
    async with recovering() as (_, core, _), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await core.recover()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await core.close()
    async with open_corestore(None) as store:
        frozen = await open_writer(store, ONE)
        await frozen.freeze(fork_proof())
        await frozen.recover()  # was not in need of it


async def test_a_core_that_is_frozen_never_recovers() -> None:
    async with open_corestore(None) as store:
        async with await open_writer(store, ONE) as core:
            await core.freeze(fork_proof())
        mark_all_recovering(store)
        core = await open_writer(store, [])
        with pytest.raises(CoreFrozen):
            await core.recover()
