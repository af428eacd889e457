from __future__ import annotations

import pytest

from node.mesh.conduct import (
    ABSENT_PER_SECOND,
    CLAIM_SECONDS,
    MAX_ABSENT,
    MAX_FAILURES,
    MAX_IDLE,
    MAX_IDLE_WORDS,
    MAX_TURNS,
    MAX_UNDELIVERED,
    MAX_UNKNOWN,
    MAX_UNKNOWN_BYTES,
    REPLIES_PER_VALUE,
    RUN_SECONDS,
    SESSIONS_PER_LOOKUP,
    TRUE_PER_SECOND,
    TURNS_PER_SECOND,
    Conduct,
    extra_lookups,
)
from node.mesh.effort import MAX_CREDIT_SECONDS, MAX_PAUSE_SECONDS, SHARE
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


def work(conduct: Conduct, load: float, seconds: float, worth: int = 0) -> float:
    """Have its messages take this share of the time that it is read; the share that it got."""
    now = spent = 0.0
    while now < seconds:
        now += 0.1 + conduct.effort.pause_seconds(now)
        conduct.note_true(worth, now)
        conduct.effort.spend(0.1 * load, now)
        spent += 0.1 * load
        assert conduct.fault() is None
    return spent / now


def test_who_floods_is_held_to_its_share_at_once() -> None:
    assert work(Conduct(0), 1.0, 5) < SHARE + (MAX_CREDIT_SECONDS + 0.1) / 5
    assert work(Conduct(0), 1.0, 600) == pytest.approx(SHARE, rel=0.01)
    assert work(Conduct(0), SHARE, 60) == pytest.approx(SHARE)


def test_what_is_true_pays_for_itself_but_not_over_and_over() -> None:
    true_share = TRUE_PER_SECOND * CLAIM_SECONDS
    assert work(Conduct(0), 0.25, 60, worth=200) == pytest.approx(0.25, rel=0.01)
    assert work(Conduct(0), 1.0, 600, worth=100_000) < true_share + SHARE + 0.02


def test_who_had_much_to_say_once_and_is_silent_since_stays() -> None:
    """Found in review: who was in debt when it fell silent was sent away two seconds later."""
    conduct = Conduct(0)
    conduct.effort.spend(MAX_CREDIT_SECONDS + 0.03, 0)
    assert conduct.effort.pause_seconds(0) == pytest.approx(0.03 / SHARE)
    assert conduct.effort.pause_seconds(0.1) == pytest.approx(0.03 / SHARE - 0.1)
    assert conduct.fault() is None
    assert conduct.effort.pause_seconds(3) == 0
    assert conduct.fault() is None


