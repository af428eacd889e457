"""When members are asked about copies that somebody waits for."""

from __future__ import annotations

from itertools import chain, pairwise

from node.mesh.copy_questions import FIRST_SECONDS, LAST_SECONDS, MAX_WAITED, CopyQuestions
from node.mesh.messages import MAX_QUERY_IDS
from tests.node.mesh.samples import co_id

A, B = co_id(1), co_id(2)


def test_who_waits_for_long_is_asked_about_less_and_less_often() -> None:
    questions = CopyQuestions()
    asked = [now for now in range(600) if questions.take([A], now)]
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert asked[0] == FIRST_SECONDS
    assert pauses[:6] == [2, 4, 8, 16, 32, LAST_SECONDS]
    assert {*pauses[6:]} == {LAST_SECONDS}


def test_each_value_has_pauses_of_its_own() -> None:
    questions = CopyQuestions()
    for now in range(100):
        questions.take([A], now)
    assert questions.take([A, B], 100) == []
    assert questions.take([A, B], 101) == [B]


def test_what_is_waited_for_again_is_asked_about_soon() -> None:
    questions = CopyQuestions()
    for now in range(100):
        questions.take([A], now)
    questions.take([], 100)
    assert questions.take([A], 101) == []
    assert questions.take([A], 102) == [A]


def test_when_somebody_comes_all_is_asked_about_at_once() -> None:
    questions = CopyQuestions()
    for now in range(100):
        questions.take([A, B], now)
    questions.begin_anew(100)
    assert questions.take([A, B], 100) == [A, B]
    assert questions.take([A, B], 101) == []
    assert questions.take([A, B], 102) == [A, B]


def test_of_very_many_some_are_asked_about_and_then_others() -> None:
    questions = CopyQuestions()
    ids = [co_id(number) for number in range(MAX_WAITED + 1)]
    assert questions.take(ids, 0) == []
    asked = [questions.take(ids, 1) for _ in range(MAX_WAITED // MAX_QUERY_IDS)]
    assert [*chain.from_iterable(asked)] == ids[:MAX_WAITED]
    assert questions.take(ids, 1) == []
