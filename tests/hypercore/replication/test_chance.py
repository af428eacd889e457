"""Whatever happens between a writer and its readers: when it is over, all have what they want."""

from __future__ import annotations

import pytest

from tests.support.chance import Scenario

SEEDS = 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_when_it_is_over_all_have_what_they_want(seed: int) -> None:
    scenario = Scenario(seed)
    for _ in range(scenario.chance.randrange(5, 60)):
        scenario.act()
    scenario.heal()
    scenario.run_until_done()
    assert scenario.is_done
    writer = scenario.writer
    assert not writer.errors
    for node in scenario.readers:
        assert not node.errors, "nobody lied"
        assert node.log.blocks.items() <= writer.log.blocks.items()
        assert node.log.nodes.items() <= writer.log.nodes.items()
    scenario.end_wants()
    for node in scenario.readers:
        assert not node.replicator.is_downloading, "nothing is wanted, or asked for"
