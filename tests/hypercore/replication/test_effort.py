"""A peer that is of no use gets a small share of our time, and one that is never waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hypercore.replication.effort import (
    BLOCK_SECONDS,
    FREE_SECONDS,
    FREE_SHARE,
    MAX_PAUSE_SECONDS,
    Effort,
)


def test_a_few_messages_are_free() -> None:
    effort = Effort(100.0)
    effort.spent(FREE_SECONDS, 0, 100.0)
    assert effort.pause_seconds == 0


def test_bytes_in_no_block_are_paid_for() -> None:
    effort = Effort(0.0)
    effort.spent(0.0, 0, 0.0, idle_bytes=1000)
    assert effort.pause_seconds == 0
    effort.spent(0.0, 0, 0.0, idle_bytes=16 << 20)
    assert effort.pause_seconds > 0.1


@given(st.lists(st.floats(0.0001, 0.05), min_size=50, max_size=200))
def test_who_gives_nothing_gets_its_share_and_no_more(costs: list[float]) -> None:
    effort = Effort(0.0)
    now = spent = 0.0
    for cost in costs:
        now += cost
        spent += cost
        effort.spent(cost, 0, now)
        now += effort.pause_seconds
    assert spent <= FREE_SECONDS + now * FREE_SHARE + max(costs)


@given(st.lists(st.floats(0.0001, 0.05), min_size=1, max_size=100))
def test_blocks_pay(costs: list[float]) -> None:
    effort = Effort(0.0)
    now = 0.0
    for cost in costs:
        now += cost
        effort.spent(cost, int(cost / BLOCK_SECONDS) + 1, now)
        assert effort.pause_seconds == 0


def test_a_debt_is_forgotten_in_time_and_never_stops_a_connection() -> None:
    effort = Effort(0.0)
    effort.spent(60.0, 0, 60.0)
    assert effort.pause_seconds == MAX_PAUSE_SECONDS
    effort.spent(0.0, 0, 60.0 + 60.0 / FREE_SHARE)
    assert effort.pause_seconds == 0
