from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.covalue.local.erasure_schedule import (
    FOLLOW_UP_SECONDS,
    STARTUP_SECONDS,
    THROTTLE_SECONDS,
    ErasureSchedule,
    Phase,
)


def test_a_fresh_schedule_does_nothing() -> None:
    schedule = ErasureSchedule()
    schedule.value_deleted(5.0)
    assert (schedule.phase, schedule.deadline) == (Phase.OFF, None)


def test_the_first_run_is_a_second_after_the_start() -> None:
    schedule = ErasureSchedule()
    schedule.enable(10.0)
    assert schedule.deadline == 10.0 + STARTUP_SECONDS
    schedule.enable(10.5)  # once is enough
    schedule.value_deleted(10.5)  # and that run will find it
    assert schedule.deadline == 10.0 + STARTUP_SECONDS


def test_what_is_left_over_is_erased_a_second_later() -> None:
    schedule = ErasureSchedule()
    schedule.enable(0.0)
    schedule.begin()
    assert schedule.deadline is None
    schedule.value_deleted(1.5)
    assert schedule.deadline is None
    schedule.finish(2.0, has_more=True)
    assert schedule.deadline == 2.0 + FOLLOW_UP_SECONDS


def test_deletions_are_gathered_for_a_minute() -> None:
    schedule = ErasureSchedule()
    schedule.enable(0.0)
    schedule.begin()
    schedule.finish(1.0, has_more=False)
    assert (schedule.phase, schedule.deadline) == (Phase.IDLE, None)
    schedule.value_deleted(100.0)
    schedule.value_deleted(130.0)
    assert schedule.deadline == 100.0 + THROTTLE_SECONDS


def test_a_run_must_be_planned_and_begun() -> None:
    schedule = ErasureSchedule()
    with pytest.raises(RuntimeError, match="off"):
        schedule.begin()
    schedule.enable(0.0)
    with pytest.raises(RuntimeError, match="planned"):
        schedule.finish(1.0, has_more=False)
    schedule.begin()
    with pytest.raises(RuntimeError, match="running"):
        schedule.begin()


@given(st.lists(st.tuples(st.sampled_from(["delete", "wait"]), st.floats(0, 90), st.booleans())))
def test_a_deletion_is_never_forgotten_and_runs_are_never_frequent(
    steps: list[tuple[str, float, bool]],
) -> None:
    schedule = ErasureSchedule()
    schedule.enable(0.0)
    now = 0.0
    waiting_since: float | None = 0.0
    runs: list[float] = []
    left_over = False
    for kind, seconds, has_more in steps:
        until = now + seconds
        while schedule.deadline is not None and schedule.deadline <= until:
            now = schedule.deadline
            schedule.begin()
            if runs and not left_over:
                assert now - runs[-1] >= THROTTLE_SECONDS - 1e-6  # sums of fractions
            runs.append(now)
            left_over = has_more and len(runs) % 3 != 0
            schedule.finish(now, has_more=left_over)
            waiting_since = now if left_over else None
        now = until
        if kind == "delete":
            schedule.value_deleted(now)
            waiting_since = now if waiting_since is None else waiting_since
        if waiting_since is not None:
            assert schedule.deadline is not None
            assert schedule.deadline <= waiting_since + THROTTLE_SECONDS
