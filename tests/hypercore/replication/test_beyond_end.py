from __future__ import annotations

from hypercore.replication.beyond_end import BeyondEnd
from hypercore.replication.wants import WINDOW_BLOCKS, SentWants


def asked() -> tuple[SentWants, BeyondEnd]:
    """The first window was asked about."""
    wants = SentWants()
    wants.want(0)
    return wants, BeyondEnd(wants)


def test_a_run_grows_with_what_goes_on_from_it() -> None:
    _, beyond = asked()
    beyond.note(100, 110)
    beyond.note(105, 120)
    beyond.note(120, 121)
    assert beyond.run == range(100, 121)


def test_of_two_runs_the_last_is_kept_and_the_window_of_the_other_is_asked_about_again() -> None:
    wants, beyond = asked()
    beyond.note(100, 110)
    beyond.note(200, 210)
    assert beyond.run == range(200, 210)
    assert not wants.want(0), "with the end where it is the answer would be lost again"
    beyond.reached(50)
    assert wants.want(0)


def test_windows_that_were_not_asked_about_are_not_forgotten() -> None:
    wants, beyond = asked()
    beyond.forgot(WINDOW_BLOCKS, 1 << 60)
    beyond.forgot(5, 5)
    beyond.reached(50)
    assert not wants.want(0)


def test_what_the_log_reaches_is_taken_out_once() -> None:
    _, beyond = asked()
    beyond.note(100, 110)
    assert not beyond.reached(100)
    assert beyond.reached(104) == range(100, 104)
    assert beyond.reached(1000) == range(104, 110)
    assert not beyond.reached(1000)


def test_a_run_of_which_some_is_dropped_is_asked_about_again() -> None:
    wants, beyond = asked()
    beyond.note(100, 110)
    beyond.drop(110, 120)
    assert beyond.run
    beyond.drop(105, 120)
    assert not beyond.run
    beyond.reached(50)
    assert wants.want(0)


def test_a_run_that_is_dropped_whole_is_not_asked_about() -> None:
    wants, beyond = asked()
    beyond.note(100, 110)
    beyond.drop(0, 1000)
    beyond.reached(50)
    assert not beyond.run
    assert not wants.want(0)
