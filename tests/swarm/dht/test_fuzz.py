"""A short run of `fuzz_campaign`, the same one each time."""

from __future__ import annotations

import pytest

from tests.swarm.dht.fuzz_campaign import fuzz_decoder, fuzz_node, valid_messages


@pytest.mark.parametrize("name", valid_messages())
def test_damaged_messages_are_read_or_refused(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz_decoder(name, 3000, seed=1)
    decoded = int(capsys.readouterr().out.split(",")[1].split()[0])
    assert 30 < decoded < 2970, "some of each kind, else the damage is none or total"


def test_a_node_takes_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz_node(3000, seed=1)
    assert "0 nodes believed in" in capsys.readouterr().out
