"""Some seeds of the campaign of random lives: the rest takes longer than a test may."""

from __future__ import annotations

import pytest

from tests.interop.replication_campaign import Campaign

pytestmark = pytest.mark.interop

SEEDS = range(10)


def test_parties_of_both_kinds_agree_after_random_lives() -> None:
    with Campaign() as campaign:
        outcomes = [campaign.judge(seed) for seed in SEEDS]
    faults = {outcome.seed: outcome.faults for outcome in outcomes if outcome.verdict == "ours"}
    assert not faults
