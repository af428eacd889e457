from __future__ import annotations

import pytest

from swarm.dht.pacing import (
    FIRST_TIMEOUT_SECONDS,
    INTERVAL_SECONDS,
    MAX_IN_FLIGHT,
    MAX_PER_INTERVAL,
    MAX_TIMEOUT_SECONDS,
    MIN_TIMEOUT_SECONDS,
    CongestionWindow,
    RoundTrips,
)

NEAR = ("192.0.2.1", 1)


def fill(window: CongestionWindow) -> int:
    count = 0
    while not window.is_full:
        window.sent()
        count += 1
    return count


def test_an_interval_and_four_of_them_have_a_limit() -> None:
    window = CongestionWindow(0.0)
    assert fill(window) == MAX_PER_INTERVAL
    window.advance(INTERVAL_SECONDS)
    assert fill(window) == MAX_IN_FLIGHT - MAX_PER_INTERVAL
    window.advance(2 * INTERVAL_SECONDS)
    assert fill(window) == 0
    window.advance(4 * INTERVAL_SECONDS)
    assert fill(window) == MAX_PER_INTERVAL, "the first interval is forgotten"


def test_answers_make_room() -> None:
    window = CongestionWindow(0.0)
    fill(window)
    for _ in range(5):
        window.answered()
    assert fill(window) == 5


def test_a_long_pause_empties_the_window() -> None:
    window = CongestionWindow(0.0)
    fill(window)
    window.advance(1000.1)
    assert 1000.1 < window.next_interval <= 1000.1 + INTERVAL_SECONDS
    assert fill(window) == MAX_PER_INTERVAL


def test_more_answers_than_requests_do_not_make_more_room() -> None:
    window = CongestionWindow(0.0)
    window.answered()
    assert fill(window) == MAX_PER_INTERVAL


def test_a_node_not_heard_of_before_is_given_a_second() -> None:
    trips = RoundTrips()
    assert trips.round_trip(NEAR) is None
    assert [trips.timeout(NEAR, attempt) for attempt in (1, 2, 6)] == [FIRST_TIMEOUT_SECONDS] * 3


def test_timeouts_follow_the_round_trip_and_double() -> None:
    trips = RoundTrips()
    for _ in range(50):
        trips.add(NEAR, 0.2)
    assert trips.round_trip(NEAR) == pytest.approx(0.2)
    assert trips.timeout(NEAR, 1) == pytest.approx(MIN_TIMEOUT_SECONDS)
    assert trips.timeout(NEAR, 3) == pytest.approx(max(0.8, 3 * MIN_TIMEOUT_SECONDS), rel=0.01)
    assert trips.timeout(NEAR, 20) == MAX_TIMEOUT_SECONDS
    trips.add(NEAR, 2.0)
    assert trips.timeout(NEAR, 1) > 1.5, "one late answer makes more patient"


def test_only_so_many_nodes_are_remembered() -> None:
    trips = RoundTrips()
    for port in range(5000):
        trips.add(("192.0.2.1", port), 0.1)
    known = [port for port in range(5000) if trips.round_trip(("192.0.2.1", port)) is not None]
    assert known == list(range(5000 - 4096, 5000))
