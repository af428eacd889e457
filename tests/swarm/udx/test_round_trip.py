from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.udx.round_trip import MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS, RoundTrip
from swarm.udx.window_filter import WindowedMaximum


def test_before_the_first_sample() -> None:
    round_trip = RoundTrip()
    assert (round_trip.smoothed, round_trip.minimum, round_trip.timeout) == (None, None, 1.0)


def test_the_estimates_of_rfc_6298() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.8, 0)
    assert round_trip.timeout == pytest.approx(0.8 + 4 * 0.4)
    round_trip.add(1.6, 1)
    assert round_trip.smoothed == pytest.approx(0.9)
    assert round_trip.timeout == pytest.approx(0.9 + 4 * (0.75 * 0.4 + 0.25 * 0.8))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50))
def test_the_timeout_stays_within_bounds(samples: list[float]) -> None:
    round_trip = RoundTrip()
    for number, seconds in enumerate(samples):
        round_trip.add(seconds, float(number))
        assert MIN_TIMEOUT_SECONDS <= round_trip.timeout <= MAX_TIMEOUT_SECONDS


def test_the_sleep_of_a_laptop_is_no_round_trip() -> None:
    round_trip = RoundTrip()
    for number in range(100):
        round_trip.add(0.05, float(number))
    round_trip.add(3600.0, 4000.0)
    assert round_trip.timeout == MIN_TIMEOUT_SECONDS


def test_the_minimum_is_that_of_five_minutes() -> None:
    round_trip = RoundTrip()
    round_trip.add(0.01, 0)
    round_trip.add(0.05, 60)
    assert round_trip.minimum == 0.01
    round_trip.add(0.07, 301)
    assert round_trip.minimum == 0.05


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1), st.integers(1, 5))
def test_the_windowed_maximum_is_the_largest_of_its_window(
    steps: list[tuple[int, int]], span: int
) -> None:
    window = WindowedMaximum(span)
    assert window.value is None
    history: list[tuple[int, int]] = []
    period = 0
    for step, value in steps:
        period += step
        history.append((period, value))
        window.add(period, value)
        assert window.value == max(v for at, v in history if at > period - span)
