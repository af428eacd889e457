"""What `beemesh core recover` says when a core still takes no more."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from hypercore import Corestore
from node.logs import perform_on_store
from node.verbs import CoreRecover, ExitCode, VerbError
from tests.support.claiming_peers import FAR_AHEAD, stranger
from tests.support.recovering_stores import recovering
from tests.support.replicating_cores import replicating


async def why_not(store: Corestore, seconds: float) -> str:
    with pytest.raises(VerbError) as raised:
        async for _ in perform_on_store(store, CoreRecover("log", False, seconds), can_fetch=True):
            pass
    assert raised.value.code == ExitCode.TIMEOUT
    return raised.value.text.removeprefix("log still takes no more: ")


async def test_who_keeps_a_core_from_taking_more_is_named(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with recovering() as (store, core, copy):
        assert await why_not(store, 10) == "no peer is connected"
        async with replicating(core, copy):
            await core.wait_length(5)
            assert await why_not(store, 2) == "no peer has been connected for long enough"
            async with stranger(core, FAR_AHEAD):
                (claim,) = core.unproven_claims()
                assert await why_not(store, 10) == str(claim)


async def test_of_many_only_some_are_named(autojump_clock: trio.testing.MockClock) -> None:
    async with recovering() as (store, core, _), trio.open_nursery() as nursery:

        async def stay() -> None:
            async with stranger(core, None):
                await trio.sleep_forever()

        for _number in range(11):
            nursery.start_soon(stay)
        await trio.sleep(1)
        text = await why_not(store, 5)
        assert text.count("has not said how far it is") == 8
        assert text.endswith(", and 3 others")
        nursery.cancel_scope.cancel()
