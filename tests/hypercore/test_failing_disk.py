"""A disk that fails loses nothing, serves reads, and is gone on with when it works again.

Longer, at every call: `python -m tests.hypercore.failing_disk_campaign`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hypercore.failing_disk_campaign import run_fault


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "first", "step"),
    [("sync", 1, 17), ("full", 1, 37), ("write", 1, 29), ("full-names", 1, 11)],
)
def test_a_failing_disk_loses_nothing(tmp_path: Path, fault: str, first: int, step: int) -> None:
    report = run_fault(tmp_path, fault, first=first, step=step)
    assert report.wrong == []
    assert report.runs > 2
    assert report.writing > 0
    assert report.recovered == report.writing
    assert report.hits >= report.opening + report.writing
