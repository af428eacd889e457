"""What a power cut leaves opens and has all that was acknowledged.

Longer: `python -m tests.hypercore.power_cut_campaign --states 10000`, and the same with
`told_heads_campaign`.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.hypercore.power_cut_campaign import Campaign
from tests.hypercore.told_heads_campaign import campaign as listen
from tests.support.crash_states import Disk, Survival
from tests.support.power_cut import Kind, Record


@pytest.mark.slow
@pytest.mark.parametrize(("durability", "states"), [("commit", 40), ("group(2)", 20), ("os", 20)])
def test_a_power_cut_loses_nothing_acknowledged(
    tmp_path: Path, durability: str, states: int
) -> None:
    report = Campaign(tmp_path, durability, seed=states).run(states, states_per_run=states // 2)
    assert report.wrong == []
    assert report.refused == []
    assert report.states == states
    assert report.acknowledged > 5 * states
    assert report.unsynced > states / 2
    assert report.longest_open_seconds < 5


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["commit", "group(2)"])
def test_a_power_cut_contradicts_no_head_that_a_peer_was_told(
    tmp_path: Path, durability: str
) -> None:
    report = listen(tmp_path, durability, seed=1, states=80)
    assert report.wrong == []
    assert report.told > 10 * report.states


def records_of(path: Path) -> list[Record]:
    """Two writes, of which a sync covers the first; then the file gets another name."""
    old, new = os.fsencode(path / "old"), os.fsencode(path / "new")
    return [
        Record(Kind.OPEN, 3, os.O_CREAT, old, b""),
        Record(Kind.OPEN, 4, 0, os.fsencode(path), b""),
        Record(Kind.WRITE, 3, 0, b"a" * 5000, b""),
        Record(Kind.SYNC_BEGIN, 3, 1, b"", b""),
        Record(Kind.WRITE, 3, 5000, b"b" * 5000, b""),
        Record(Kind.SYNC_END, 3, 1, b"", b""),
        Record(Kind.SYNC_BEGIN, 4, 2, b"", b""),
        Record(Kind.SYNC_END, 4, 2, b"", b""),
        Record(Kind.RENAME, -1, 0, old, new),
    ]


def left(path: Path, records: list[Record], survival: Survival, seed: int) -> dict[str, bytes]:
    disk = Disk(path)
    for record in records:
        disk.apply(record)
    state = path / f"{survival.name} {seed} {len(records)}"
    disk.leave(state, survival, random.Random(seed))
    return {file.name: file.read_bytes() for file in state.iterdir()}


def test_synced_content_stays_and_unsynced_may_go(tmp_path: Path) -> None:
    records = records_of(tmp_path)
    whole = b"a" * 5000 + b"b" * 5000
    assert left(tmp_path, records, Survival.NOTHING, 0) == {"old": whole[:5000]}
    assert left(tmp_path, records, Survival.EVERYTHING, 0) == {"new": whole}
    for survival in Survival:
        for seed in range(20):
            ((name, data),) = left(tmp_path, records, survival, seed + 1).items()
            assert name in ("old", "new")
            assert len(data) >= 5000
            if survival is Survival.PAGES:
                assert all(byte in (0, right) for byte, right in zip(data, whole, strict=False))
                assert data[:5000] == whole[:5000]
            else:
                assert whole.startswith(data)


def test_a_name_needs_a_sync_of_its_directory(tmp_path: Path) -> None:
    records = records_of(tmp_path)[:6]
    assert left(tmp_path, records, Survival.NOTHING, 0) == {}
    assert left(tmp_path, records_of(tmp_path)[:7], Survival.NOTHING, 0) == {}
    for seed in range(20):  # a disk that reorders names keeps those of synced files
        assert list(left(tmp_path, records, Survival.PAGES, seed)) == ["old"]


def test_a_failed_sync_makes_nothing_durable_ever_after(tmp_path: Path) -> None:
    records = records_of(tmp_path)[:8]
    records[5] = records[5]._replace(kind=Kind.SYNC_FAILED)
    records += [
        Record(Kind.SYNC_BEGIN, 3, 3, b"", b""),
        Record(Kind.SYNC_END, 3, 3, b"", b""),
    ]
    assert left(tmp_path, records, Survival.NOTHING, 0) == {"old": b""}
