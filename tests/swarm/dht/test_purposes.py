from __future__ import annotations

from swarm.dht.messages import Internal
from swarm.dht.purposes import Errands, ForQuery, ForUser, Purpose
from swarm.dht.query import Query, QueryPlan
from swarm.dht.requests import Call

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
    assert sorted(errands.end_query(number)) == [0, 2]
    assert (errands.queries, errands.running(number)) == (0, None)
    assert [errands.settle(handle) for handle in (0, 2, 2)] == [visits[0], visits[2], None]
    assert errands.end_query(number) == []
    assert errands.of(9) == ForUser()


def test_what_is_postponed_is_tried_once_more_unless_its_query_is_over() -> None:
    errands = Errands()
    ended, running = (errands.begin_query(create_query(), is_background=False) for _ in range(2))
    call = Call(("192.0.2.7", 4000), Internal.PING, True)
    purposes: list[Purpose] = [
        ForUser(),
        ForQuery(ended, is_commit=False),
        ForQuery(running, is_commit=True),
    ]
    for purpose in purposes:
        errands.postpone(call, purpose)
    errands.end_query(ended)
    tried = []
    for again, purpose in errands.take_postponed():
        tried.append(purpose)
        errands.postpone(again, purpose)  # still no room: at the next time
    assert tried == [purposes[0], purposes[2]]
    errands.end_query(running)
    assert list(errands.take_postponed()) == [(call, purposes[0])]
    assert list(errands.take_postponed()) == []
