"""A writer killed at random points loses nothing that it had acknowledged.

Longer: `python -m tests.hypercore.crash_campaign --points 1000`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hypercore.crash_campaign import ROUND_POINTS, campaign


@pytest.mark.parametrize("durability", ["os", "commit", "group(2)"])
def test_killed_writers_lose_nothing(tmp_path: Path, durability: str) -> None:
    report = campaign(tmp_path, ROUND_POINTS, durability, seed=8)
    assert report.lost == []
    assert report.points == ROUND_POINTS
    assert 0 < report.at_calls < ROUND_POINTS
    assert set(report.acknowledged) == {"log", "cleared", "replica"}
    assert min(report.acknowledged.values()) > ROUND_POINTS
    assert report.blocks > 0
    assert report.longest_open_seconds < 5  # 0.1 on a quiet machine
