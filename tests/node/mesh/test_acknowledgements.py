from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.covalue.ids import CoSessionId
from node.mesh.acknowledgements import (
    MAX_OWED,
    MAX_STATED,
    MAX_STATED_SESSIONS,
    MAX_TOLD_WHOLE,
    MAX_UNACKNOWLEDGED,
    Acknowledgements,
    held_of,
    holds,
)
from tests.node.mesh.samples import co_id, session_id, sessions

A, B = co_id(1), co_id(2)
S, T = session_id(1), session_id(2)
DELETION = CoSessionId(f"{co_id(9)}_session_dz9h5nwaYtTmHkp3Bc$")


def test_what_is_told_is_unacknowledged_until_all_of_it_is_held() -> None:
    said = Acknowledgements()
    said.told(A, {S: 3, T: 1})
    said.note(A, {S: 3})
    assert said.unacknowledged == 1
    said.note(A, None)
    said.note(A, {T: 1})
    assert said.unacknowledged == 0


def test_what_the_member_holds_already_is_not_told_to_it() -> None:
    said = Acknowledgements()
    said.note(A, {S: 3})
    assert not said.lacks(A, {S: 2})
    assert said.lacks(A, {S: 4})
    assert said.lacks(B, {})
    said.told(A, {S: 3})
    assert said.unacknowledged == 0


def test_a_member_that_declines_is_not_waited_for() -> None:
    said = Acknowledgements()
    said.told(A, {S: 1})
    said.decline(A)
    assert (said.unacknowledged, said.declined) == (0, 1)


def test_what_it_lost_interest_in_is_forgotten() -> None:
    said = Acknowledgements()
    said.told(A, {S: 1})
    said.told(B, {S: 1})
    said.keep(lambda co_id: co_id == B)
    assert said.unacknowledged == 1
    said.note(B, {S: 1})
    assert said.unacknowledged == 0


def test_a_tombstone_is_all_that_anybody_holds_of_a_deleted_value() -> None:
    assert holds({DELETION: 1}, {S: 5, DELETION: 1})
    assert not holds({DELETION: 1}, {S: 5, DELETION: 2})
    assert not holds({S: 5}, {S: 5, DELETION: 1})
    assert not holds({}, {S: 1})


def test_acknowledgements_are_told_once_and_merged_by_value() -> None:
    said = Acknowledgements()
    assert said.take(10) == (0, [])  # the first word says that it acknowledges at all
    said.owe(A, {S: 1})
    said.owe(A, {S: 2})
    said.owe(B, None)
    said.owe_merged(7)
    said.owe_merged(5)
    assert said.take(1) == (7, [(A, {S: 2})])
    assert said.take(10) == (7, [(B, None)])
    assert not said.is_owing


def test_everything_is_bounded() -> None:
    said = Acknowledgements()
    for number in range(max(MAX_UNACKNOWLEDGED, MAX_OWED) + 10):
        name = co_id(1)[:-6] + f"{number:06}"
        said.told(type(A)(name), {S: 1})
        said.owe(type(A)(name), {S: 1})
    assert said.unacknowledged == MAX_UNACKNOWLEDGED
    assert said.is_partial
    assert len(said.take(2 * MAX_OWED)[1]) == MAX_OWED
    said.note(A, {S: 1})
    for number in range(MAX_STATED):
        said.note(type(A)(co_id(1)[:-6] + f"{number:06}"), {S: 1})
    assert said.lacks(A, {S: 1})  # forgotten, so it is told again: no harm


def test_an_edit_of_a_value_that_very_many_wrote_to_is_acknowledged_alone() -> None:
    few = {session_id(number): 3 for number in range(MAX_TOLD_WHOLE)}
    assert held_of(few, {S: 2}) == few
    many = few | {session_id(MAX_TOLD_WHOLE): 3}
    assert held_of(many, {S: 2}) == {S: 3}
    assert held_of(many, {}) == {}
    assert held_of(many, many) == many
    said = Acknowledgements()
    said.owe(A, held_of(many, {S: 2}))
    said.owe(A, held_of(many, {T: 2}))
    assert said.take(10) == (0, [(A, {S: 3, T: 3})])


def test_a_tombstone_of_very_many_that_deleted_it_is_told_whole() -> None:
    tombstone = {
        CoSessionId(DELETION.replace("B", b)): 1 for b in "23456789ABCDEFGHJKLMNPQRSTUVWXYZab"
    }
    assert len(tombstone) > MAX_TOLD_WHOLE
    assert held_of(tombstone, {S: 5}) == tombstone
    assert holds(held_of(tombstone, {S: 5}), {S: 5})


def test_sessions_that_nobody_began_fill_no_memory() -> None:
    said = Acknowledgements()
    part = MAX_STATED_SESSIONS // 4
    first, *others = [f"{co_id(9)}_session_z{number:08}" for number in range(5 * part)]
    first_id, other_ids = CoSessionId(first), [CoSessionId(other) for other in others]
    said.note(A, {first_id: 1})
    assert not said.lacks(A, {first_id: 1})
    for start in range(0, len(other_ids), part):
        said.note(A, dict.fromkeys(other_ids[start : start + part], 1))
    assert said.lacks(A, {first_id: 1})  # of one value
    for start in range(0, len(other_ids), part):
        said.note(co_id(100 + start), dict.fromkeys(other_ids[start : start + part], 1))
    assert said.lacks(co_id(100), {other_ids[0]: 1})  # and of several
    assert not said.lacks(co_id(100 + 4 * part), {other_ids[4 * part]: 1})


def test_what_is_confirmed_bit_by_bit_is_acknowledged_whatever_is_forgotten_meanwhile() -> None:
    said = Acknowledgements()
    said.told(A, {S: 3, T: 1})
    said.note(A, {S: 3})
    for number in range(MAX_STATED):
        said.note(co_id(100 + number), {S: 1})
    assert said.unacknowledged == 1
    said.note(A, {T: 1})
    assert said.unacknowledged == 0


@given(st.lists(sessions, max_size=6), sessions)
def test_statements_add_up_in_any_order(
    statements: list[dict[CoSessionId, int]], told: dict[CoSessionId, int]
) -> None:
    said = Acknowledgements()
    said.told(A, told)
    union: dict[CoSessionId, int] = {}
    for statement in statements:
        said.note(A, statement)
        for key, count in statement.items():
            union[key] = max(count, union.get(key, 0))
    covers = bool(statements) and all(union.get(key, 0) >= count for key, count in told.items())
    assert said.unacknowledged == (not covers)
