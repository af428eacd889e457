from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.covalue.known_state import NOTHING, KnownState
from node.covalue.local.held_states import NOT_HELD, HeldState, HeldStates
from tests.support.authors import Author, map_header

IDS = [map_header(str(n)).id for n in range(5)]
ANN = Author("ann")
SESSION, DELETION = ANN.session_id(), ANN.delete_session_id()


def _state(count: int, *, is_tombstone: bool = False) -> HeldState:
    session_id = DELETION if is_tombstone else SESSION
    return HeldState(KnownState(True, {session_id: count}), is_tombstone)


def test_nothing_is_held_of_a_value_that_nobody_asked_for() -> None:
    assert HeldStates().get(IDS[0]) is NOT_HELD
    assert NOT_HELD.covers(NOTHING)
    assert not NOT_HELD.covers(KnownState(True))


def test_a_state_read_earlier_does_not_undo_a_later_one() -> None:
    states = HeldStates()
    states.merge(IDS[0], _state(5))
    states.merge(IDS[0], _state(3))
    assert states.get(IDS[0]) == _state(5)
    states.replace(IDS[0], _state(3))
    assert states.get(IDS[0]) == _state(3)


def test_a_tombstone_stays_one() -> None:
    states = HeldStates()
    states.merge(IDS[0], _state(5))
    states.merge(IDS[0], _state(1, is_tombstone=True))
    assert states.get(IDS[0]) == _state(1, is_tombstone=True)
    states.merge(IDS[0], _state(9))
    assert states.get(IDS[0]) == _state(1, is_tombstone=True)


def test_of_a_tombstone_only_delete_sessions_are_wanted() -> None:
    tombstone = _state(1, is_tombstone=True)
    assert tombstone.covers(KnownState(True, {SESSION: 7, DELETION: 1}))
    other = Author("bob").delete_session_id()
    assert not tombstone.covers(KnownState(True, {DELETION: 1, other: 1}))


def test_states_of_mounted_values_are_kept_and_of_others_the_latest() -> None:
    states = HeldStates(max_unmounted=2)
    states.replace(IDS[0], _state(1))
    states.mount(IDS[0])
    assert states.get(IDS[0]) == _state(1)
    for co_id in IDS[1:4]:
        states.replace(co_id, _state(2))
    assert states.is_mounted(IDS[0])
    assert [states.get(co_id) is NOT_HELD for co_id in IDS] == [False, True, False, False, True]
    assert (len(states), states.mounted) == (3, 1)
    states.forget(IDS[0])
    assert states.get(IDS[0]) is NOT_HELD
    assert not states.is_mounted(IDS[0])


@given(st.lists(st.tuples(st.sampled_from(IDS), st.integers(0, 9), st.booleans()), max_size=40))
def test_merged_states_only_grow(steps: list[tuple[str, int, bool]]) -> None:
    states = HeldStates()
    best: dict[str, int] = {}
    for text, count, is_mounting in steps:
        co_id = next(co_id for co_id in IDS if co_id == text)
        if is_mounting:
            states.mount(co_id)
        states.merge(co_id, _state(count))
        best[co_id] = max(count, best.get(co_id, 0))
        for known in IDS:
            assert states.get(known).known.sessions.get(SESSION, 0) == best.get(known, 0)
