"""Rates with a clock that is a variable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.access.quotas import FAR_BEYOND_MINUTES, MAX_ADDRESSES, Bucket, Paces, Quotas

RATE = 60
steps = st.lists(st.tuples(st.floats(0, 300), st.integers(0, 200)), max_size=40)
"""(seconds since the last, how much)."""


@given(steps)
def test_who_waits_gets_no_more_than_the_rate_in_any_window(
    sent: list[tuple[float, int]],
) -> None:
    bucket = Bucket(RATE, 0.0)
    now = 0.0
    passed: list[tuple[float, int]] = []
    for pause, amount in sent:
        now += pause + bucket.debt_seconds(now + pause)
        bucket.spend(amount, now)
        passed.append((now, amount))
    for first in range(len(passed)):
        total = 0
        for last in range(first, len(passed)):
            total += passed[last][1]
            span = passed[last][0] - passed[first][0]
            # A minute's worth at once, what flowed in, and the one that overdrew.
            largest = max(amount for _, amount in passed[first : last + 1])
            assert total <= RATE * (1 + span / 60) + largest + 1e-6


@given(steps)
def test_who_stays_below_the_rate_never_waits(sent: list[tuple[float, int]]) -> None:
    bucket = Bucket(RATE, 0.0)
    now = 0.0
    for _, wanted in sent:
        amount = min(wanted, RATE)
        now += amount * 60 / RATE
        bucket.spend(amount, now)
        assert bucket.debt_seconds(now) <= 1e-6


@given(st.floats(0, 1e6), st.integers(0, 10_000))
def test_a_debt_is_paid_exactly_when_it_says(start: float, amount: int) -> None:
    bucket = Bucket(RATE, start)
    bucket.spend(amount, start)
    debt = bucket.debt_seconds(start)
    assert debt == pytest.approx(max(amount - RATE, 0))
    assert bucket.debt_seconds(start + debt) == pytest.approx(0, abs=1e-3)
    if debt > 1:
        assert bucket.debt_seconds(start + debt - 1) == pytest.approx(1, abs=1e-3)
    assert bucket.is_full(start + debt + 60.001)
    # A clock that stands still or steps back gives nothing away.
    bucket.spend(RATE * 2, start - 5)
    assert bucket.debt_seconds(start - 5) >= debt


def test_every_rate_slows_and_the_slowest_counts() -> None:
    quotas = Quotas(bytes_per_minute=1000, messages_per_minute=60, values_per_minute=6)
    paces = Paces(quotas)
    assert paces.receive("192.0.2.1", 500, 1, 0.0).wait_seconds == 0
    assert paces.receive("192.0.2.1", 600, 1, 0.0).wait_seconds == pytest.approx(6)
    assert paces.receive("192.0.2.2", 1, 90, 0.0).wait_seconds == pytest.approx(30)
    for _ in range(8):
        paces.count_value("192.0.2.3", 0.0)
    assert paces.receive("192.0.2.3", 1, 1, 0.0).wait_seconds == pytest.approx(20)
    assert paces.receive("192.0.2.3", 1, 1, 20.0).wait_seconds == pytest.approx(0, abs=1e-6)


def test_only_what_arrives_far_beyond_the_rate_is_sent_away() -> None:
    paces = Paces(Quotas(messages_per_minute=100))
    # However large one frame is, it is only waited for: JavaScript batches without bound.
    assert paces.receive("192.0.2.1", 0, 25_000, 0.0).end_reason is None
    # A second connection of that address, while more than ten minutes are owed.
    assert paces.receive("192.0.2.1", 0, 0, 1.0).end_reason is not None
    late = 60.0 * (25_000 / 100 - 1 - FAR_BEYOND_MINUTES) + 1
    assert paces.receive("192.0.2.1", 0, 0, late).end_reason is None
    assert paces.receive("192.0.2.2", 0, 1, 0.0).end_reason is None


@given(st.lists(st.integers(0, 50_000), max_size=20))
def test_one_connection_that_is_paced_is_never_sent_away(frames: list[int]) -> None:
    paces = Paces(Quotas(messages_per_minute=100))
    now = 0.0
    for lines in frames:
        pace = paces.receive("192.0.2.1", 0, lines, now)
        assert pace.end_reason is None
        now += pace.wait_seconds


@pytest.mark.parametrize(
    ("address", "is_metered"),
    [
        ("127.0.0.1", False),
        ("127.8.8.8", False),
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("", False),
        ("test", False),
        ("10.0.0.1", True),
        ("fe80::1%eth0", True),
    ],
)
def test_loopback_is_metered_only_if_that_is_wanted(address: str, is_metered: bool) -> None:
    quotas = Quotas(messages_per_minute=1)
    assert (Paces(quotas).receive(address, 0, 5, 0.0).wait_seconds > 0) == is_metered
    asked = Paces(Quotas(messages_per_minute=1, loopback=True))
    is_address = address not in ("", "test")
    assert (asked.receive(address, 0, 5, 0.0).wait_seconds > 0) == is_address


def test_an_address_of_ipv6_is_its_network() -> None:
    paces = Paces(Quotas(messages_per_minute=1))
    paces.receive("2001:db8::1", 0, 5, 0.0)
    assert paces.receive("2001:db8::ffff:1", 0, 0, 0.0).wait_seconds > 0
    assert paces.receive("2001:db8:0:1::1", 0, 0, 0.0).wait_seconds == 0
    paces.receive("198.51.100.7", 0, 5, 0.0)
    assert paces.receive("::ffff:198.51.100.7", 0, 0, 0.0).wait_seconds > 0


def test_addresses_are_forgotten_and_debts_last() -> None:
    paces = Paces(Quotas(messages_per_minute=1))
    paces.receive("192.0.2.1", 0, 10_000, 0.0)
    for number in range(MAX_ADDRESSES + 100):
        paces.receive(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 0, 1, 0.0)
        paces.receive("192.0.2.1", 0, 0, 0.0)
    assert len(paces) == MAX_ADDRESSES
    assert paces.receive("192.0.2.1", 0, 0, 0.0).wait_seconds > 0
    assert len(Paces(Quotas())) == 0


def test_without_rates_nothing_is_kept() -> None:
    paces = Paces(Quotas(account_bytes=5))
    assert paces.receive("192.0.2.1", 10**9, 10**9, 0.0) == (0.0, None)
    paces.count_value("192.0.2.1", 0.0)
    assert len(paces) == 0