def test_what_is_here_may_be_asked_for_now_and_then_and_some_that_is_not() -> None:
    conduct = Conduct(0)
    stored = 100_000
    # It compares all that it keeps, at whatever that costs, and asks for what clients want.
    conduct.note_looked_up(6, stored, 0, stored, 0)
    conduct.note_looked_up(1, 0, MAX_ABSENT, stored, 0)
    assert conduct.effort.pause_seconds(0) == 0
    conduct.note_looked_up(1, 1000, 0, stored, 0)
    conduct.note_looked_up(1, 0, 1000, stored, 0)
    assert conduct.effort.pause_seconds(0) > 0
    later = MAX_ABSENT / ABSENT_PER_SECOND
    for _ in range(2):
        assert conduct.effort.pause_seconds(later) == 0
        conduct.note_looked_up(6, stored // 2, MAX_ABSENT // 2, stored, later)
    assert conduct.fault() is None


def test_what_a_value_takes_with_very_many_sessions_is_never_free() -> None:
    assert [extra_lookups(n) for n in (0, 10, SESSIONS_PER_LOOKUP, 999)] == [0, 0, 1, 7]
    conduct = Conduct(0)
    assert conduct.note_looked_up(1, 1, 1, 10, 0) == 0
    assert conduct.effort.pause_seconds(0) == 0
    assert conduct.note_looked_up(1, 1, 1, 10, 0, extra=6) == 0.75
    assert conduct.effort.pause_seconds(0) == MAX_PAUSE_SECONDS


def test_who_says_nothing_again_and_again_goes() -> None:
    conduct = Conduct(0)
    for _ in range(MAX_IDLE):
        conduct.note_idle(0)
    assert conduct.fault() is None
    conduct.note_idle(0)
    assert "say nothing" in str(conduct.fault())


def test_who_follows_something_else_all_the_time_goes() -> None:
    conduct = Conduct(0)
    for number in range(1000):  # whose reads fail has all listed anew twice a second
        conduct.note_turn(number * 2 / TURNS_PER_SECOND)
    assert conduct.fault() is None
    for _ in range(MAX_TURNS + 1):
        conduct.note_turn(400)
    assert "what it follows" in str(conduct.fault())


def test_words_that_nobody_wants_have_a_bound() -> None:
    for note in (Conduct.note_unwanted, Conduct.note_gossip):
        conduct = Conduct(0)
        note(conduct, MAX_IDLE_WORDS, 0)
        assert conduct.fault() is None
        note(conduct, MAX_IDLE_WORDS, 1000)
        assert conduct.fault() is None
        note(conduct, 1, 1000)
        assert conduct.fault() is not None


def test_replies_are_to_what_was_said() -> None:
    conduct = Conduct(0)
    conduct.note_reply(MAX_IDLE_WORDS + REPLIES_PER_VALUE * 1000, 1000)
    assert conduct.fault() is None
    conduct.note_reply(1, 1000)
    assert "replies" in str(conduct.fault())


def test_what_happens_now_and_then_is_no_fault_on_a_connection_of_many_years() -> None:
    """Who came with a later version, and said something new every hour, went after half a year."""
    conduct = Conduct(0)
    for hour in range(100_000):
        conduct.note_unknown(10_000, hour * 3600)
        conduct.note_idle(hour * 3600)
        conduct.note_undelivered(hour * 3600)
        assert conduct.fault() is None


def test_announcing_what_one_has_not_is_told_from_bad_luck() -> None:
    conduct = Conduct(0)
    conduct.note_delivered(100)
    for _ in range(399):
        conduct.note_undelivered(0)
    assert conduct.fault() is None
    conduct.note_undelivered(0)
    assert "400 values that it did not have" in str(conduct.fault())
    liar = Conduct(0)
    for _ in range(MAX_UNDELIVERED):
        assert liar.fault() is None
        liar.note_undelivered(0)
    assert liar.fault() is not None


def test_reads_that_fail_one_after_the_other() -> None:
    conduct = Conduct(0)
    for _ in range(10):
        for _ in range(MAX_FAILURES - 1):
            conduct.note_failure(Cause.MISSING, 0, 1)
        assert conduct.fault() is None
        conduct.note_delivered(1)
    for _ in range(10):
        conduct.note_failure(Cause.MISSING, 0, 0)
        conduct.note_failure(Cause.OUR_DISK, 0, 1)
    assert conduct.fault() is None, "the line is what carries nothing"
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 0, 1)
    assert "reads failed" in str(conduct.fault())
    assert conduct.may_be_unlucky


def test_what_comes_after_its_end_is_no_excuse_and_no_fault() -> None:
    """Found by seed 304900: a value that came from elsewhere turned bad luck into a lie."""
    conduct = Conduct(0)
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 0, 1)
    conduct.end(conduct.fault())
    conduct.note_delivered(1)
    assert conduct.may_be_unlucky
    honest = Conduct(0)
    honest.end(None)
    for _ in range(MAX_FAILURES):
        honest.note_failure(Cause.MISSING, 0, 1)
    assert not honest.may_be_unlucky
    assert honest.ended_for is None


def test_who_speaks_between_two_reads_that_stall_could_have_answered() -> None:
    conduct = Conduct(0)
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1, 0.9)
    assert conduct.fault() is None
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1 + RUN_SECONDS, 2)
    assert conduct.fault() is not None
    assert conduct.may_be_unlucky


def test_what_stalled_long_ago_says_nothing_of_today() -> None:
    conduct = Conduct(0)
    conduct.note_failure(Cause.MISSING, 1, 0.9)
    for _ in range(MAX_FAILURES):
        conduct.note_failure(Cause.MISSING, 1000, 999.9)
    assert conduct.fault() is None


def test_what_no_node_writes_is_no_line_to_blame_for() -> None:
    conduct = Conduct(0)
    for _ in range(MAX_FAILURES):
        assert conduct.fault() is None
        conduct.note_failure(Cause.CONTENT, 1, 0)
    assert conduct.fault() is not None
    assert not conduct.may_be_unlucky


@pytest.mark.parametrize(("messages", "size"), [(MAX_UNKNOWN, 1), (16, MAX_UNKNOWN_BYTES // 16)])
def test_later_versions_may_say_a_few_things_that_we_do_not_know(messages: int, size: int) -> None:
    conduct = Conduct(0)
    for _ in range(messages):
        conduct.note_unknown(size, 0)
    assert conduct.fault() is None
    conduct.note_unknown(1, 0)
    assert "nobody knows" in str(conduct.fault())


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
