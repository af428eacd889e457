from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.mesh.peer_rules import (
    Direction,
    PeerRule,
    PeerRules,
    Traffic,
    direction_now,
    is_lan_address,
)

ID = bytes(range(32))
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
DAY = 86_400


def test_directions() -> None:
    takes = [way for way in Direction if way.takes]
    gives = [way for way in Direction if way.gives]
    assert takes == [Direction.BOTH, Direction.DOWN]
    assert gives == [Direction.BOTH, Direction.UP]


def test_the_most_exact_rule_holds() -> None:
    rules = PeerRules()
    assert rules.find(ID, "hive", is_lan=False) == PeerRule()
    wan, lan, named, short, full = (PeerRule(day_bytes=number) for number in range(1, 6))
    rules = rules.with_rule("wan", wan).with_rule("lan", lan)
    assert rules.find(ID, "hive", is_lan=False) == wan
    assert rules.find(ID, "hive", is_lan=True) == lan
    rules = rules.with_rule("hive", named)
    assert rules.find(ID, "hive", is_lan=True) == named
    rules = rules.with_rule(ID.hex()[:8], short)
    assert rules.find(ID, "hive", is_lan=True) == short
    rules = rules.with_rule(ID.hex(), full)
    assert rules.find(ID, "hive", is_lan=True) == full
    assert rules.find(bytes(32), "", is_lan=False) == wan
    assert rules.find(bytes(32), ID.hex()[:8], is_lan=True) == short, "a name may look like an id"
    for key in ("wan", "lan", "hive", ID.hex()[:8], ID.hex()):
        rules = rules.with_rule(key, PeerRule())
    assert rules == PeerRules()


def test_no_member_gets_the_rule_of_a_place_or_of_another_id_by_calling_itself_so() -> None:
    wan, lan, full = (PeerRule(day_bytes=number) for number in range(3, 6))
    rules = PeerRules().with_rule("wan", wan).with_rule("lan", lan).with_rule(ID.hex(), full)
    for name in ("lan", "wan", ID.hex()):
        assert rules.find(bytes(32), name, is_lan=False) == wan
        assert rules.find(bytes(32), name, is_lan=True) == lan
        assert rules.find(ID, name, is_lan=True) == full


def test_budgets_end_the_exchange_until_the_next_period() -> None:
    rule = PeerRule(Direction.DOWN, day_bytes=100, month_bytes=150)
    traffic = Traffic().counted(99, NOON)
    assert direction_now(rule, traffic, NOON) is Direction.DOWN
    traffic = traffic.counted(1, NOON)
    assert direction_now(rule, traffic, NOON) is Direction.OFF
    tomorrow = NOON + DAY
    assert direction_now(rule, traffic, tomorrow) is Direction.DOWN, "another day, another month"
    traffic = Traffic().counted(80, NOON - 2 * DAY).counted(80, NOON - DAY)
    assert (traffic.day_bytes, traffic.month_bytes) == (80, 160)
    assert direction_now(rule, traffic, NOON) is Direction.OFF, "the month is used up"
    assert direction_now(rule, traffic, tomorrow) is Direction.DOWN
    assert direction_now(PeerRule(), traffic, NOON) is Direction.BOTH


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**33))
def test_traffic_round_trips(size: int, more: int, now: int) -> None:
    traffic = Traffic().counted(size, now).counted(more, now)
    assert Traffic.decode(traffic.encode()) == traffic
    assert traffic.day_bytes == traffic.month_bytes == size + more


@given(st.binary(max_size=40))
def test_any_row_is_read_or_means_nothing(data: bytes) -> None:
    assert Traffic.decode(data).day_bytes >= 0
    assert Traffic.decode(None) == Traffic()


@pytest.mark.parametrize(
    ("address", "is_lan"),
    [
        ("127.0.0.1:5", True),
        ("192.168.1.7:49737", True),
        ("[fe80::1%eth0]:1", True),
        ("[::1]:1", True),
        ("8.8.8.8:1", False),
        ("[2a00:1450::1]:1", False),
        ("not an address", False),
        (None, True),
    ],
)
def test_where_an_address_is(address: str | None, is_lan: bool) -> None:
    assert is_lan_address(address) is is_lan
