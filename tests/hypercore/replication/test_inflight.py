from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypercore import flat_tree
from hypercore.flat_tree import TreeIndex
from hypercore.merkle import MerkleNode
from hypercore.replication.inflight import (
    FIRST_WINDOW,
    MAX_CANCELLED,
    MAX_INFLIGHT_BYTES,
    MAX_WINDOW,
    MIN_WINDOW,
    Inflight,
    InflightRequest,
)


class Nodes:
    """Stored tree nodes, by index."""

    def __init__(self, indices: list[TreeIndex]) -> None:
        self.indices = set(indices)

    def read(self, index: int) -> MerkleNode | None:
        return MerkleNode(TreeIndex(index), 1, bytes(32)) if index in self.indices else None


def ask(inflight: Inflight, index: int, nodes: Nodes) -> InflightRequest:
    levels, is_shared = inflight.plan_path(index, nodes.read)
    return inflight.add(index, levels, is_shared, None, 0, 0.0)


def plain(inflight: Inflight) -> InflightRequest:
    return inflight.add(-1, 0, False, None, 0, 0.0)


def test_the_window_grows_with_answers_and_has_an_end() -> None:
    inflight = Inflight()
    assert inflight.room(100) == (MAX_WINDOW, FIRST_WINDOW)
    for _ in range(1000):
        inflight.finish(plain(inflight))
    assert inflight.room(100) == (MAX_WINDOW, MAX_WINDOW)


def test_large_blocks_make_the_window_small() -> None:
    inflight = Inflight()
    assert inflight.room(MAX_INFLIGHT_BYTES // 10) == (10, 10)
    assert inflight.room(1 << 40) == (MIN_WINDOW, MIN_WINDOW)


def test_a_run_of_blocks_shares_its_path() -> None:
    inflight, nodes = Inflight(), Nodes(flat_tree.full_roots(8))
    requests = [ask(inflight, index, nodes) for index in range(8)]
    assert [request.levels for request in requests] == [3, 0, 1, 0, 2, 0, 1, 0]
    assert [request.is_shared for request in requests] == [False] + [True] * 7


def test_a_block_that_is_to_be_asked_alone_shares_nothing() -> None:
    inflight, nodes = Inflight(), Nodes(flat_tree.full_roots(8))
    ask(inflight, 0, nodes)
    inflight.retry_alone(1)
    request = ask(inflight, 1, nodes)
    assert (request.levels, request.is_shared) == (3, False)
    inflight.finish(request)
    assert ask(inflight, 1, nodes).is_shared


@given(st.lists(st.tuples(st.integers(0, 63), st.booleans()), max_size=60))
def test_nothing_is_expected_once_nothing_is_open(steps: list[tuple[int, bool]]) -> None:
    inflight, nodes = Inflight(), Nodes(flat_tree.full_roots(64))
    for index, is_answered in steps:
        if is_answered and len(inflight):
            inflight.finish(next(iter(inflight)))
        elif all(request.index != index for request in inflight):
            ask(inflight, index, nodes)
    for request in list(inflight):
        inflight.finish(request)
    assert ask(inflight, 5, nodes).levels == 6


def test_an_answered_id_is_free_again() -> None:
    inflight = Inflight()
    first = plain(inflight)
    inflight.finish(first)
    assert plain(inflight).id == first.id


def test_a_cancelled_id_waits_for_a_round_trip() -> None:
    inflight = Inflight()
    earlier, cancelled = plain(inflight), plain(inflight)
    inflight.cancel(cancelled)
    later = plain(inflight)
    assert later.id != cancelled.id
    inflight.finish(earlier)  # was sent before the cancel: proves nothing
    assert plain(inflight).id == earlier.id
    assert plain(inflight).id not in (cancelled.id, earlier.id, later.id)
    inflight.finish(later)
    freed = {plain(inflight).id, plain(inflight).id}
    assert freed == {later.id, cancelled.id}


def test_who_never_answers_is_asked_no_more() -> None:
    inflight = Inflight()
    for _ in range(MAX_CANCELLED + 1):
        inflight.cancel(plain(inflight))
    assert inflight.room(1) == (0, 0)


def test_of_all_that_is_withdrawn_one_is_answered() -> None:
    """Found in review: who withdrew 4,097 requests before an answer asked that peer for nothing."""
    inflight = Inflight()
    told = [inflight.cancel(plain(inflight)) for _ in range(MAX_CANCELLED + 10)]
    untold = [number for number, is_told in enumerate(told, 1) if not is_told]
    assert untold == [MAX_CANCELLED + 1]
    inflight.receive_late(MAX_CANCELLED + 1)
    assert inflight.room(1)[0] == MAX_WINDOW
    ids = [plain(inflight).id for _ in range(MAX_CANCELLED + 10)]
    assert len(set(ids)) == len(ids)
    assert not set(ids) & set(range(MAX_CANCELLED + 2, MAX_CANCELLED + 11)), "are still to come"


def test_round_trips_are_smoothed() -> None:
    inflight = Inflight()
    inflight.measure_round_trip(0.8)
    assert inflight.round_trip_seconds == pytest.approx(0.8)
    inflight.measure_round_trip(1.6)
    assert inflight.round_trip_seconds == pytest.approx(0.9)


def test_an_unknown_id_is_nobodys() -> None:
    assert Inflight().get(7) is None
