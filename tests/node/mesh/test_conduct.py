from __future__ import annotations

import pytest

from node.mesh.conduct import (
    ABSENT_PER_SECOND,
    MAX_ABSENT,
    MAX_CREDIT_SECONDS,
    MAX_DEBT_SECONDS,
    MAX_FAILURES,
    MAX_UNDELIVERED,
    MAX_UNKNOWN,
    MAX_UNKNOWN_BYTES,
    RUN_SECONDS,
    SHARE,
    Conduct,
)
from node.mesh.member_data import Cause
from node.mesh.penalties import (
    FACTOR,
    FIRST_SECONDS,
    FORGIVEN_SECONDS,
    MAX_PENALTIES,
    MAX_SECONDS,
    SHOWN_SECONDS,
    Penalties,
)

LIAR, OTHER = b"l" * 32, b"o" * 32


def work(conduct: Conduct, load: float, seconds: float, worth: int = 0) -> float | None:
    """Have its messages take this share of the time; when it had to go, if it had."""
    now = 0.0
    while now < seconds:
        now += 0.1 + conduct.pause_seconds
        conduct.note_true(worth)
        conduct.note_handled(0.1 * load, 0, now)
        if conduct.fault(now) is not None:
            return now
    return None


def test_who_floods_goes_and_who_works_within_its_share_stays() -> None:
    gone = work(Conduct(0), 1.0, 60)
    assert gone is not None
    assert gone < 5
    assert work(Conduct(0), SHARE, 60) is None
    # What is true pays for itself.
    assert work(Conduct(0), 1.0, 60, worth=1000) is None


def test_who_joins_may_compare_a_lot_at_once() -> None:
    conduct = Conduct(0)
    conduct.note_handled(MAX_CREDIT_SECONDS, 0, 0)
    assert conduct.pause_seconds == 0
    conduct.note_handled(0.03, 0, 0)
    assert conduct.pause_seconds == pytest.approx(0.2)
    conduct.note_handled(0, 0, 1)
    assert conduct.pause_seconds == 0
    assert conduct.fault(MAX_DEBT_SECONDS + 1) is None


def test_announcing_what_one_has_not_is_told_from_bad_luck() -> None:
    conduct = Conduct(0)
    conduct.note_delivered(100)
    for _ in range(399):
        conduct.note_undelivered()
    assert conduct.fault(0) is None
    conduct.note_undelivered()
    assert "400 values that it did not have" in str(conduct.fault(0))
    liar = Conduct(0)
    for _ in range(MAX_UNDELIVERED):
        assert liar.fault(0) is None
        liar.note_undelivered()
    assert liar.fault(0) is not None


def test_reads_that_fail_one_after_the_other() -> None:
    conduct = Conduct(0)
    for _ in range(10):
        for _ in range(MAX_FAILURES - 1):
            conduct.note_failure(Cause.MISSING, 0, 1)
        assert conduct.fault(0) is None
        conduct.note_delivered(1)
    for _ in range(10):
        conduct.note_failure(Cause.MISSING, 0, 0)
        conduct.note_failure(Cause.OUR_DISK, 0, 1)
    assert conduct.fault(0) is None, "the line is what carries nothing"
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 0, 1)
    assert "reads failed" in str(conduct.fault(0))
    assert conduct.may_be_unlucky


def test_who_speaks_between_two_reads_that_stall_could_have_answered() -> None:
    conduct = Conduct(0)
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1, 0.9)
    assert conduct.fault(0) is None
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1 + RUN_SECONDS, 2)
    assert conduct.fault(0) is not None
    assert conduct.may_be_unlucky


def test_what_stalled_long_ago_says_nothing_of_today() -> None:
    conduct = Conduct(0)
    conduct.note_failure(Cause.MISSING, 1, 0.9)
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1000, 999.9)
    assert conduct.fault(0) is None


def test_what_no_node_writes_is_no_line_to_blame_for() -> None:
    conduct = Conduct(0)
    for _ in range(MAX_FAILURES):
        assert conduct.fault(0) is None
        conduct.note_failure(Cause.CONTENT, 1, 0)
    assert conduct.fault(0) is not None
    assert not conduct.may_be_unlucky


@pytest.mark.parametrize(("messages", "size"), [(MAX_UNKNOWN, 1), (16, MAX_UNKNOWN_BYTES // 16)])
def test_later_versions_may_say_a_few_things_that_we_do_not_know(messages: int, size: int) -> None:
    conduct = Conduct(0)
    for _ in range(messages):
        conduct.note_unknown(size)
    assert conduct.fault(0) is None
    conduct.note_unknown(1)
    assert "nobody knows" in str(conduct.fault(0))


def test_asking_in_vain_has_a_rate_after_a_while() -> None:
    conduct = Conduct(0)
    assert conduct.absent_pause(MAX_ABSENT, 0) == 0
    assert conduct.absent_pause(ABSENT_PER_SECOND, 0) == 1
    assert conduct.absent_pause(ABSENT_PER_SECOND, 1) == 1
    assert conduct.absent_pause(0, 2) == 0
    assert conduct.absent_pause(MAX_ABSENT, 1000) == 0
    assert conduct.fault(1000) is None


def test_penalties_grow_and_are_forgiven() -> None:
    penalties = Penalties()
    now = 0.0
    for times, seconds in enumerate((10.0, 40.0, 160.0, 640.0, 2560.0, MAX_SECONDS), 1):
        penalty = penalties.give(LIAR, "lies", now)
        assert (penalty.times, penalty.until - now) == (times, seconds)
        assert penalties.keeps_out(LIAR, penalty.until - 0.1) == penalty
        assert penalties.keeps_out(OTHER, now) is None
        assert penalties.current(now) == [penalty]
        now = penalty.until
        assert penalties.keeps_out(LIAR, now) is None
        assert penalties.current(now) == []
    again = penalties.give(LIAR, "lies", now + FORGIVEN_SECONDS)
    assert again.until - again.since == FIRST_SECONDS
    assert (penalties.total, penalties.turned_away) == (7, 6)


def test_penalties_are_bounded() -> None:
    penalties = Penalties()
    for number in range(MAX_PENALTIES + 1):
        penalties.give(b"%d" % number, "lies", 0)
    assert len(penalties.current(0)) == MAX_PENALTIES
    assert penalties.keeps_out(b"0", 0) is None


def test_who_may_be_back_already_is_told_of_for_a_while() -> None:
    penalties = Penalties()
    penalty = penalties.give(LIAR, "its log cannot be read", 5, may_be_unlucky=True)
    assert penalty.until == 5
    assert penalties.current(5) == []
    assert penalties.recent(5) == penalties.recent(4 + SHOWN_SECONDS) == [penalty]
    assert penalties.recent(5 + SHOWN_SECONDS) == []
    again = penalties.give(LIAR, "its log cannot be read", 6, may_be_unlucky=True)
    assert again.until == 6 + FACTOR * FIRST_SECONDS
