"""What a peer is expected to take, and when to look at that again."""

from __future__ import annotations

from hypercore.replication.hotswap import CHECK_SECONDS, MAX_SILENT_SECONDS, Recheck, Speed
from hypercore.replication.inflight import Inflight


def test_a_machine_that_slept_does_not_give_its_peers_up_for_as_long() -> None:
    speed, inflight = Speed(), Inflight()
    speed.started(0.0)
    inflight.add(1, 0, False, None, 0, 0.0)
    assert speed.expected_seconds(inflight, 0, 10.0) == 10.0
    speed.lost(inflight, 3 * 3600.0)
    assert speed.expected_seconds(Inflight(), 0, 3 * 3600.0) == MAX_SILENT_SECONDS
    speed.answered(1, 3 * 3600.0)
    assert speed.expected_seconds(Inflight(), 0, 3 * 3600.0) < 1.0


def test_looking_again_comes_ever_less_often_until_something_arrives() -> None:
    recheck = Recheck()
    recheck.wanted(10.0)
    pauses, now = [], recheck.at
    for _ in range(6):
        recheck.looked(now)
        pauses.append(recheck.at - now)
        now = recheck.at
    assert pauses == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    recheck.arrived(now)
    assert recheck.at == now + CHECK_SECONDS
    recheck.looked(recheck.at)
    assert recheck.at == now + 2 * CHECK_SECONDS


def test_more_that_is_wanted_makes_it_look_sooner_and_never_later() -> None:
    recheck = Recheck()
    for _ in range(6):
        recheck.looked(20.0)
    recheck.wanted(20.0)
    assert recheck.at == 20.0 + CHECK_SECONDS
    recheck.wanted(20.1)
    assert recheck.at == 20.0 + CHECK_SECONDS


def test_what_arrives_does_not_put_off_looking_again() -> None:
    recheck = Recheck()
    recheck.wanted(10.0)
    assert not recheck.arrived(10.2)
    assert recheck.at == 10.0 + CHECK_SECONDS
    assert recheck.arrived(10.0 + CHECK_SECONDS)
    assert recheck.at == 10.0 + 2 * CHECK_SECONDS


def test_a_long_handshake_is_no_reason_to_expect_much() -> None:
    inflight = Inflight()
    inflight.round_trip_guess = 1.5
    assert Speed().expected_seconds(inflight, 0, 0.0) == 1.5
