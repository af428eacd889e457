from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.covalue.ids import CoSessionId
from node.covalue.known_state import NOTHING, KnownState, has_counts, merge_counts, sessions_hash
from tests.support.cojson_vectors import vectors

session_ids = st.sampled_from([CoSessionId(letter) for letter in "abcd"])
states = st.builds(
    KnownState, st.booleans(), st.dictionaries(session_ids, st.integers(0, 5), max_size=4)
)


@given(states, states)
def test_a_union_covers_both_and_nothing_else(left: KnownState, right: KnownState) -> None:
    union = left.merged(right)
    assert union.covers(left)
    assert union.covers(right)
    for session_id, count in union.sessions.items():
        assert count in (left.sessions.get(session_id), right.sessions.get(session_id))
    assert right.merged(left).covers(union)


@given(states)
def test_everything_covers_nothing_and_itself(state: KnownState) -> None:
    assert state.covers(NOTHING)
    assert state.covers(state)
    assert state.merged(NOTHING) == state


def test_counts_are_raised_in_place() -> None:
    counts = {CoSessionId("a"): 3}
    assert merge_counts(counts, {CoSessionId("a"): 2, CoSessionId("b"): 1}) is counts
    assert counts == {"a": 3, "b": 1}
    assert has_counts(counts, {CoSessionId("b"): 1})
    assert not has_counts(counts, {CoSessionId("b"): 2})


def test_the_hash_that_reconciliation_compares() -> None:
    case = vectors()["reconcile"]
    assert sessions_hash(case["sessions"]) == case["sessionsHash"]
    assert sessions_hash(dict(reversed(case["sessions"].items()))) == case["sessionsHash"]
    assert sessions_hash({}) == case["emptySessionsHash"]
