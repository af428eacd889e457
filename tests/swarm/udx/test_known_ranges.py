from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.known_ranges import KnownRanges

RANGES = st.tuples(st.integers(0, 40), st.integers(1, 12)).map(lambda r: (r[0], r[0] + r[1]))


def test_only_what_is_news_comes_back() -> None:
    known = KnownRanges()
    assert known.add(10, 20) == [(10, 20)]
    assert known.add(10, 20) == known.add(12, 15) == []
    assert known.add(30, 40) == [(30, 40)]
    assert known.add(5, 45) == [(5, 10), (20, 30), (40, 45)]
    assert known.add(45, 46) == [(45, 46)]
    known.forget_before(46)
    assert known.add(45, 46) == [(45, 46)]


@given(st.lists(st.tuples(RANGES, st.integers(0, 60))))
def test_it_is_a_set_of_numbers(steps: list[tuple[tuple[int, int], int]]) -> None:
    known, twin, forgotten = KnownRanges(), set[int](), 0
    for (start, stop), acked in steps:
        if start >= forgotten:
            gaps = known.add(start, stop)
            news = [seq for gap in gaps for seq in range(*gap)]
            assert news == sorted(set(range(start, stop)) - twin)
            twin.update(news)
        if acked > 50:
            forgotten = max(forgotten, acked - 50)  # what is acknowledged only grows
            known.forget_before(forgotten)
