"""A writer killed at random points loses nothing that it had acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hypercore.crash_campaign import campaign


@pytest.mark.parametrize(("durability", "points"), [("os", 10), ("commit", 8), ("group(2)", 4)])
def test_killed_writers_lose_nothing(tmp_path: Path, durability: str, points: int) -> None:
    report = campaign(tmp_path, points, durability, seed=points)
    assert report.lost == []
    assert report.points == points
    assert report.acknowledged > 10 * points
    assert report.length > 0
    assert report.longest_open_seconds < 1
