from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.mesh.effort import MAX_CREDIT_SECONDS, MAX_PAUSE_SECONDS, SHARE, Effort, Quota

steps = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=30)


@given(steps)
def test_who_waits_as_long_as_it_is_told_takes_its_share(work: list[tuple[float, float]]) -> None:
    effort, now, spent = Effort(0), 0.0, 0.0
    for idle, seconds in work:
        now += idle
        effort.spend(seconds, now)
        spent += seconds
        while pause := effort.pause_seconds(now):
            assert pause <= MAX_PAUSE_SECONDS
            now += pause + 1e-9
        assert spent <= MAX_CREDIT_SECONDS + now * SHARE + 1e-6


def test_bytes_are_work_too() -> None:
    effort = Effort(0)
    effort.spend(0, 0, size=1 << 30)
    assert effort.pause_seconds(0) == MAX_PAUSE_SECONDS


@given(steps)
def test_a_quota_gives_no_more_than_so_many_and_so_many_a_second(
    asked: list[tuple[float, float]],
) -> None:
    quota, now, given_away = Quota(100, 10, 0), 0.0, 0
    for idle, part in asked:
        now += idle
        number = int(part * 300)
        free = quota.take(number, now)
        assert 0 <= free <= number
        given_away += free
        assert given_away <= 100 + 10 * now + 1e-6


def test_a_quota_grows_with_what_it_is_about() -> None:
    quota = Quota(100, 10, 0)
    assert quota.take(60, 0) == 60
    assert quota.take(200, 0, most=200) == 140
    assert quota.take(200, 1, most=200) == 20
    assert quota.take(50, 2, most=10) == 20
