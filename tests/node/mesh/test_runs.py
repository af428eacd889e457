from __future__ import annotations

from node.mesh.run_messages import Doubt
from node.mesh.runs import MAX_NODES, OVERLAP_SECONDS, Runs

NODE = b"n" * 32
FIRST, SECOND, THIRD = b"1" * 8, b"2" * 8, b"3" * 8


def test_restarts_are_no_cause_for_doubt() -> None:
    runs = Runs()
    for now, instance in enumerate((FIRST, FIRST, SECOND, SECOND, THIRD)):
        assert runs.note(NODE, instance, now) is Doubt.NONE


def test_a_run_that_comes_back_shows_that_the_younger_is_a_second_node() -> None:
    runs = Runs()
    assert runs.note(NODE, FIRST, 0) is Doubt.NONE
    assert runs.note(NODE, SECOND, 1) is Doubt.NONE
    assert runs.note(NODE, FIRST, 2) is Doubt.NONE
    for now in (3, 5):
        assert runs.note(NODE, SECOND, now) is Doubt.SECOND
        assert runs.note(NODE, FIRST, now + 1) is Doubt.NONE
    assert runs.note(b"o" * 32, SECOND, 9) is Doubt.NONE


def test_a_new_run_that_takes_a_living_connection_s_place_had_better_wait() -> None:
    runs = Runs()
    runs.note(NODE, FIRST, 0)
    runs.replaced(NODE, 10)
    assert runs.note(NODE, FIRST, 10) is Doubt.NONE
    assert runs.note(NODE, SECOND, 11) is Doubt.OVERLAP
    assert runs.note(NODE, THIRD, 10 + OVERLAP_SECONDS) is Doubt.NONE


def test_what_is_remembered_is_bounded() -> None:
    runs = Runs()
    runs.note(NODE, FIRST, 0)
    runs.note(NODE, SECOND, 0)
    for number in range(MAX_NODES):
        runs.note(b"%d" % number, FIRST, 1)
    assert runs.note(NODE, FIRST, 2) is Doubt.NONE
    assert runs.note(NODE, SECOND, 3) is Doubt.NONE
