from __future__ import annotations

from swarm.dht.messages import Internal
from swarm.dht.purposes import Errands, ForQuery, ForUser
from swarm.dht.query import Query, QueryPlan

PLAN = QueryPlan(bytes(32), Internal.FIND_NODE, True)


def create_query() -> Query:
    return Query(PLAN, b"\x01" * 32, [])


def test_requests_of_a_query_end_with_it() -> None:
    errands = Errands()
    assert errands.next_query == 1
    number = errands.begin_query(create_query(), is_background=True)
    assert (number, errands.queries, errands.next_query) == (1, 1, 2)
    visits = [ForQuery(number, is_commit=False) for _ in range(3)]
    for handle, visit in enumerate(visits):
        errands.note(handle, visit)
    errands.note(9, ForUser())
    assert errands.settle(1) == visits[1]
    assert errands.is_wanted(visits[0])
    assert sorted(errands.end_query(number)) == [0, 2]
    assert (errands.queries, errands.running(number)) == (0, None)
    assert not errands.is_wanted(visits[0])
    assert [errands.settle(handle) for handle in (0, 2, 2)] == [visits[0], visits[2], None]
    assert errands.end_query(number) == []
    assert errands.of(9) == ForUser()
    assert errands.is_wanted(ForUser())
