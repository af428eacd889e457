"""Some seeds of the campaign of random lives: the rest takes longer than a test may."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from tests.interop.core_parties import JS, OURS, open_world, run_javascript
from tests.interop.random_life import Check, Fault, Outcome
from tests.interop.replication_campaign import Campaign

pytestmark = pytest.mark.interop

SEEDS = range(10)

STALLS = Fault(Check.BLOCKS, 1, "stalls")
STAYS = Fault(Check.HEADS, 2, "stays")


class Rehearsed(Campaign):
    """Every life goes as was laid down for the kind of its parties."""

    def __init__(self, faults: Mapping[str | None, list[Fault]]) -> None:
        super().__init__()
        self._faults = faults

    def live(self, seed: int, only: str | None = None) -> Outcome:
        return Outcome(seed, faults=list(self._faults.get(only, ())))


def test_parties_of_both_kinds_agree_after_random_lives() -> None:
    with Campaign() as campaign:
        outcomes = [campaign.judge(seed) for seed in SEEDS]
    faults = {outcome.seed: outcome.faults for outcome in outcomes if outcome.verdict == "ours"}
    assert not faults


@pytest.mark.parametrize(
    ("faults", "verdict"),
    [
        ({}, "good"),
        ({None: [STALLS], JS: [STAYS, STALLS]}, "the originals'"),
        ({None: [STALLS], JS: [STAYS]}, "ours"),
        ({None: [STALLS, STAYS], JS: [STAYS]}, "ours"),
        ({None: [Fault(Check.BLOCKS, 1, "forgot", is_originals=True)]}, "the originals'"),
        ({None: [Fault(Check.BLOCKS, 1, "forgot", is_originals=True), STAYS]}, "ours"),
    ],
)
def test_the_originals_are_blamed_for_what_they_fail_alone_and_for_nothing_else(
    faults: Mapping[str | None, list[Fault]], verdict: str
) -> None:
    assert Rehearsed(faults).judge(7).verdict == verdict


def test_what_fails_once_is_chance_unless_ours_alone_fail_too() -> None:
    class Once(Rehearsed):
        def live(self, seed: int, only: str | None = None) -> Outcome:
            outcome = super().live(seed, only)
            if only is None:
                self._faults = {**self._faults, None: []}
            return outcome

    assert Once({None: [STALLS]}).judge(7).verdict == "chance"
    assert Once({None: [STALLS], OURS: [STALLS]}).judge(7).verdict == "ours"


@pytest.mark.parametrize("writer", [JS, OURS])
def test_a_reader_of_javascript_needs_a_block_to_be_led_on_by_whoever_wrote_the_log(
    writer: str,
) -> None:
    async def run(port: int) -> None:
        async with open_world(port) as world:
            core = await world.party(writer)
            reader = await world.party(JS, core)
            await core.fill(176)
            part = await world.join(core, reader)
            await reader.until("length", 176)
            await part()
            await core.truncate(146)
            await core.append(b"new")
            await core.clear(65, 131)
            await world.join(core, reader)
            held = await core.held(147)
            while not (fault := await reader.own_fault(lacks_blocks=False, held=held, refusals=0)):
                assert (await reader.figures())["fork"] == 0
            assert fault == "waits to be led on by one of [128, 130), of which nobody has any"
            assert not await reader.own_fault(lacks_blocks=False, held=held | {129}, refusals=0)

    with run_javascript() as port:
        trio.run(run, port)
